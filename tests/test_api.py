"""The examples of ``docs/api.md`` run, one after another."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import idif
from cache import FeatureStore
from idif.errors import ConfigError, RunError
from tests.helpers.photographs import write_photographs
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    index = tiny_index(train=4, test=4)
    make_tiny_realiad(tmp_path / "data", index)
    write_annotations(tmp_path / "data", index)
    write_photographs(tmp_path / "photographs" / "tile", "IMG_{sample}.jpg", ["1"])
    monkeypatch.chdir(tmp_path)
    session: dict[str, Any] = {}
    for number, example in enumerate(EXAMPLES):
        exec(compile(example, f"{PAGE.name}, example {number + 1}", "exec"), session)
    printed = capsys.readouterr().out
    assert "cup/train" in printed
    assert "layer1" in printed, "a store shows its arrays"
    run = tmp_path / "runs" / "small"
    for name in ("config.yaml", "metrics.json", "sweep.json", "predictions.h5", "report.html"):
        assert (run / name).is_file(), name
    assert sorted(session["metrics"]["categories"]) == ["bolt", "cup"]
    assert session["prediction"].score is not None
    assert session["checked"].errors == ()
    assert (
        FeatureStore.open("stores/copy.zarr").fingerprint
        == FeatureStore.open("stores/parts.zarr").fingerprint
    )
    assert (tmp_path / "cup.pt").is_file()
    with pytest.raises(RunError, match="this run exists"):
        idif.train(session["config"], session["training"])
    (tmp_path / "two.yaml").write_text("matrix: [{name: a}, {name: b}]", encoding="utf-8")
    with pytest.raises(ConfigError, match="expected one run, found a matrix of 2"):
        idif.load_config(tmp_path / "two.yaml")


def test_the_package_names_what_it_offers() -> None:
    for name in idif.__all__:
        assert getattr(idif, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = idif.nothing
