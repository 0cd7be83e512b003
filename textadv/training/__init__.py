"""Training: the rows of every step, the loop, what it keeps and what stops it."""
