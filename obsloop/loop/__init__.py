"""Make, run and observe loops: the loop class and what it needs."""
