"""The detection matrix: a block in every place a program can put one. ``python -m tests.detection`` prints it."""
