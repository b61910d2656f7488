"""Corruption: Perlin masks against their definition, the blend, purity in the seeds, and the texture bank."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from idif.corruption.perlin import _rotated_positions, perlin_masks, perlin_noise
from idif.corruption.procedural import PROCEDURAL_COUNT, procedural_texture
from idif.corruption.streams import Stream
from idif.corruption.synthesis import corrupt
from idif.corruption.textures import TextureBank, load_textures
from idif.data.images import load_image
from idif.errors import CannotFinish, DatasetError, PathError
from idif.randomness import integers, view_seeds


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def seeds_of(count: int, epoch: int = 0, views: int = 1) -> Tensor:
    return view_seeds(0, epoch, [f"bolt/OK/S{n:04d}" for n in range(count)], range(1, views + 1))


def flat_bank(size: int, *grays: int) -> TextureBank:
    images = torch.tensor(grays, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, size, size)
    return TextureBank(images.contiguous(), "test", "none")


# ---- Perlin noise ----


def noise_by_definition(
    gradients: npt.NDArray[Any], cells: tuple[int, int], y: float, x: float, size: int
) -> float:
    """Perlin's sum over the four corners of a cell, one point at a time in double precision."""
    v, u = y * cells[0] / size, x * cells[1] / size
    total = 0.0
    for row in (int(v), int(v) + 1):
        for column in (int(u), int(u) + 1):
            down, right = abs(v - row), abs(u - column)
            weight = 1.0
            for t in (1 - down, 1 - right):
                weight *= 6 * t**5 - 15 * t**4 + 10 * t**3
            gradient = gradients[:, row, column]
            total += weight * (gradient[0] * (v - row) + gradient[1] * (u - column))
    return total * 2**0.5


def mask_by_definition(seed: Tensor, size: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """The mask of one seed, and where it is too close to the threshold to tell."""
    cells = tuple(2 ** integers(seed, Stream.PERLIN_FREQUENCY, 2, 6)[0])
    angle = (integers(seed, Stream.PERLIN_ANGLE, 1, 2**13 + 1)[0, 0].item() / 2**13 - 0.5) * np.pi
    directions = integers(seed, Stream.PERLIN_GRADIENT, 33 * 33, 2**14)[0].double().numpy().reshape(33, 33)
    turn = directions / 2**14 * 2 * np.pi - np.pi
    gradients = np.stack([np.cos(turn), np.sin(turn)])
    assert abs(angle) <= np.pi / 2
    mask, unclear = np.zeros((2, size, size), np.bool_)
    center = (size - 1) / 2
    for i in range(size):
        for j in range(size):
            y = (i - center) * np.cos(angle) + (j - center) * np.sin(angle) + center
            x = (j - center) * np.cos(angle) - (i - center) * np.sin(angle) + center
            if min(y, x) < 0 or max(y, x) > size - 1:
                unclear[i, j] = min(abs(y), abs(x), abs(y - size + 1), abs(x - size + 1)) < 1e-4
                continue
            noise = noise_by_definition(gradients, (int(cells[0]), int(cells[1])), y, x, size)
            mask[i, j], unclear[i, j] = noise > 0.5, abs(noise - 0.5) < 1e-4
    return mask, unclear


@pytest.mark.parametrize("size", [1, 2, 9, 37])
def test_masks_follow_the_definition(size: int) -> None:
    seeds = seeds_of(12)[:, 0]
    masks = perlin_masks(seeds, size).numpy()
    assert masks.shape == (12, size, size)
    for item in range(12):
        expected, unclear = mask_by_definition(seeds[item : item + 1], size)
        assert np.array_equal(masks[item] | unclear, expected | unclear)
        assert unclear.mean() <= 0.02


@pytest.mark.parametrize(("size", "cells"), [(64, (1, 32)), (60, (4, 4)), (32, (32, 8))])
def test_noise_is_zero_at_lattice_points(size: int, cells: tuple[int, int]) -> None:
    angles = torch.rand(33 * 33, generator=torch.Generator().manual_seed(0)) * 6.3
    gradients = torch.stack([angles.cos(), angles.sin()])[:, None]
    y, x = torch.meshgrid(
        torch.arange(cells[0]) * size / cells[0], torch.arange(cells[1]) * size / cells[1], indexing="ij"
    )
    noise = perlin_noise(gradients, torch.tensor([cells]), y[None], x[None], size)
    assert noise.abs().max() < 1e-5
    between = perlin_noise(gradients, torch.tensor([cells]), y[None] + 0.4, x[None] + 0.4, size)
    assert between.abs().max() > 0.05


def test_the_field_turns_about_its_centre() -> None:
    """Angles 0, +90 and -90 degrees, 45 degrees for what comes in from outside."""
    field = torch.arange(25.0).view(5, 5)
    directions = torch.tensor([[1.0, 0.0, 0.0, 0.5**0.5], [0.0, 1.0, -1.0, 0.5**0.5]])
    y, x, inside = _rotated_positions(directions, 5)
    turned = field[y.round().long(), x.round().long()]
    assert torch.equal(turned[0], field)
    assert torch.equal(turned[1], torch.rot90(field, 1))
    assert torch.equal(turned[2], torch.rot90(field, -1))
    assert inside[:3].all()
    assert not inside[3, [0, 0, 4, 4], [0, 4, 0, 4]].any()
    assert inside[3, 2, 1:4].all()
    assert y[3, 2, 4] == pytest.approx(2 + 2**0.5)


def test_masks_are_plausible() -> None:
    masks = perlin_masks(seeds_of(300)[:, 0], 64).float()
    shares = masks.mean((1, 2))
    assert 0.02 < shares.mean() < 0.1
    assert shares.max() < 0.5
    assert 0 < (shares == 0).float().mean() < 0.15
    # no corner, edge or centre is spared: a defect may lie anywhere
    quarters = torch.nn.functional.avg_pool2d(masks.mean(0)[None, None], 16)
    assert quarters.min() > 0.3 * quarters.mean()


# ---- the blend ----


@pytest.mark.parametrize("size", [7, 32, 65])
def test_a_view_does_not_depend_on_its_batch(size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (7, 5, 3, size, size), dtype=torch.uint8, generator=generator)
    bank = TextureBank(
        torch.randint(0, 256, (9, 3, size, size), dtype=torch.uint8, generator=generator), "test", "none"
    )
    seeds = seeds_of(7, views=5)
    whole, masks = corrupt(images, seeds, bank, 0.8)
    assert whole.dtype == torch.float32
    assert whole.shape == images.shape
    for rows, views in [([3], [0, 1, 2, 3, 4]), ([6, 0], [4]), ([5, 5, 1], [2, 0])]:
        chosen = images[rows][:, views], seeds[rows][:, views]
        part, part_masks = corrupt(*chosen, bank, 0.8)
        assert torch.equal(part, whole[rows][:, views])
        assert torch.equal(part_masks, masks[rows][:, views])
    torch.set_num_threads(2)
    again, _ = corrupt(images, seeds, bank, 0.8)
    assert torch.equal(again, whole)
    other, _ = corrupt(images, seeds_of(7, epoch=1, views=5), bank, 0.8)
    assert not torch.equal(other, whole)


def test_masks_do_not_depend_on_the_batch_at_full_size() -> None:
    """At 256 px the work is cut into chunks; their borders must not show."""
    seeds = seeds_of(11)[:, 0]
    whole = perlin_masks(seeds, 256)
    assert torch.equal(torch.cat([perlin_masks(seed[None], 256) for seed in seeds]), whole)
    assert perlin_masks(seeds[:0], 256).shape == (0, 256, 256)


def test_outside_the_mask_nothing_changes() -> None:
    images = torch.randint(0, 256, (4, 5, 3, 48, 48), dtype=torch.uint8)
    before = images.clone()
    bank = flat_bank(48, 0, 255)
    corrupted, masks = corrupt(images, seeds_of(4, views=5), bank)
    clean = images.float() / 255
    outside = ~masks[:, :, None].expand_as(clean)
    assert torch.equal(corrupted[outside], clean[outside])
    assert torch.equal(images, before)
    assert masks.any()
    assert corrupted.min() >= 0
    assert corrupted.max() <= 1


def test_beta_is_uniform_up_to_its_limit() -> None:
    """White textures on black images: inside a mask the pixel is 1 - beta, one value a view."""
    images = torch.zeros(100, 5, 3, 24, 24, dtype=torch.uint8)
    corrupted, masks = corrupt(images, seeds_of(100, views=5), flat_bank(24, 255))
    betas = []
    for view, mask in zip(corrupted.flatten(0, 1), masks.flatten(0, 1), strict=True):
        if mask.any():
            (value,) = torch.unique(view[:, mask]).tolist()
            betas.append(1 - value)
    assert len(betas) > 400
    assert min(betas) >= 0
    assert 0.78 < max(betas) < 0.8 + 1e-6
    assert np.histogram(betas, 4, (0, 0.8))[0].min() > 0.8 * len(betas) / 4


def test_the_blend_follows_its_formula() -> None:
    """Two greys on one image give two equations, so beta and the texture's share come apart."""
    seeds = seeds_of(20, views=2)
    images = torch.randint(0, 256, (20, 2, 3, 24, 24), dtype=torch.uint8)
    dark, masks = corrupt(images, seeds, flat_bank(24, 0))
    light, _ = corrupt(images, seeds, flat_bank(24, 255))
    clean = images.double() / 255
    kept = 1 - (light - dark).double().amax((2, 3, 4), keepdim=True)  # beta, where a mask is not empty
    inside = masks[:, :, None].double()
    expected = clean * (1 - inside) + (1 - kept) * (100 / 255) * inside + kept * clean * inside
    gray, _ = corrupt(images, seeds, flat_bank(24, 100))
    torch.testing.assert_close(gray.double(), expected, atol=1e-6, rtol=0)


def test_every_texture_is_used() -> None:
    images = torch.zeros(200, 1, 3, 16, 16, dtype=torch.uint8)
    grays = list(range(50, 250, 50))
    corrupted, _ = corrupt(images, seeds_of(200), flat_bank(16, *grays))
    brightest = corrupted.amax((1, 2, 3, 4))
    assert (brightest > 0.8 * 200 / 255).any()
    row = integers(seeds_of(200)[:, 0], Stream.TEXTURE, 1, len(grays))[:, 0]
    limits = torch.tensor(grays)[row] / 255
    drawn = brightest > 0
    assert (brightest[drawn] <= limits[drawn]).all()
    assert (brightest[drawn] > 0.2 * limits[drawn] - 1e-6).all()
    assert len(torch.unique(row)) == 4


def test_probability() -> None:
    images = torch.randint(0, 256, (100, 3, 3, 32, 32), dtype=torch.uint8)
    seeds, bank = seeds_of(100, views=3), flat_bank(32, 0, 255)
    corrupted, masks = corrupt(images, seeds, bank, probability=0.0)
    assert torch.equal(corrupted, images.float() / 255)
    assert not masks.any()
    _, always = corrupt(images, seeds, bank)
    _, sometimes = corrupt(images, seeds, bank, probability=0.5)
    drawn = sometimes.flatten(2).any(2)
    assert torch.equal(sometimes[drawn], always[drawn]), "a drawn view is corrupted as it always is"
    assert 0.35 < drawn.float().mean() < 0.6


# ---- the texture bank ----


def texture_folder(root: Path) -> Path:
    """Four images at different depths, one suffix in upper case, beside what is no texture."""
    rng = np.random.default_rng(0)
    for name in ("images/banded/a.png", "images/banded/b.JPG", "images/cracked/c.jpeg", "d.png"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "PNG" if name.endswith("png") else "JPEG"
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path, format=kind)
    (root / "images" / "banded" / "._a.png").write_bytes(b"\0")
    (root / "labels.txt").write_text("x")
    return root


def test_the_bank_of_a_folder(tmp_path: Path) -> None:
    source = texture_folder(tmp_path / "dtd")
    heard: list[tuple[int, int]] = []
    bank = load_textures(source, 16, tmp_path / "c", lambda done, total, what="": heard.append((done, total)))
    names = ["d.png", "images/banded/a.png", "images/banded/b.JPG", "images/cracked/c.jpeg"]
    assert torch.equal(
        bank.images, torch.stack([torch.from_numpy(load_image(source / name, 16)[0]) for name in names])
    )
    assert bank.images.dtype == torch.uint8
    assert bank.origin == "folder: 4 images from dtd"
    assert heard == [(n, 4) for n in range(1, 5)]
    (file,) = (tmp_path / "c").iterdir()
    assert file.name == f"textures-{bank.fingerprint[:16]}.npy"

    heard.clear()
    moved = source.rename(tmp_path / "elsewhere")
    again = load_textures(moved, 16, tmp_path / "c", lambda *_: heard.append((0, 0)))
    assert torch.equal(again.images, bank.images)
    assert again.fingerprint == bank.fingerprint
    assert not heard, "the second load decodes nothing"


def test_images_of_every_kind_are_textures(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    source = tmp_path / "any"
    (source / "a" / "b").mkdir(parents=True)
    gray = rng.integers(0, 256, (20, 20), dtype=np.uint8)
    deep = gray.astype(np.uint16) * 256 + 77
    color = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    alpha = np.dstack([color, gray])
    for name, pixels in (
        ("a/16-bit.png", deep),
        ("a/16-bit.TIFF", deep),
        ("a/b/grey.bmp", gray),
        ("a/b/alpha.png", alpha),
        ("colour.webp", color),
        ("colour.tif", color),
    ):
        options: dict[str, Any] = {"lossless": True} if name.endswith("webp") else {}
        Image.fromarray(pixels).save(source / name, **options)
    images = load_textures(source, 20, tmp_path / "c").images.numpy()
    plain, rgb = np.stack([gray] * 3), color.transpose(2, 0, 1)
    assert np.array_equal(images, np.stack([plain, plain, rgb, plain, rgb, rgb]))

    Image.fromarray(gray.astype(np.float32)).save(source / "range.tiff")
    with pytest.raises(DatasetError, match=r"range\.tiff: expected an image of 8 or 16 bits"):
        load_textures(source, 20, tmp_path / "c")


def test_first_builds_at_the_same_time_leave_one_sound_file(tmp_path: Path) -> None:
    source = texture_folder(tmp_path / "dtd")
    alone = load_textures(source, 16, tmp_path / "alone")
    together = threading.Barrier(4, timeout=60)

    def build(_: int) -> TextureBank:
        first = True

        def wait_once(done: int, total: int, what: str = "") -> None:
            nonlocal first
            if first:
                first = False
                together.wait()  # every build has begun to write before any goes on

        return load_textures(source, 16, tmp_path / "c", wait_once)

    with ThreadPoolExecutor(4) as pool:
        banks = list(pool.map(build, range(4)))
    for bank in banks:
        assert bank.fingerprint == alone.fingerprint
        assert torch.equal(bank.images, alone.images)
    (file,) = (tmp_path / "c").iterdir()
    (expected,) = (tmp_path / "alone").iterdir()
    assert file.read_bytes() == expected.read_bytes()


def test_a_bank_that_another_process_has_open_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where a mapped file cannot be replaced."""
    source = texture_folder(tmp_path / "dtd")
    theirs = load_textures(source, 16, tmp_path / "c")
    (file,) = (tmp_path / "c").iterdir()
    content = file.read_bytes()
    file.unlink()

    def held(partial: Path, target: Path) -> None:
        if content:
            file.write_bytes(content)
        raise PermissionError(13, "in use")

    monkeypatch.setattr("idif.files.os.replace", held)
    assert torch.equal(load_textures(source, 16, tmp_path / "c").images, theirs.images)
    assert list((tmp_path / "c").iterdir()) == [file]
    file.unlink()
    content = b""
    with pytest.raises(PathError, match="cannot be written"):
        load_textures(source, 16, tmp_path / "c")


def test_the_bank_is_never_changed_through_its_tensor(tmp_path: Path) -> None:
    source = texture_folder(tmp_path / "dtd")
    bank = load_textures(source, 8, tmp_path)
    first = bank.images.clone()
    bank.images.zero_()
    assert torch.equal(load_textures(source, 8, tmp_path).images, first)


def test_what_changes_the_bank(tmp_path: Path) -> None:
    source = texture_folder(tmp_path / "dtd")
    prints = [load_textures(source, size, tmp_path / "c").fingerprint for size in (8, 16)]
    os.utime(source / "d.png", (1, 1))
    assert load_textures(source, 8, tmp_path / "c").fingerprint == prints[0]
    (source / "d.png").rename(source / "e.png")
    prints.append(load_textures(source, 8, tmp_path / "c").fingerprint)
    Image.new("RGB", (20, 30)).save(source / "e.png")
    prints.append(load_textures(source, 8, tmp_path / "c").fingerprint)
    assert len(set(prints)) == 4


def test_a_bank_cut_short_is_made_again(tmp_path: Path) -> None:
    source = texture_folder(tmp_path / "dtd")
    first = load_textures(source, 16, tmp_path / "c").images.clone()
    (file,) = (tmp_path / "c").iterdir()
    content = file.read_bytes()
    for length in (0, 5, len(content) // 2):
        file.unlink()  # the old one is still mapped
        file.write_bytes(content[:length])
        assert torch.equal(load_textures(source, 16, tmp_path / "c").images, first)


def test_no_textures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(
            DatasetError, match=rf"corruption\.textures: .*{source.name}.*vgg/data/dtd.*'procedur"
        ):
            load_textures(source, 16, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_an_unreadable_texture_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    source = texture_folder(tmp_path / "dtd")
    path = source / "images" / "banded" / "b.JPG"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetError, match=r"b\.JPG: image cannot be read"):
        load_textures(source, 16, tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c").write_text("a file")
    with pytest.raises(PathError, match="cannot be written"):
        load_textures("procedural", 4, tmp_path / "c")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numpy.lib.format.write_array_header_1_0", full)
    with pytest.raises(CannotFinish, match="no space left"):
        load_textures("procedural", 4, tmp_path / "d")
    assert list((tmp_path / "d").iterdir()) == []


def test_procedural_textures(tmp_path: Path) -> None:
    bank = load_textures("procedural", 32, tmp_path)
    assert bank.images.shape == (PROCEDURAL_COUNT, 3, 32, 32)
    assert bank.origin == "procedural: 128 images"
    assert np.array_equal(bank.images[77].numpy(), procedural_texture(77, 32))
    pixels = bank.images.float()
    assert len(torch.unique(bank.images.flatten(1), dim=0)) == PROCEDURAL_COUNT
    assert (pixels.std((1, 2, 3)) > 4).all(), "no texture is plain"
    assert 90 < pixels.mean() < 165
    assert pixels.mean((2, 3)).std(0).min() > 30, "dark and light, in every colour"


def test_real_textures(tmp_path: Path) -> None:
    data = os.environ.get("IDIF_DATA")
    if not data:
        pytest.skip("IDIF_DATA is not set: no real textures here")
    bank = load_textures(Path(data) / "dtd", 24, tmp_path)
    assert bank.images.shape == (480, 3, 24, 24)
    images = torch.full((2, 5, 3, 24, 24), 128, dtype=torch.uint8)
    corrupted, masks = corrupt(images, seeds_of(2, views=5), bank)
    assert torch.unique(corrupted[~masks[:, :, None].expand_as(corrupted)]).tolist() == [
        pytest.approx(128 / 255, abs=1e-7)
    ]
