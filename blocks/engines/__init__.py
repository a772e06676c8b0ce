"""Engines: one package a database."""
