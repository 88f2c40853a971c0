"""Puts tests/ on the path, so that the suites share their builders of synthetic data."""
