"""Programmatic specialists: every one always answers, right or wrong."""
