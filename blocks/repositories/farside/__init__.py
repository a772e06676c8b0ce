"""Farside's own backup sets in an object store."""
