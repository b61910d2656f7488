"""Synthetic defects for training: batched, on the device of the images, pure in their seeds."""
