"""Decode and resize: every kind of file the same way, and nothing broken passes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idif.data.images import load_image, load_mask
from idif.errors import DatasetError


def picture(height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_pixels_arrive_unchanged_at_their_own_size(tmp_path: Path, suffix: str) -> None:
    pixels = picture(16, 16)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    image, shape = load_image(path, 16)
    assert shape == (16, 16)
    np.testing.assert_array_equal(image, pixels.transpose(2, 0, 1))


def test_other_sizes_become_a_square_and_the_file_s_own_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture()).save(path)
    image, shape = load_image(path, 16)
    assert image.shape == (3, 16, 16)
    assert image.dtype == np.uint8
    assert shape == (20, 30)
    flat = tmp_path / "flat.png"
    Image.new("RGB", (30, 20), (10, 200, 30)).save(flat)
    assert (load_image(flat, 16)[0] == np.array([10, 200, 30])[:, None, None]).all()


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    for mode, colour, expected in (("L", 70, (70, 70, 70)), ("RGBA", (1, 2, 3, 128), (1, 2, 3))):
        Image.new(mode, (8, 8), colour).save(tmp_path / "a.png")
        assert tuple(load_image(tmp_path / "a.png", 8)[0][:, 0, 0]) == expected


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5, 0.95])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_file_cut_short_is_named(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(picture(64, 64)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DatasetError, match=rf"cut\.{suffix}: image cannot be read"):
        load_image(path, 64)


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.png: image is missing"):
        load_image(tmp_path / "none.png", 8)
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DatasetError, match=r"text\.png: image cannot be read"):
        load_image(tmp_path / "text.png", 8)


def test_a_picture_that_would_fill_the_memory_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    Image.fromarray(picture(40, 40)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DatasetError, match=r"bomb\.png: image has more than 1,000 pixels"):
        load_image(path, 8)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "LA", "RGBA", "I;16"])
def test_any_value_above_zero_is_anomalous_in_every_mode(tmp_path: Path, mode: str) -> None:
    truth = np.zeros((12, 12), bool)
    truth[3:7, 2:5] = True
    if mode == "I;16":
        Image.fromarray(truth.astype(np.uint16) * 300).save(tmp_path / "m.png")
    else:
        Image.fromarray(truth.astype(np.uint8) * 255).convert(mode).save(tmp_path / "m.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "m.png", 12, (12, 12)), truth)


def test_masks_are_resized_by_nearest_neighbor(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).random((8, 8)) < 0.3
    Image.fromarray(truth.astype(np.uint8)).save(tmp_path / "m.png")
    expected = truth.repeat(3, axis=0).repeat(3, axis=1)
    np.testing.assert_array_equal(load_mask(tmp_path / "m.png", 24, (8, 8)), expected)


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 9)).save(tmp_path / "m.png")
    with pytest.raises(DatasetError, match=r"m\.png: mask is 8x9, its image is 10x10"):
        load_mask(tmp_path / "m.png", 8, (10, 10))
