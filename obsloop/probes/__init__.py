"""What the loop hands away, measured: one file for each thing."""
