"""Readers, importers and makers of multi-view datasets."""
