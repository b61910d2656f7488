"""The scorer of new photographs: the trained method with the results of its evaluation."""

import shutil
from pathlib import Path

import pytest
import torch

from cli.__main__ import run
from idif.errors import RunError
from idif.runs.api import load_run
from idif.runs.fitted import fitted_scorer, load_decision
from idif.runs.run import open_run


def test_a_scorer_has_the_rules_calibration_and_thresholds_of_the_evaluation(
    world: Path, tmp_path: Path
) -> None:
    shutil.copytree(world / "runs" / "tiny", tmp_path / "tiny")
    asked = ["--set=eval.score=topk", "--set=eval.top_k=7", "--set=eval.calibrate=per-view"]
    assert run(["eval", str(tmp_path / "tiny"), "--no-maps", *asked]) == 0
    opened, told = open_run(tmp_path / "tiny"), list[str]()
    scorer, thresholds = fitted_scorer(opened, "cup", torch.device("meta"), told.append)
    assert (scorer.config.score, scorer.config.top_k, scorer.device.type) == ("topk", 7, "meta")
    assert scorer.calibration is not None
    assert scorer.calibration == load_decision(opened, "cup").calibration
    assert thresholds == load_decision(opened, "cup").thresholds
    assert thresholds.part is not None
    assert not scorer.method.training
    assert not told


def test_a_run_that_is_not_evaluated_says_so_and_has_no_thresholds(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "runs" / "tiny", tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink(missing_ok=True)  # another test may have evaluated it
    told: list[str] = []
    _, thresholds = fitted_scorer(open_run(tmp_path / "run"), "cup", torch.device("cpu"), notify=told.append)
    assert thresholds.part is thresholds.view is None
    assert told == ["note: the run is not evaluated, so there is no threshold and no decision"]


def test_a_category_without_a_model_is_named_to_python_too(world: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="tiny: nut has no checkpoint yet"):
        load_run(world / "runs" / "tiny").export(tmp_path / "nut.pt", "nut", "torchscript")
