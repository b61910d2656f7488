"""Builders of the rendered parts."""
