"""Causal-FiLM: predicts how a weld looks from video, sound and sensors of its making."""
