"""Evaluation with missing views, and their imputation."""
