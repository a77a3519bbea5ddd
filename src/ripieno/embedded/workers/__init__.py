"""Programmatic specialists. Each always answers, right or wrong."""
