"""Printing: console, progress bars, tables, signals."""
