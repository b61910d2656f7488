"""Synthetic defects for training: batched, on the device of the images, determined by seeds."""
