"""Immutable nouns of treatment planning. NumPy only."""
