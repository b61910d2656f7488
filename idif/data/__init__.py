"""Shared data types: index, batch, feature specifications, decoded images."""
