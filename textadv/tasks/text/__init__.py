"""Runs on text classifiers."""
