"""Makers of the rendered parts."""
