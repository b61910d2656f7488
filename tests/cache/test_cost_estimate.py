"""The plan: reckoned from what was measured, honest where a store does not pay, and gone without a trace."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cache.cost_estimate import Speeds, estimate, plan_store
from cli.terminal.cache_plan import plan_words
from idif.encoders.encode import EncoderSet
from idif.errors import DatasetError
from tests.helpers.tiny_data import tiny_index, untrained
from tests.helpers.tiny_store import tiny_request

INDEX = tiny_index(["cup"], train=6, test=3)
SPEC = EncoderSet((untrained(),), 32).spec("float16")
SPEEDS = Speeds(
    images=10,
    encoder_images_per_s=20,
    decode_images_per_s=100,
    live_images_per_s=10,
    build_images_per_s=5,
    write_gb_per_s=1,
    read_gb_per_s=0.001,
    read_cached_gb_per_s=1,
    cold=True,
)


def test_the_sums_are_those_of_the_definition() -> None:
    part = INDEX.take([row for row, s in enumerate(INDEX.samples) if s.split == "train"])
    spec = SPEC
    found = estimate("train", part, spec, SPEEDS, memory=None)
    # a view at 32 px: 64 x 8 x 8 + 128 x 4 x 4 + 256 x 2 x 2 features of 2 bytes, pixels, mask, two flags
    row = 3 * (2 * (4096 + 2048 + 1024) + 3 * 1024 + 1024 + 2)
    assert (found.images, found.bytes, found.cached) == (17, 6 * row, False)
    assert (found.build_s, found.pass_live_s) == (17 / 5, 1.7)
    assert found.pass_store_s == pytest.approx(6 * row / 1e6)
    assert found.pays_after == 3  # 3.4 s to build, 1.37 s saved by each pass
    assert estimate("train", part, spec, SPEEDS, memory=12 * row).cached
    assert not estimate("train", part, spec, SPEEDS, memory=11 * row).cached


def test_a_slow_disk_and_a_fast_encoder_do_not_pay() -> None:
    fast = replace(SPEEDS, live_images_per_s=1000)
    assert estimate("all", INDEX, SPEC, fast, memory=None).pays_after is None


def test_a_plan_is_measured_and_leaves_nothing(data: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    request = tiny_request(data, INDEX, tmp_path / "new" / "s.zarr")
    plan = plan_store(request, progress=lambda done, total, what="": seen.append(done))
    assert list(tmp_path.iterdir()) == []
    assert seen == sorted(seen)
    assert [part.split for part in plan.estimates] == ["train", "test", "all"]
    assert plan.estimates[2].images == sum(part.images for part in plan.estimates[:2]) == 25
    assert plan.estimates[2].bytes == sum(part.bytes for part in plan.estimates[:2])
    assert plan.fits
    speeds = plan.speeds
    assert speeds.images == 25  # so few that all are taken
    assert min(speeds.encoder_images_per_s, speeds.live_images_per_s, speeds.build_images_per_s) > 0
    assert min(speeds.write_gb_per_s, speeds.read_gb_per_s, speeds.read_cached_gb_per_s) > 0
    never = tuple(replace(part, pays_after=None) for part in plan.estimates)
    text = " ".join(plan_words(replace(plan, estimates=never, free_bytes=1000)))
    assert "does not fit" in text
    assert "train: a store does not pay here" in text
    slow = replace(speeds, encoder_images_per_s=0.025, build_images_per_s=2.0)
    line = next(iter(plan_words(replace(plan, speeds=slow))))
    assert "encoder 40.0 s an image" in line
    assert "build 2.0 images/s" in line


@pytest.mark.parametrize(("seconds", "samples"), [(100.0, 1), (9.0, 2), (1.6, 8)])
def test_the_slower_the_encoders_the_fewer_samples_are_measured(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, samples: int
) -> None:
    """An encoder that needs minutes for one sample must not be run on many."""

    def slow(work: Callable[[], object], _device: torch.device) -> float:
        work()
        return seconds

    monkeypatch.setattr("cache.cost_estimate._seconds", slow)
    speeds = plan_store(tiny_request(data, INDEX, tmp_path / "s.zarr")).speeds
    assert speeds.images == round(speeds.live_images_per_s * seconds)
    assert 3 * samples - 2 <= speeds.images <= 3 * samples  # two samples lack a view


def test_there_must_be_samples(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no samples"):
        plan_store(tiny_request(data, INDEX.take([]), tmp_path / "s"))
