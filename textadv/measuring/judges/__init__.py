"""Judges: what tells whether an answer broke the model, and how often each agrees with people."""
