"""Runs on chat models."""
