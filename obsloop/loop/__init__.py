"""The loop class, and how one is made, started and observed."""
