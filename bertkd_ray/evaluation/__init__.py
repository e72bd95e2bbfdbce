"""Metrics of translations and their significance."""
