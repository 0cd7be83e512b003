"""Capability of chat models: likelihood, multiple choice, instructions that can be verified."""
