"""Checking a store: completeness, checksums, comparison with its source, repair."""
