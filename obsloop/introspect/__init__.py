"""Read the program's objects without running the program's code."""
