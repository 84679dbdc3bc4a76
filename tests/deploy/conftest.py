"""What reads YAML or schemas is not even read where the packages for it may be missing."""

import os

_READERS = ["test_configurations.py", "test_kubernetes.py", "test_workers.py"]
collect_ignore = _READERS if "TESTS_WITHOUT_CLIENTS" in os.environ else []
