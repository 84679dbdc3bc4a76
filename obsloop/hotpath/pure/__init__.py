"""The hot path in Python, for machines without the compiled one."""
