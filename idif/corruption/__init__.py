"""Synthetic defects for training: batched, on the device of the images, pure in their seeds."""

from idif.corruption.synthesis import corrupt
from idif.corruption.textures import TextureBank, load_textures

__all__ = ["TextureBank", "corrupt", "load_textures"]
