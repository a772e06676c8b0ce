"""Bulk data between a host and its store."""
