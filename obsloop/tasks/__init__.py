"""Live tasks, seen from outside: the census, and the lints."""
