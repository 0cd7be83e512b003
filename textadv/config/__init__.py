"""The schema of a run: strict, every default in sight."""
