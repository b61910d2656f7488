"""Prediction on new photographs, and export."""
