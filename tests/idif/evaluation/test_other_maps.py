"""A method with two maps: both are stored and measured, and AUPRO comes from the one that it names."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from idif.config.loader import resolve
from idif.config.sections import Config
from idif.data.batch import Batch
from idif.evaluation.predictions import Predictions
from idif.evaluation.test_pass import CategoryTask, metrics_of, write_predictions
from idif.methods.protocol import Scores
from tests.helpers.stubs import BrightestOneByOne, InMemory, scorer


class BrightAndRed(BrightestOneByOne):
    """Beside the brightness, a map of the red channel alone."""

    other_maps = ("red",)
    region_map = "red"

    def score(self, batch: Batch) -> Scores:
        red = batch.images[:, :, 0].float() / 255 * batch.view_mask[:, :, None, None]
        return Scores(maps={**super().score(batch).maps, "red": red})


class RedAlone(BrightestOneByOne):
    """The red channel as the only map."""

    def score(self, batch: Batch) -> Scores:
        return Scores(maps={"map": BrightAndRed.score(BrightAndRed(), batch).maps["red"]})


def data(seed: int = 0) -> InMemory:
    torch.manual_seed(seed)
    present = torch.rand(12, 2) < 0.9
    present[:, 0] |= ~present.any(dim=1)
    labels = (torch.arange(12) % 2 == 0)[:, None].expand(12, 2)
    source = InMemory(present, labels, seed)
    source.images[:, :, 0] = source.images[:, :, 0] // 2 + 3
    return source


def config() -> Config:
    return resolve({"eval": {"batch_size": 5, "fpr_limits": [0.3, 0.05]}}, source="test")[0]


def measured(path: Path, method: BrightestOneByOne, **options: Any) -> dict[str, Any]:
    task = CategoryTask("cup", scorer(config().eval, method), data())
    pixels = write_predictions(config(), [task], path, **options)
    return metrics_of(Predictions.open(path), config().eval, pixels)


@pytest.mark.parametrize("maps", [True, False])
def test_each_map_is_measured_and_one_gives_aupro(tmp_path: Path, maps: bool) -> None:
    metrics = measured(tmp_path / "both.h5", BrightAndRed(), maps=maps)
    both = metrics["categories"]["cup"]
    bright = measured(tmp_path / "bright.h5", BrightestOneByOne())["categories"]["cup"]
    red = measured(tmp_path / "red.h5", RedAlone())["categories"]["cup"]
    pixel_keys = ("p_auroc", "p_ap", "p_f1_max", "aupro", "aupro@0.05")
    assert bright["p_auroc"] != red["p_auroc"]
    assert both["maps"] == {
        "map": {key: bright[key] for key in pixel_keys},
        "red": {key: red[key] for key in pixel_keys},
    }
    assert all(both[key] == bright[key] for key in ("s_auroc", "i_auroc", "p_auroc", "p_ap", "p_f1_max"))
    assert all(both[key] == red[key] for key in ("aupro", "aupro@0.05", "pro_curve"))
    assert metrics["mean"]["maps"] == both["maps"]
    assert metrics["protocol"]["pixels"].endswith("AUPRO from the map red, the rest from map")
    assert "maps" not in bright


def test_the_file_holds_every_map(tmp_path: Path) -> None:
    source = data()
    measured(tmp_path / "p.h5", BrightAndRed())
    predictions = Predictions.open(tmp_path / "p.h5")
    assert (predictions.other_maps, predictions.region_map) == (("red",), "red")
    (stored,) = predictions.iter_maps(range(12), 12, "red")
    wanted = (source.images[:, :, 0].float() / 255 * source.present[:, :, None, None]).half().numpy()
    np.testing.assert_array_equal(stored[1], wanted)
    measured(tmp_path / "none.h5", BrightAndRed(), maps=False)
    with h5py.File(tmp_path / "none.h5") as file:
        assert not [name for name in file if name.startswith("maps")]
