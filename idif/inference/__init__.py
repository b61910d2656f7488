"""Prediction on new images, and export."""
