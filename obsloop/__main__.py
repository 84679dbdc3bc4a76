"""`python -m obsloop`: the `obsloop` command."""

import sys

from obsloop.cli import main

if __name__ == "__main__":
    sys.exit(main())
