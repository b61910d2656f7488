"""Masks of every color mode and compression mark the pixels that were drawn."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from idif.data.images import decode_mask, load_image, load_whole_mask
from idif.errors import DatasetError

Bools = npt.NDArray[np.bool_]


def drawn() -> Bools:
    """Two regions whose edges do not lie on the blocks of a JPEG."""
    truth = np.zeros((96, 96), np.bool_)
    truth[11:30, 13:42] = True
    rows, columns = np.ogrid[:96, :96]
    truth |= (rows - 65) ** 2 + (columns - 60) ** 2 < 15**2
    return truth


def grey() -> Image.Image:
    return Image.fromarray(drawn().astype(np.uint8) * 255)


def palette(colors: list[int], *, transparent: int | None = None) -> Image.Image:
    image = Image.fromarray(drawn().astype(np.uint8)).convert("P")
    image.putpalette(colors + [0] * (768 - len(colors)))
    if transparent is not None:
        image.info["transparency"] = transparent
    return image


def with_alpha(color: int, background: int, alpha: Bools) -> Image.Image:
    shade = Image.fromarray(np.where(drawn(), color, background).astype(np.uint8))
    image = shade.convert("RGBA")
    image.putalpha(Image.fromarray(alpha.astype(np.uint8) * 255))
    return image


def values(*levels: int) -> Image.Image:
    """The two regions with values of their own; the second is on the lower half."""
    picture = drawn().astype(np.uint8) * np.uint8(levels[0])
    picture[48:][drawn()[48:]] = levels[-1]
    return Image.fromarray(picture)


EXACT = {
    "white": grey(),
    "bits": grey().convert("1"),
    "palette-white-second": palette([0, 0, 0, 255, 255, 255]),
    "palette-red": palette([0, 0, 0, 128, 0, 0]),
    "palette-transparent": palette([255, 255, 255, 255, 255, 255], transparent=0),
    "color": Image.merge("RGB", (Image.new("L", (96, 96)), Image.new("L", (96, 96)), grey())),
    "opaque": with_alpha(255, 0, np.ones((96, 96), np.bool_)),
    "alpha-of-zero": with_alpha(255, 0, np.zeros((96, 96), np.bool_)),
    "white-on-transparent-white": with_alpha(255, 255, drawn()),
    "white-on-transparent-black": with_alpha(255, 0, drawn()),
    "black-on-transparent-black": with_alpha(0, 0, drawn()),
    "numbered": values(1, 2),
    "one-grey": values(60, 60),
    "two-kinds": values(100, 255),
    "16-bits": Image.fromarray(drawn().astype(np.uint16) * 65535),
    "16-bits-small": Image.fromarray(drawn().astype(np.uint16) * 300),
    "float": Image.fromarray(drawn().astype(np.float32)),
}


def save(image: Image.Image, folder: Path) -> Path:
    path = folder / ("m.tif" if image.mode in ("F", "CMYK") else "m.png")
    image.save(path)
    return path


@pytest.mark.parametrize("kind", EXACT)
def test_every_mode_marks_what_was_drawn(tmp_path: Path, kind: str) -> None:
    np.testing.assert_array_equal(load_whole_mask(save(EXACT[kind], tmp_path)), drawn())


def test_the_first_color_of_a_palette_may_be_white(tmp_path: Path) -> None:
    path = save(palette([255, 255, 255, 0, 0, 0]), tmp_path)
    np.testing.assert_array_equal(load_whole_mask(path), ~drawn())


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_is_no_coverage_of_ink(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    Image.merge("CMYK", (Image.new("L", (96, 96)),) * 3 + (grey().point(lambda v: 255 - v),)).save(path)
    marked = load_whole_mask(path)
    assert (marked != drawn()).mean() < 0.005


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
@pytest.mark.parametrize("form", ["JPEG", "WEBP", "JPEG-as-PNG"])
@pytest.mark.parametrize("brightest", [255, 120])
def test_compression_leaves_two_regions(tmp_path: Path, quality: int, form: str, brightest: int) -> None:
    path, image = tmp_path / "m", Image.fromarray(drawn().astype(np.uint8) * np.uint8(brightest))
    image.save(path, form.removesuffix("-as-PNG"), quality=quality)
    if form == "JPEG-as-PNG":
        Image.open(path).convert("L").save(path, "PNG")
    whole = decode_mask(path)
    assert cv2.connectedComponents(whole.marked.astype(np.uint8))[0] - 1 == 2
    assert (whole.marked != drawn()).mean() < 0.005
    assert whole.has_grey


def test_smooth_edges_are_cut_in_the_middle(tmp_path: Path) -> None:
    path = save(grey().filter(ImageFilter.GaussianBlur(2)), tmp_path)
    marked = load_whole_mask(path)
    assert (marked != drawn()).mean() < 0.01
    assert abs(int(marked.sum()) - int(drawn().sum())) < 30


def test_two_levels_hold_no_grey(tmp_path: Path) -> None:
    assert not decode_mask(save(grey(), tmp_path)).has_grey
    assert not decode_mask(save(values(1, 2), tmp_path)).has_grey
    assert decode_mask(save(values(100, 255), tmp_path)).has_grey


def save_tiff(path: Path, pixels: npt.NDArray[np.uint16], tags: dict[int, int]) -> Path:
    Image.fromarray(pixels).save(path, tiffinfo=tags)
    return path


def test_a_16_bit_tiff_whose_zero_is_white(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    usual, _ = load_image(save_tiff(tmp_path / "a.tif", ramp, {}), 8)
    inverted, _ = load_image(save_tiff(tmp_path / "b.tif", 65535 - ramp, {262: 0}), 8)
    np.testing.assert_array_equal(inverted, usual)
    assert load_whole_mask(save_tiff(tmp_path / "c.tif", 65535 - ramp, {262: 0}))[-1, -1]


def test_a_signed_tiff_says_what_it_is(tmp_path: Path) -> None:
    path = save_tiff(tmp_path / "a.tif", np.ones((8, 8), np.uint16), {339: 2})
    with pytest.raises(DatasetError, match=r"expected an image of unsigned values.*signed ones of 16"):
        load_image(path, 8)
