"""Runs on image classifiers."""
