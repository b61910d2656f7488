"""A run is useful before it ends: stopped, evaluated, continued and extended, all labeled with its epoch."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.__main__ import run
from cli.workflow import train
from idif.config.sections import Config
from idif.training import loop
from idif.training.loop import EpochSummary
from idif.training.painted_validation import PAINTED, paint
from idif.training.run_log import read_log
from tests.helpers.tiny_run import FAST

EPOCHS = 4


def lines(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def given(world: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments of a training of one category in a folder of its own."""
    home = tmp_path_factory.mktemp("stopped")
    own = [f"--set=run.dir={home.as_posix()}", "--set=data.categories=[cup]"]
    return ["train", f"--config={world / 'c.yaml'}", *FAST, *own, f"--set=train.epochs={EPOCHS}"]


@pytest.fixture(scope="module")
def stopped(given: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that Ctrl-C stopped in its third epoch, and what it said."""
    patch = pytest.MonkeyPatch()
    capture: list[str] = []
    train_step = loop.train_step
    steps = iter(range(100))

    def interrupted(*arguments: Any) -> Any:
        if next(steps) == 2:
            raise KeyboardInterrupt
        return train_step(*arguments)

    patch.setattr(loop, "train_step", interrupted)
    patch.setattr("cli.workflow.train.note", capture.append)
    assert run(given) == 130
    patch.undo()
    home = Path(next(a for a in given if a.startswith("--set=run.dir=")).partition("run.dir=")[2])
    return home / "tiny", "\n".join(capture)


def test_ctrl_c_says_where_it_stopped_and_epochs_were_printed(stopped: tuple[Path, str]) -> None:
    folder, told = stopped
    assert "cup  epoch 1/4  loss" in told
    assert "painted S-AUROC" in told
    assert f"cup: stopped after epoch 2 of {EPOCHS}; continue with --resume" in told
    log = [line for line in read_log(folder / "cup" / "log.jsonl") if "eval" in line]
    assert [0 <= line["eval"]["painted_s_auroc"] <= 1 for line in log] == [True, True]


def test_the_line_of_an_epoch_has_shares_in_percent_and_an_epoch_as_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(train, "note", told.append)
    figures = {
        "s_auroc": 0.782,
        "s_auroc_without_ema": 0.64,
        "train_s_auroc": 0.9,
        "overfit_gap": 0.118,
        "best_epoch": 13,
    }
    train._report_epoch(Config(), EpochSummary("weld", 18, 40, 2.5, 61.0, figures))
    none = {"s_auroc": None, "s_auroc_without_ema": None, "best_epoch": None}
    train._report_epoch(Config(), EpochSummary("weld", 1, 40, 2.5, 1.0, none))
    assert told == [
        "weld  epoch 18/40  loss 2.5000  S-AUROC 78.2 %  without EMA 64.0 %  "
        "against those trained on 90.0 %  best epoch 13  1:01 min",
        "weld  epoch 1/40  loss 2.5000  S-AUROC -  without EMA -  1 s",
    ]


def test_its_last_checkpoint_is_evaluated_predicted_and_reported_with_its_epoch(
    stopped: tuple[Path, str], world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(stopped[0], folder)
    assert run(["eval", str(folder)]) == 2
    assert "--checkpoint last" in capsys.readouterr().err
    assert run(["report", str(folder), "--checkpoint=last"]) == 0, "evaluated first"
    protocol = json.loads((folder / "metrics.json").read_text())["protocol"]
    assert protocol["epoch"] == f"2 of {EPOCHS} (training is not finished)"
    page = lines((folder / "report.html").read_text(encoding="utf-8"))
    assert f"with the weights of epoch 2 of {EPOCHS} (training is not finished)" in page
    capsys.readouterr()
    photo = next((world / "data").rglob("cup_*C1*.jpg"))
    table, out = tmp_path / "p.csv", tmp_path / "out"
    options = [f"--csv={table}", f"--out={out}", "--checkpoint=last"]
    assert run(["predict", str(folder), str(photo), *options, "--json"]) == 0
    told = capsys.readouterr()
    (part,) = json.loads(told.out)["parts"]
    assert part["epoch"] == f"2 of {EPOCHS}"
    assert "an oracle that needs their labels" in part["threshold_origin"]
    noted = lines(told.err)
    assert "1 part: " in noted
    assert "an oracle that needs their labels" in noted
    assert f"wrote {table}" in noted
    assert table.read_text().startswith("part,category,score,threshold,decision,score C1")


def test_more_epochs_continue_it_by_the_longer_schedule(
    stopped: tuple[Path, str], given: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(stopped[0], folder)
    here = [*given, f"--set=run.dir={tmp_path.as_posix()}"]
    assert run([*here, "--set=train.epochs=3", "--resume"]) == 2
    assert "train.epochs is 3, but the run was started with 4" in capsys.readouterr().err
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    assert run([*here, "--dry-run"]) == 0, "an existing run is not in the way"
    assert before == sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    assert run([*here, "--set=train.epochs=6", "--resume"]) == 0
    rates = [line["lr"] for line in read_log(folder / "cup" / "log.jsonl") if "lr" in line]
    facts = json.loads((folder / "environment.json").read_text())
    assert len(rates) == 6
    assert rates[2] > rates[3] > rates[4] > rates[5] > 0
    assert any("train.epochs grew from 4 to 6" in caveat for caveat in facts["caveats"])
    assert run([*here, "--set=train.epochs=6", "--resume"]) == 0, "finished before"


def test_painted_samples_are_normals_and_their_copies(world: Path) -> None:
    from cache import FeatureStore

    source = FeatureStore.open(world / "store.zarr", categories=["cup"], split="train")
    encoders = source.encoder_set()
    rows = list(range(len(source.index)))
    painted = paint(source, rows[:3], rows[3:], encoders, torch.device("cpu"), 0)
    again = paint(source, rows[:3], rows[3:], encoders, torch.device("cpu"), 0)
    assert painted is not None
    assert again is not None
    assert painted.held_out
    half = len(painted.index) // 2
    batch = painted.data
    assert batch.sample_labels.tolist() == [False] * half + [True] * half
    assert all(torch.equal(values, again.data.arrays[name]) for name, values in batch.arrays.items())
    for place in range(half):
        changed = (batch.images[place] != batch.images[half + place]).flatten(1).any(1)
        assert torch.equal(changed, batch.labels[half + place]), "one view, and only it, is painted"
        assert batch.masks[half + place][changed].any()
        for name in source.spec.arrays:
            same = (batch.arrays[name][place] == batch.arrays[name][half + place]).flatten(1).all(1)
            assert torch.equal(~same, changed), name
    assert {v.anomaly_class for s in painted.index.samples for v in s.views if v} == {"OK", PAINTED}
    assert len({sample.sample_id for sample in painted.index.samples}) == 2 * half
