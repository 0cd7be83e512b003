"""Accuracy of classifiers, clean and under attack, and what casts doubt on it."""
