"""Contaminated training data (`realiad_jsons_fuiad_*`): nothing is dropped, and it is said wherever used."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest

from cache import FeatureStore
from cli.__main__ import run
from idif.datasets.contamination import contamination
from idif.report import write_report
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations
from tests.helpers.tiny_run import FAST, SIZE

ANNOTATIONS = "realiad_jsons_fuiad_0.1"
MOVED = 2


def contaminated(root: Path) -> None:
    """As Real-IAD publishes such sets: defective samples are listed under ``train``, their files stay."""
    index = tiny_index(categories=("cup", "bolt"), train=6, test=6)
    make_tiny_realiad(root, index)
    write_annotations(root, index)
    folder = root / ANNOTATIONS / ANNOTATIONS
    folder.mkdir(parents=True)
    shutil.copy(root / "realiad_jsons" / "bolt.json", folder)
    content: dict[str, Any] = json.loads((root / "realiad_jsons" / "cup.json").read_text(encoding="utf-8"))
    moving = [f"NG/scratch/S100{number}/" for number in (1, 3)]
    moved = [e for e in content["test"] if any(e["image_path"].startswith(name) for name in moving)]
    content["train"] += moved
    content["test"] = [entry for entry in content["test"] if entry not in moved]
    (folder / "cup.json").write_text(json.dumps(content), encoding="utf-8")
    shutil.rmtree(root / "realiad_jsons")


def test_a_contaminated_set_goes_through_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contaminated(tmp_path / "data")
    which = [f"--root={tmp_path / 'data'}", f"--annotations={ANNOTATIONS}"]
    assert run(["data", "check", "realiad", *which, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (finding,) = [f for f in report["warnings"] if f["kind"] == "contaminated"]
    assert (finding["category"], finding["message"]) == (
        "cup",
        "2 of 8 training samples are labelled anomalous",
    )
    assert report["errors"] == []

    store = tmp_path / "store.zarr"
    build = ["cache", "build", "realiad", *which, f"--store={store}", f"--image-size={SIZE}"]
    assert run([*build, "--teacher-weights=untrained"]) == 0
    sentence = "2 of 14 training samples are labelled anomalous (cup 2 of 8)"
    assert sentence in capsys.readouterr().err
    assert run(["cache", "verify", str(store), *which, "--json"]) == 0
    capsys.readouterr()
    held = FeatureStore.open(store, categories=["cup"], split="train").index
    assert sum(sample.label for sample in held.samples) == MOVED
    assert len(held) == 8

    config = tmp_path / "c.yaml"
    config.write_text(
        f"data: {{root: '{(tmp_path / 'data').as_posix()}', annotations: {ANNOTATIONS}}}\n"
        f"cache: {{store: '{store.as_posix()}'}}\nrun: {{name: dirty, dir: '{tmp_path.as_posix()}'}}\n",
        encoding="utf-8",
    )
    assert run(["train", f"--config={config}", *FAST, "--set=train.holdout=0.4", "--json"]) == 0
    printed = capsys.readouterr()
    assert f"note: {sentence}; they are trained on like the others" in printed.err
    (result,) = json.loads(printed.out)["runs"]
    assert {model["name"]: model["samples"] for model in result["models"]} == {"bolt": 4, "cup": 5}
    folder = tmp_path / "dirty"
    facts = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    assert f"{sentence}; they are trained on like the others" in facts["caveats"]

    assert run(["eval", str(folder), "--set=eval.record_normal_scores=true"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "cup: of the samples behind calibration, thresholds and scale, 1 of 3 training samples" in told
    with h5py.File(folder / "predictions.h5") as file:
        ids = [name.decode() for name in file["sample_id"]]
        normals = json.loads(file.attrs["protocol"])["normals"]
    assert (normals["cup"]["samples"], normals["cup"]["anomalous"]) == (3, 1)
    assert (normals["bolt"]["samples"], normals["bolt"]["anomalous"]) == (2, 0)
    assert len(ids) == 4 + 6
    assert not {"cup/NG/scratch/S1001", "cup/NG/scratch/S1003"} & set(ids), "a training sample was tested"
    page = write_report([folder]).read_text(encoding="utf-8")
    assert "2 of 14 training samples are labelled anomalous (cup 2 of 8)" in page
    assert facts["textures"]["fingerprint"] in page


def test_the_sentence_names_the_categories_only_among_several() -> None:
    samples = tiny_index(categories=("cup", "bolt"), train=3, test=4).samples
    assert contamination(samples) is None
    assert contamination([]) is None
