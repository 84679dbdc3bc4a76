"""Profiles: windows, merging, formats."""
