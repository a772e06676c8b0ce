"""Verbs: one file a stage, and what is computed from records."""
