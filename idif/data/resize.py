"""Names of the ways to resize an image, for modules that import no library."""

from typing import Literal

Resize = Literal["bilinear", "bicubic", "lanczos"]
"""Resampling of an image."""
