"""Sentences: `python -m flows.NAME` runs each."""
