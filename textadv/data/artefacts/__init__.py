"""Prompts that attacks found, in the files of other projects: read, joined with behaviours, and written again."""
