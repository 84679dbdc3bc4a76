"""What is concluded from the measurements: slow callbacks and iterations, blocked loops, and why."""
