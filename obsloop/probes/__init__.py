"""What is wrapped, one file for each thing."""
