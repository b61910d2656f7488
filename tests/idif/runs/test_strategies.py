"""`idif sweep strategies` over runs of the same name, of different categories, and of different cameras."""

from pathlib import Path
from typing import Any

import pytest
import torch

import idif.runs.strategies
from idif.config.loader import resolve
from idif.errors import RunError
from idif.report.table_export import strategies_export
from idif.runs.evaluate import Evaluation
from idif.runs.run import Run
from idif.runs.strategies import StrategyData, compare_strategies, run_names

POINT = {"s_auroc": 1.0, "s_auroc_ci": None, "p_auroc": None, "samples": 1, "unscorable": 0}


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


def unread(*_: object) -> Any:
    raise AssertionError


def data_of(run: Run) -> StrategyData:
    return StrategyData(Evaluation(run, run.names, unread, torch.device("cpu")), unread, unread)


def test_the_first_run_s_own_models_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = opened(tmp_path / "a" / "tiny"), opened(tmp_path / "b" / "tiny", "cap")
    second = Run(second.folder, tmp_path / "b" / "tiny", second.config, ("cap",))

    def curves(data: StrategyData, seed: int, bar: object) -> tuple[dict[int, str], dict[str, Any]]:
        return {1: "C1"}, {"dropout": {name: {"0": POINT} for name in data.evaluation.run.names}}

    notes: list[str] = []
    monkeypatch.setattr(idif.runs.strategies, "_curves", curves)
    monkeypatch.setattr(idif.runs.strategies, "model_digests", lambda folder, names: {str(folder): names})
    found = compare_strategies([first, second], data_of, notify=notes.append)
    assert found["protocol"]["models"] == {str(first.folder): ["bolt", "cup"]}
    assert [curve["run"] for curve in found["curves"]] == ["a/tiny", "b/tiny"]
    assert notes == ["note: the runs' categories differ, so their means are not comparable"]


@pytest.mark.parametrize("order", [("many", "few"), ("few", "many")])
def test_runs_of_different_cameras_are_compared_with_a_note(
    order: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras = {"many": {1: "top", 2: "side", 3: "C3"}, "few": {1: "C1", 2: "C2"}}

    def curves(data: StrategyData, seed: int, bar: object) -> tuple[dict[int, str], dict[str, Any]]:
        run = data.evaluation.run
        own = cameras[run.config.run.name]
        return own, {"dropout": {name: {str(m): POINT for m in range(len(own))} for name in run.names}}

    notes: list[str] = []
    monkeypatch.setattr(idif.runs.strategies, "_curves", curves)
    monkeypatch.setattr(idif.runs.strategies, "model_digests", lambda folder, names: {})
    runs = [opened(tmp_path / name, name=name) for name in order]
    found = compare_strategies(runs, data_of, notify=notes.append)
    exported = strategies_export(found)
    assert exported.columns == ["view_dropout", *(f"s_auroc missing {number}" for number in range(3))]
    assert dict(exported.rows)["many: dropout"][1:] == [1.0, 1.0, 1.0]
    assert dict(exported.rows)["few: dropout"][1:] == [1.0, 1.0, None]
    texts = {"many": "many: top, side, C3", "few": "few: C1, C2"}
    listed = "; ".join(texts[name] for name in order)
    assert notes == [f"note: the runs' cameras differ ({listed}), so a missing view is not the same for each"]
