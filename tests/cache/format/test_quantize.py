"""Compact storage: how far a level may be off, at the ends of float16 too, and a store of them end to end."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import FeatureStore
from cache.checking.verify import verify_store
from cache.format.layout import scaled_axes
from cache.format.quantize import dequantize, quantize
from idif.data.arrays import ArraySpec, feature_map, with_variants
from idif.errors import ConfigError, StoreDamaged, StoreMismatch
from tests.helpers.tiny_data import tiny_index, tree, untrained
from tests.helpers.tiny_store import build_tiny

INDEX = tiny_index(["cup"], train=5, test=3)
MAP = feature_map("map", 4, 5, "test")


def build(data: Path, store: Path, **options: Any) -> None:
    build_tiny(data, INDEX, store, **{"storage": "uint8", **options})


@pytest.fixture(scope="module")
def path(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store") / "compact"
    build(data, store)
    return store


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), exponent=st.integers(-26, 15), zeros=st.floats(0, 1))
def test_a_level_is_off_by_half_a_step_at_most(seed: int, exponent: int, zeros: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2, 3, 4, 5, 5, generator=generator) * min(2.0**exponent * 2, 65504.0)
    x[torch.rand(x.shape, generator=generator) < zeros] = 0
    levels, scales = quantize(x, MAP)
    assert (levels.dtype, scales.dtype, scales.shape) == (torch.uint8, torch.float16, (2, 4))
    back = dequantize(levels, scales, (0, 2))
    assert torch.isfinite(back).all()
    top = x.amax(dim=(1, 3, 4), keepdim=True)
    # half of one of 255 steps, the scale's rounding at the top, float16's rounding and its smallest number
    room = top / 255 * 0.5 + top * 2**-11 + 2**-24
    assert bool(((back.float() - x).abs() <= room * (1 + 1e-6)).all())
    assert not back[x == 0].any()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), exponent=st.integers(-26, 15), sample=st.booleans())
def test_a_signed_level_is_off_by_half_a_step_at_most(seed: int, exponent: int, sample: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    array = ArraySpec("series", ("time", "feature"), (7, 4), "float32", "test", signed=True)
    if sample:
        array = feature_map("map", 4, 5, "test", signed=True)
    shape = (2, 3, 4, 5, 5) if sample else (2, 7, 4)
    x = (torch.rand(shape, generator=generator) * 2 - 1) * min(2.0**exponent * 2, 65504.0)
    levels, scales = quantize(x, array)
    assert (levels.dtype, scales.dtype, scales.shape) == (torch.int8, torch.float16, (2, 4))
    assert int(levels.min()) >= -127
    back = dequantize(levels, scales, (0, 2))
    assert torch.isfinite(back).all()
    top = x.abs().amax(dim=(1, 3, 4) if sample else (1,), keepdim=True)
    room = top / 127 * 0.5 + top * 2**-11 + 2**-24
    assert bool(((back.float() - x).abs() <= room * (1 + 1e-6)).all())


def test_the_largest_signed_feature_stays_finite() -> None:
    x = torch.tensor([65504.0, -65504.0, 0.0]).view(1, 1, 3, 1, 1)
    array = feature_map("map", 3, 1, "test", signed=True)
    back = dequantize(*quantize(x, array), (0, 2)).flatten()
    assert back.tolist() == pytest.approx([65504.0, -65504.0, 0.0], rel=1e-3)


def test_scales_follow_channels_or_the_last_axis() -> None:
    assert scaled_axes(MAP) == (1,)
    assert scaled_axes(with_variants(MAP)) == (0, 2)
    for axes, expected in ((("channel", "time"), (0,)), (("token", "feature"), (1,))):
        assert scaled_axes(ArraySpec("a", axes, (2, 3), "float32", "test")) == expected
    assert scaled_axes(ArraySpec("a", ("view",), (), "float32", "test")) == ()


def test_the_largest_feature_stays_finite() -> None:
    x = torch.full((1, 1, 3, 1, 1), 65504.0)
    x[0, 0, 1], x[0, 0, 2] = 0.0, 2**-24
    back = dequantize(*quantize(x, MAP), (0, 2)).flatten()
    assert torch.isfinite(back).all()
    assert back.tolist() == pytest.approx([65504.0, 0.0, 2**-24], rel=1e-3)


def test_levels_take_half_the_bytes(path: Path, data: Path, tmp_path: Path) -> None:
    build(data, tmp_path / "s", storage="float16")

    def feature_bytes(store: Path) -> int:
        return sum(len(raw) for name, raw in tree(store).items() if "/layer" in name and "/c/" in name)

    # 32 px is the worst case: scales and shard indexes weigh most where maps are smallest
    assert feature_bytes(path) <= 0.6 * feature_bytes(tmp_path / "s")


def test_an_interrupted_build_ends_with_the_same_bytes(path: Path, data: Path, tmp_path: Path) -> None:
    encoder, calls = untrained(), []

    def interrupt(*_: object) -> None:
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt

    encoder.module.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(data, tmp_path / "s", encoder=encoder)
    build(data, tmp_path / "s")
    assert tree(tmp_path / "s") == tree(path)
    with pytest.raises(StoreMismatch, match="storage: 'uint8', not 'float16'"):
        build(data, tmp_path / "s", storage="float16")


def test_plain_zarr_reads_it_by_what_the_attributes_say(path: Path) -> None:
    group: Any = zarr.open_group(str(path), mode="r")["cup/train"]
    features = FeatureStore.open(path, split="train").read(range(5)).arrays
    for name in ("layer1", "layer2", "layer3"):
        levels = group[name]
        scales = group[str(levels.attrs["scale"])][:]
        again = levels[:].astype(np.float16) * scales[:, None, :, None, None]
        assert np.array_equal(again, features[name].numpy())


@pytest.mark.parametrize("array", ["layer2/c/1/0/0/0/0", "layer2_scale/c/1/0"])
def test_damage_is_found_and_repaired(path: Path, data: Path, tmp_path: Path, array: str) -> None:
    store = Path(shutil.copytree(path, tmp_path / "s"))
    file = store / "cup/train" / array
    raw = bytearray(file.read_bytes())
    raw[3] ^= 4
    file.write_bytes(raw)
    with pytest.raises(StoreDamaged, match=r"layer2.*row 2 "):
        FeatureStore.open(store, split="train").read([0, 2, 4])
    (problem,) = verify_store(store).problems
    assert (problem.file, problem.rows, problem.shard) == (f"cup/train/{array}", (2,), 1)
    report = verify_store(store, root=data, index=INDEX, deep=True, repair=True)
    assert report.sound, report.problems
    assert tree(store) == tree(path)


def test_negative_features_are_refused(data: Path, tmp_path: Path) -> None:
    encoder = untrained()
    encoder.module.register_forward_hook(lambda *a: {k: v - 1e-3 for k, v in a[2].items()})
    with pytest.raises(ConfigError, match=r"row 0 \(sample .*\), view 1, layer1: uint8 storage expects"):
        build(data, tmp_path / "s", encoder=encoder)
