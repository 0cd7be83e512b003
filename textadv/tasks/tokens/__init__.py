"""Runs on token classifiers: a label for every word of a sentence."""
