"""Decides which pixels of a decoded mask are marked, whatever its color mode and compression.

The grey value of a pixel is its brightest channel after palettes and CMYK are resolved, times its opacity;
where all pixels have one color, opacity alone is the mask. What is white, bright or
opaque marks; what is black or transparent does not. Then:

- A mask whose values are all below 32 numbers its defects: every value above 0 marks.
- A mask of at most 8 values, none between 0 and an eighth of the brightest, is drawn: every value above 0
  marks.
- Any other mask has the values that compression and smoothed edges leave: half of its brightest value marks.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

MASK_RULE = "grey-levels/v2"
"""Name of this rule, for fingerprints; it changes with the rule."""
MAX_LABEL = 31
"""Masks without a larger value number the defects."""
MAX_DRAWN_LEVELS = 8
"""Values of a mask that was drawn, black included."""
DARKEST_DRAWN = 1 / 8
"""Values between black and this share of the brightest come from compression or smoothing."""


@dataclass(frozen=True)
class MarkedPixels:
    """A mask at its original size."""

    marked: npt.NDArray[np.bool_]
    """[H,W]: true on the defect."""
    levels: tuple[int, ...]
    """Grey values above 0 that occur, ascending, 0..255."""

    @property
    def has_grey(self) -> bool:
        """Whether values between black and white leave open which pixels are meant."""
        return len(self.levels) > 1 and self.levels[-1] > MAX_LABEL


def mark_pixels(image: Image.Image) -> MarkedPixels:
    """Which pixels of a decoded mask are marked; the rule is that of this module."""
    grey = _to_grey(image)
    levels = tuple(value for value, count in enumerate(grey.histogram()) if count and value)
    return MarkedPixels(np.asarray(grey) >= _lowest_marked(levels), levels)


def _lowest_marked(levels: tuple[int, ...]) -> int:
    if not levels:
        return 1
    brightest = levels[-1]
    drawn = len(levels) < MAX_DRAWN_LEVELS and levels[0] >= brightest * DARKEST_DRAWN
    return 1 if brightest <= MAX_LABEL or drawn else (brightest + 1) // 2


def _to_grey(image: Image.Image) -> Image.Image:
    """The mask as an 8-bit image of one channel."""
    if image.mode == "L" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_wide(np.asarray(image))
    has_alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if not has_alpha:
        return _brightest(image.convert("RGB"))
    whole = image.convert("RGBA")
    alpha, colors = whole.getchannel("A"), whole.convert("RGB")
    if alpha.getextrema() == (0, 0):  # an opacity that is nowhere says nothing
        return _brightest(colors)
    one_color = all(low == high for low, high in (channel.getextrema() for channel in colors.split()))
    if one_color and alpha.getextrema() != (255, 255):
        return alpha
    return ImageChops.multiply(_brightest(colors), alpha)


def _brightest(colors: Image.Image) -> Image.Image:
    red, green, blue = colors.split()
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


def _from_wide(values: npt.NDArray[np.generic]) -> Image.Image:
    """Values of more than 8 bits or with fractions, scaled: the brightest becomes 255, none 0."""
    wide = np.nan_to_num(values.astype(np.float64), posinf=0.0).clip(min=0)
    brightest = float(wide.max(initial=0.0))
    if brightest > 255 or (wide % 1).any():
        wide = np.ceil(wide * (255 / brightest))
    return Image.fromarray(wide.astype(np.uint8))
