"""What reads YAML or schemas is not even read where the packages for it may be missing."""

import os

collect_ignore = ["test_configurations.py", "test_kubernetes.py"] if "TESTS_WITHOUT_CLIENTS" in os.environ else []
