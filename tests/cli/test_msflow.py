"""MSFlow by the command line, from pooled features to the report, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from cli.__main__ import run
from idif.methods.msflow.model import MSFlow
from idif.runs.run import open_run
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations
from tests.idif.methods.msflow.authors_layout import checkpoint

TEACHER = "{encoder: resnet18, weights: untrained, image_size: 64}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("msflow")
    index = tiny_index(categories=("cup",), train=4, test=4)
    make_tiny_realiad(home / "data", index)
    write_annotations(home / "data", index)
    (home / "c.yaml").write_text(
        f"data: {{root: '{(home / 'data').as_posix()}'}}\n"
        f"cache: {{store: '{(home / 's.zarr').as_posix()}'}}\n"
        f"teacher: {TEACHER}\n"
        "method: {name: msflow, blocks: [1, 1, 1], position_channels: 4}\n"
        "train: {epochs: 1, sub_epochs: 2, batch_size: 4, convolutions: direct}\n"
        f"run: {{name: flow, dir: '{(home / 'runs').as_posix()}', tracking: none}}\n",
        encoding="utf-8",
    )
    return home


def answer(capsys: pytest.CaptureFixture[str], *line: str) -> tuple[int, Any]:
    code = run([*line, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_from_the_store_to_the_report(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder = f"--config={home / 'c.yaml'}", home / "runs" / "flow"
    assert answer(capsys, "cache", "build", "realiad", config)[0] == 0
    assert answer(capsys, "train", config)[0] == 0
    code, metrics = answer(capsys, "eval", str(folder))
    assert code == 0
    values = metrics["categories"]["cup"]
    assert set(values["maps"]) == {"map", "product"}
    assert values["p_auroc"] == values["maps"]["map"]["p_auroc"]
    assert values["aupro"] == values["maps"]["product"]["aupro"]
    assert metrics["protocol"]["rules"]["region_map"] == "product"
    with h5py.File(folder / "predictions.h5") as file:
        assert file["maps_product"].shape == file["maps"].shape
    code, again = answer(capsys, "eval", str(folder), "--from-predictions")
    assert (code, again["categories"]["cup"]["aupro"]) == (0, values["aupro"])
    code, other = answer(capsys, "eval", str(folder), "--set=method.region_map=sum")
    assert code == 0
    assert other["categories"]["cup"]["aupro"] == values["maps"]["map"]["aupro"]
    for line in (["report"], ["sweep", "missing-views"]):
        assert answer(capsys, *line, str(folder))[0] == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "By map, in percent; the headline AUPRO is that of the map map" in page
    code, said = answer(capsys, "export", str(folder))
    assert code == 2
    assert "cannot be exported" in said["error"]


def test_an_authors_checkpoint_gives_the_maps_of_the_model_it_came_from(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # the run and the store of the test above
    config = f"--config={home / 'c.yaml'}"
    trained = open_run(home / "runs" / "flow")
    model = trained.method("cup", trained.features(), trained.view_numbers())
    assert isinstance(model, MSFlow)
    torch.save(checkpoint(model, (1, 2, 0)), home / "best_det.pt")
    line = ("import-weights", "msflow", str(home / "best_det.pt"), config, "--set=run.name=imported")
    assert answer(capsys, *line)[0] == 0
    assert answer(capsys, "eval", str(home / "runs" / "imported"))[0] == 0
    with (
        h5py.File(home / "runs" / "flow" / "predictions.h5") as wanted,
        h5py.File(home / "runs" / "imported" / "predictions.h5") as found,
    ):
        for name in ("maps", "maps_product", "view_scores"):
            np.testing.assert_allclose(found[name][()], wanted[name][()], rtol=0, atol=1e-6)


def test_a_store_without_pooled_maps_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = f"--set=cache.store={(home / 'plain.zarr').as_posix()}"
    build = ["cache", "build", "realiad", f"--root={home / 'data'}", f"--store={home / 'plain.zarr'}"]
    assert answer(capsys, *build, "--image-size=64", "--teacher-weights=untrained")[0] == 0
    code, said = answer(capsys, "train", f"--config={home / 'c.yaml'}", plain, "--set=run.name=other")
    assert code == 2
    assert "the method reads p1, p2, p3, but there are layer1, layer2, layer3" in said["error"]
    assert "\n" not in said["error"]
