"""Detectors for tasks that never yield, never wake, grow in number, or fail unseen."""
