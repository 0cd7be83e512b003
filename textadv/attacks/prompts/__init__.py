"""Attacks that rewrite what a chat model is asked: the prompt that comes back has other text, and tokens of its own."""
