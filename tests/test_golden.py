"""IDIF is what it was: store bytes, losses, predictions, metrics and sweeps of a recorded version.

``golden_idif.json`` was recorded by `tests.golden` from the code before methods became exchangeable;
segmentation heads again when their pyramid became DeSTSeg's (their students were equal then). On a
machine that computes as the recording one did, everything is equal to the last bit; elsewhere what does not
depend on the arithmetic is equal, and the first step's loss is close.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden import VARIANTS, machine, record

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden_idif.json").read_text(encoding="utf-8")
)
QUICK = ("cosine-batch", "segmentation-group")


def compare(home: Path, names: tuple[str, ...]) -> None:
    found = json.loads(json.dumps(record(home, {name: VARIANTS[name] for name in names})))
    same_arithmetic = RECORDED["machine"] == machine()
    stored = RECORDED["store"]
    exact = (
        stored if same_arithmetic else {k: v for k, v in stored.items() if "/images/" in k or "/masks/" in k}
    )
    assert {name: found["store"].get(name) for name in exact} == exact
    assert found["store"].keys() == stored.keys()
    for name in names:
        ours, theirs = found["runs"][name], RECORDED["runs"][name]
        if same_arithmetic:
            assert ours == theirs, name
            continue
        assert ours.keys() == theirs.keys()
        for model, steps in theirs["losses"].items():
            assert len(ours["losses"][model]) == len(steps)
            assert ours["losses"][model][0]["loss"] == pytest.approx(steps[0]["loss"], rel=1e-3)
            assert [s["lr"] for s in ours["losses"][model]] == [s["lr"] for s in steps]


def test_idif_is_what_it_was(tmp_path: Path) -> None:
    compare(tmp_path, QUICK)


@pytest.mark.long
def test_idif_is_what_it_was_in_every_variant(tmp_path: Path) -> None:
    compare(tmp_path, tuple(VARIANTS))
