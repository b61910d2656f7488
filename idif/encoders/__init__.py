"""Frozen encoders and live features."""
