"""Few held-out training normals: what cannot be fitted is refused before the training, the rest is noted."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import idif
from cache import FeatureStore
from cli.__main__ import run
from idif.config.loader import load_config
from idif.data.index import concatenate
from idif.errors import ConfigError
from idif.training.held_out import held_out_notes
from idif.training.sampling import split_holdout
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index
from tests.helpers.tiny_run import FAST
from tests.helpers.tiny_store import build_tiny

CALIBRATED, BY_RATE = "eval.calibrate=per-view", "eval.threshold=false-positive-rate"
ALL_NORMALS = "eval.record_normal_scores=true"
PADIM = ["method={name: padim, covariance: diagonal, dimensions: null}"]
INDEX = concatenate(
    [tiny_index(("cup",), train=1, test=2), tiny_index(("bolt",), train=24, test=4, absent=False)]
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of cups, of which one is a training sample, and of bolts, of which 24 are; and a config."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("few")
    make_tiny_realiad(home / "data", INDEX)
    build_tiny(home / "data", INDEX, home / "store.zarr", image_size=48)
    (home / "c.yaml").write_text(
        f"cache: {{store: '{(home / 'store.zarr').as_posix()}'}}\n"
        "train: {holdout: 0.1}\n"
        f"run: {{dir: '{(home / 'runs').as_posix()}', tracking: none}}\n",
        encoding="utf-8",
    )
    return home


def train(home: Path, name: str, *settings: str) -> int:
    options = [f"--set={setting}" for setting in (f"run.name={name}", *settings)]
    return run(["train", f"--config={home / 'c.yaml'}", *options, "--json"])


@pytest.mark.parametrize("mode", ["per-category", "unified"])
@pytest.mark.parametrize(
    ("setting", "needed", "found"),
    [
        (CALIBRATED, "eval.calibrate: needs at least 2 held-out training samples of each camera", 0),
        (BY_RATE, "eval.threshold: false-positive-rate: needs at least 2 held-out training samples", 0),
        (ALL_NORMALS, "eval.record_normal_scores: needs at least 2 training samples", 1),
    ],
)
@pytest.mark.parametrize("method", ["idif", "padim", "patchcore"])
def test_a_category_of_one_sample_is_refused_before_the_training(
    home: Path,
    method: str,
    setting: str,
    needed: str,
    found: int,
    mode: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = [option.removeprefix("--set=") for option in FAST] if method == "idif" else []
    own = [f"method.name={method}", *small, setting, f"train.mode={mode}", "train.holdout=0.1"]
    assert train(home, "few", *own) == 2
    printed = capsys.readouterr()
    message = json.loads(printed.out)["error"]
    assert message.startswith(needed)
    assert f"but cup has {found} (of 1 training sample); raise train.holdout or add samples" in message
    assert "Traceback" not in printed.err
    assert not (home / "runs" / "few").exists()
    assert not list(home.glob("textures-*")), "before the textures are made"


def test_a_spread_of_two_values_is_told_at_once_and_again(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """24 samples, of which a tenth is held out."""
    settings = [*PADIM, "data.categories=[bolt]", CALIBRATED]
    assert train(home, "two", *settings) == 0
    expected = (
        "eval.calibrate: fewer than 10 held-out training samples of a camera: bolt 2; a spread of 2 scores "
        "is uncertain by 71%"
    )
    assert expected in capsys.readouterr().err
    folder = home / "runs" / "two"
    caveats = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["caveats"]
    assert any(expected in caveat for caveat in caveats), "readers of the report see it"
    assert run(["eval", str(folder), "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err.count(expected) == 1
    assert json.loads(printed.out)["protocol"]["calibrations"]["bolt"]["samples"] == 2
    rules = [f"--set={setting}" for setting in (BY_RATE, ALL_NORMALS, "eval.calibrate=none")]
    assert run(["eval", str(folder), *rules, "--json"]) == 0
    protocol = json.loads(capsys.readouterr().out)["protocol"]
    chosen = protocol["false_positive"]["bolt"]
    assert [chosen["sample"]["items"], chosen["view"]["items"]] == [2, 2 * 3], "none that it is fitted to"
    assert protocol["normals"]["bolt"]["samples"] == 2
    for command in (["eval"], ["sweep", "missing-views"]):
        assert run([*command, str(folder), "--set=train.holdout=0.04", "--json"]) == 2
        message = json.loads(capsys.readouterr().out)["error"]
        assert message.startswith("train.holdout: expected 0.1, with which the run was trained, got 0.04")
    assert run(["eval", str(folder), "--set=train.seed=7", "--json"]) == 2, "others were held out"
    assert "train.seed: expected 0" in json.loads(capsys.readouterr().out)["error"]


def test_training_from_python_is_checked_too(home: Path) -> None:
    store = FeatureStore.open(home / "store.zarr")
    config = load_config(home / "c.yaml", [*PADIM, CALIBRATED, "run.name=api"])
    with pytest.raises(ConfigError, match=r"cup has 0 \(of 1 training sample\)"):
        idif.train(config, store, device="cpu")
    assert not (home / "runs" / "api").exists()


def notes(index: Any, *settings: str) -> list[str]:
    return held_out_notes(load_config({}, settings), index, index.categories)


def test_a_camera_that_held_out_samples_lack_counts() -> None:
    """Sample 1 of 3 has no second view, and may be one of the two that are held out."""
    index = tiny_index(("cup",), train=3, test=0)
    seen = set()
    for seed in range(8):
        settings = ("train.holdout=0.7", f"train.seed={seed}", CALIBRATED)
        _, held = split_holdout(range(3), 0.7, seed=seed)
        seen.add(1 in held)
        if 1 in held:
            with pytest.raises(ConfigError, match=r"but cup has 1 \(of 3 training samples\)"):
                notes(index, *settings)
        else:
            assert "cup 2;" in notes(index, *settings)[0]
    assert seen == {True, False}, "the test must meet both"


def test_enough_samples_are_worth_no_word() -> None:
    index = tiny_index(("cup", "bolt"), train=100, test=0, absent=False)
    assert notes(index, "train.holdout=0.1", CALIBRATED) == []
    assert notes(index, "train.holdout=0.2", BY_RATE) == []
    assert notes(index, "train.holdout=0.01") == [], "nothing is fitted on them"
    (note,) = notes(index, "train.holdout=0.1", BY_RATE, CALIBRATED)
    assert "fewer than 20 held-out training samples: bolt 10, cup 10; they are too few for" in note
    assert notes(index, "train.holdout=0.1", BY_RATE, "eval.target_fpr=0.1") == []
    assert notes(index, "train.holdout=0.1", BY_RATE, "eval.target_fpr=0") == []
    many = tiny_index(tuple(f"c{n}" for n in range(8)), train=30, test=0)
    (note,) = notes(many, "train.holdout=0.1", CALIBRATED)
    assert "c4 3, and 3 more; a spread of 3" in note


def test_without_a_holdout_all_normals_give_the_scale() -> None:
    assert notes(tiny_index(("cup",), train=2, test=0), ALL_NORMALS) == []
    with pytest.raises(
        ConfigError, match=r"at least 2 training samples to score .* cup has 1 \(of 1 training sample\)"
    ):
        notes(tiny_index(("cup",), train=1, test=0), ALL_NORMALS)
    empty = tiny_index(("cup",), train=0, test=0)
    with pytest.raises(ConfigError, match=r"cup has 0 \(of 0 training samples\)"):
        held_out_notes(load_config({}, [ALL_NORMALS]), empty, ("cup",))
