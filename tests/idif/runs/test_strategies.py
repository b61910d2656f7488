"""`idif sweep strategies` over runs that have the same name, and of different categories."""

from pathlib import Path
from typing import Any

import pytest
import torch

import idif.runs.strategies
from idif.config.loader import resolve
from idif.errors import RunError
from idif.runs.evaluate import Evaluation
from idif.runs.run import Run
from idif.runs.strategies import StrategyData, compare_strategies, run_names


def opened(folder: Path, category: str | None = None, name: str = "tiny") -> Run:
    (config,) = resolve({"run": {"name": name}}, source="test")
    results = folder if category is None else folder / category
    results.mkdir(parents=True, exist_ok=True)
    return Run(folder, results, config, ("cup", "bolt") if category is None else (category,))


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    a, b, other = (tmp_path / "x" / "a" / "tiny", tmp_path / "x" / "b" / "tiny", tmp_path / "x" / "other")
    assert run_names([opened(a), opened(other, name="other")]) == ["tiny", "other"]
    assert run_names([opened(a), opened(b), opened(other, name="other")]) == ["a/tiny", "b/tiny", "other"]
    assert run_names([opened(a, "cup"), opened(b, "cup")]) == ["a/tiny/cup", "b/tiny/cup"]
    assert run_names([opened(a, "cup"), opened(a, "bolt")]) == ["tiny/cup", "tiny/bolt"]
    with pytest.raises(RunError, match=r"tiny: expected different runs, got this one twice"):
        run_names([opened(a), opened(tmp_path / "x" / "b" / ".." / "a" / "tiny")])


def test_the_first_run_s_own_models_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = opened(tmp_path / "a" / "tiny"), opened(tmp_path / "b" / "tiny", "cap")
    second = Run(second.folder, tmp_path / "b" / "tiny", second.config, ("cap",))

    def unread(*_: object) -> Any:
        raise AssertionError

    def data(run: Run) -> StrategyData:
        return StrategyData(Evaluation(run, run.names, unread, torch.device("cpu")), unread, unread)

    def curves(data: StrategyData, seed: int, bar: object) -> dict[str, Any]:
        point = {"s_auroc": 1.0, "s_auroc_ci": None, "p_auroc": None, "samples": 1, "unscorable": 0}
        return {"dropout": {name: {"0": point} for name in data.evaluation.run.names}}

    notes: list[str] = []
    monkeypatch.setattr(idif.runs.strategies, "_curves", curves)
    monkeypatch.setattr(idif.runs.strategies, "model_digests", lambda folder, names: {str(folder): names})
    found = compare_strategies([first, second], data, notify=notes.append)
    assert found["protocol"]["models"] == {str(first.folder): ["bolt", "cup"]}
    assert [curve["run"] for curve in found["curves"]] == ["a/tiny", "b/tiny"]
    assert notes == ["note: the runs' categories differ, so their means are not comparable"]
