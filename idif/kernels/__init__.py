"""Optimizations for training on a CPU."""
