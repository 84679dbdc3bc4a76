"""What reads YAML is not even read where the package for it may be missing."""

import os

collect_ignore = ["test_worker_alerts.py"] if "TESTS_WITHOUT_CLIENTS" in os.environ else []
