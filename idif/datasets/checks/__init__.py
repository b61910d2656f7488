"""Checks of a dataset before it is encoded."""
