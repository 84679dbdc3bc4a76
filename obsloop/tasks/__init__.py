"""Live tasks, seen from other threads: the census and the lints."""
