"""Engines: one file a database."""
