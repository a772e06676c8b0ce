"""Nouns: what exists and how to reach it.

Importing this package costs nothing: `blocks.artifact` also runs on database hosts.
"""
