"""Disks that are full, failing or lose power: what is written is whole and durable, or not there at all."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cache.hdf5 import export_store, import_store
from cli.__main__ import run
from idif.corruption.textures import load_textures
from idif.data.images import write_picture
from idif.data.index import Sample, View
from idif.datasets.folder.importer import import_folder
from idif.datasets.realiad.writer import ImportRequest
from idif.errors import CannotFinish, IdifError, PathError
from idif.evaluation.predictions_writer import PredictionsWriter
from idif.files import append, make_folder, replace_file, replacing_folder
from idif.hdf5_files import new_hdf5
from idif.training.checkpoint import save_checkpoint, save_weights
from idif.training.checkpoint_files import TrainingProgress
from tests.helpers.disk import PowerCut, at_most
from tests.helpers.tiny_data import tiny_index, tree
from tests.helpers.tiny_run import FAST
from tests.helpers.tiny_store import build_tiny

INDEX = tiny_index(categories=("cup",), train=3, test=2)
pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows syncs no folders and limits no files")
Writer = Callable[[Path], object]


@pytest.fixture(scope="module")
def store(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "s"
    build_tiny(data, INDEX, path)
    return path


@pytest.fixture(scope="module")
def exported(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "s.h5"
    export_store(store, path)
    return path


def predictions(folder: Path) -> None:
    samples = [
        Sample(f"c/{i}", "c", "test", tuple(View(v, f"{i}{v}.png", None, "OK") for v in (1, 2)))
        for i in range(6)
    ]
    with PredictionsWriter(folder / "predictions.h5", (1, 2), 64) as writer:
        for start in (0, 2, 4):
            part = samples[start : start + 2]
            maps = torch.rand(2, 2, 64, 64, generator=torch.manual_seed(0))
            writer.append(part, torch.rand(2, 2), torch.rand(2), maps, maps > 0.5)


def checkpoint(folder: Path) -> None:
    weights, state = {"w": torch.rand(20_000)}, {"optimizer": torch.rand(20_000)}
    save_checkpoint(folder, weights, state, TrainingProgress(1, 1, finished=True))


def hdf5(folder: Path) -> None:
    with new_hdf5(folder / "x.h5") as (file, _):
        file["x"] = np.random.default_rng(0).random(20_000)


def picture(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    write_picture(folder / "x.png", Image.fromarray(noise))


def fresh_folder(folder: Path) -> None:
    with replacing_folder(folder / ".new", folder / "new"):
        (folder / ".new" / "below").mkdir()
        (folder / ".new" / "below" / "x").write_bytes(bytes(100_000))


WRITERS: dict[str, Writer] = {
    "text": lambda folder: replace_file(folder / "x.txt", "x" * 100_000),
    "weights": lambda folder: save_weights(folder / "x.safetensors", {"x": torch.rand(20_000)}),
    "checkpoint": checkpoint,
    "predictions": predictions,
    "hdf5": hdf5,
    "picture": picture,
    "textures": lambda folder: load_textures("procedural", 16, folder),
    "folder": fresh_folder,
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_is_on_the_disk(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = PowerCut(monkeypatch)
    folder = tmp_path / "new" / "er"
    make_folder(folder)
    WRITERS[name](folder)
    assert any(folder.iterdir())
    disk.require_durable(folder, tmp_path)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("size", [0, 5_000, 60_000])
def test_a_write_that_fails_is_a_sentence_and_leaves_nothing(name: str, size: int, tmp_path: Path) -> None:
    with at_most(size), pytest.raises(CannotFinish, match="cannot be written") as failed:
        WRITERS[name](tmp_path)
    assert str(tmp_path) in str(failed.value)
    assert "\n" not in str(failed.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_checkpoint_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    before = tree(tmp_path)
    with at_most(60_000), pytest.raises(CannotFinish):
        checkpoint(tmp_path)
    assert tree(tmp_path) == before


def test_a_failed_append_takes_back_what_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, b"first\n")
    with at_most(8), pytest.raises(CannotFinish):
        append(path, b"second\n")
    assert path.read_bytes() == b"first\n"


KINDS = [
    (errno.ENOSPC, CannotFinish, "no space left"),
    (errno.EDQUOT, CannotFinish, "no space left"),
    (errno.EIO, CannotFinish, "Input/output error"),
    (errno.EMFILE, CannotFinish, "Too many open files"),
    (errno.EROFS, PathError, "Read-only file system"),
    (errno.EACCES, PathError, "Permission denied"),
]


@pytest.mark.parametrize(("number", "kind", "text"), KINDS)
def test_the_disk_is_at_fault_or_the_path(
    number: int, kind: type[IdifError], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("idif.files.os.fsync", fail)
    with pytest.raises(kind, match=rf"x\.txt: .*{text}") as failed:
        replace_file(tmp_path / "x.txt", "x")
    assert failed.value.exit_code == (3 if kind is CannotFinish else 2)
    assert list(tmp_path.iterdir()) == []


def test_stores_and_their_exports_are_on_the_disk(
    data: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = PowerCut(monkeypatch)
    build_tiny(data, INDEX, tmp_path / "a" / "store")
    export_store(tmp_path / "a" / "store", tmp_path / "b" / "s.h5")
    import_store(exported, tmp_path / "c" / "store")
    for name in ("a", "b", "c"):
        disk.require_durable(tmp_path / name, tmp_path)


def test_a_full_disk_ends_exports_and_imports_of_stores(store: Path, exported: Path, tmp_path: Path) -> None:
    with at_most(300_000), pytest.raises(IdifError, match="cannot be written") as failed:
        export_store(store, tmp_path / "s.h5")
    assert failed.value.exit_code == 3
    with at_most(300_000), pytest.raises(IdifError, match="cannot be written") as failed:
        import_store(exported, tmp_path / "s")
    assert failed.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def photographs(folder: Path) -> Path:
    for name in ("train/good/1.png", "train/good/2.png", "test/good/3.png", "test/cut/4.png"):
        path = folder / "mug" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (90, 80, 70)).save(path)
    return folder


def test_imported_photographs_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = photographs(tmp_path / "in"), tmp_path / "out" / "deep"
    disk = PowerCut(monkeypatch)
    import_folder(ImportRequest(source, out, size=32))
    disk.require_durable(out, tmp_path)
    assert disk.renamed[-1] == "mug.json", "a category without annotations does not exist for a reader"


def test_an_import_killed_before_its_annotations_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ImportRequest(photographs(tmp_path / "in"), tmp_path / "out", size=32)
    import_folder(request)
    whole = tree(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("idif.datasets.realiad.writer._add_annotations", lambda *_: None)
        with pytest.raises(IdifError):
            import_folder(request)
    assert import_folder(request).kept == ("mug",)
    assert tree(tmp_path / "out") == whole
    # another source's pictures are not taken for these
    with monkeypatch.context() as patch:
        patch.setattr("idif.datasets.realiad.writer._add_annotations", lambda *_: None)
        with pytest.raises(IdifError):
            import_folder(ImportRequest(request.src, tmp_path / "again", size=32))
    extra = request.src / "mug" / "train" / "good" / "9.png"
    shutil.copy(request.src / "mug" / "train" / "good" / "1.png", extra)
    summary = import_folder(ImportRequest(request.src, tmp_path / "again", size=32))
    assert (summary.kept, summary.train_samples) == ((), 3)


def test_a_training_and_its_results_are_on_the_disk(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = PowerCut(monkeypatch)
    runs = tmp_path / "runs"
    chosen = [f"--set=run.dir={json.dumps(str(runs))}", "--set=data.categories=[cup]", *FAST]
    assert run(["train", f"--config={world / 'c.yaml'}", "--set=run.tracking=none", *chosen]) == 0
    assert run(["eval", str(runs / "tiny")]) == 0
    assert run(["sweep", "missing-views", str(runs / "tiny"), "--subsets=paper"]) == 0
    assert run(["report", str(runs / "tiny")]) == 0
    names = {path.name for path in (runs / "tiny").iterdir()}
    assert {"config.yaml", "predictions.h5", "metrics.json", "sweep.json", "report.html"} <= names
    disk.require_durable(runs / "tiny", tmp_path)


@pytest.mark.parametrize("command", ["train", "eval", "sweep", "report", "export", "predict", "cache export"])
def test_a_full_disk_is_one_sentence_of_every_command(
    command: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(world / "runs" / "tiny", runs / "tiny")
    photo = next((world / "data").rglob("*_C1_*.jpg"))
    of_run = str(runs / "tiny")
    arguments = {
        "train": [
            "train",
            f"--config={world / 'c.yaml'}",
            f"--set=run.dir={json.dumps(str(tmp_path / 'n'))}",
        ],
        "eval": ["eval", of_run],
        "sweep": ["sweep", "missing-views", of_run, "--subsets=paper"],
        "report": ["report", of_run],
        "export": ["export", of_run, "--format=torchscript", "--category=cup"],
        "predict": ["predict", of_run, str(photo), "--category=cup", "--out", str(tmp_path / "found")],
        "cache export": ["cache", "export", str(world / "store.zarr"), str(tmp_path / "s.h5")],
    }[command]
    if command == "report":
        assert run(["eval", of_run]) == 0
    before = set(tree(tmp_path))
    capsys.readouterr()
    with at_most(0):
        assert run([*arguments, "--json"]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit_code"] == 3
    assert "cannot be written (File too large)" in answer["error"]
    assert set(tree(tmp_path)) == before


def test_a_read_only_folder_is_refused_before_any_work(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("idif.files.tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("idif.evaluation.scoring.Scorer.score", None)
    of_run = str(world / "runs" / "tiny")
    photo = next((world / "data").rglob("*_C1_*.jpg"))
    for arguments in (
        ["sweep", "missing-views", of_run],
        ["predict", of_run, str(photo), "--category=cup", "--out", str(tmp_path)],
        ["eval", of_run, "--export", str(tmp_path / "t.csv")],
    ):
        assert run([*arguments, "--json"]) == 2
        assert "Read-only file system" in json.loads(capsys.readouterr().out)["error"]


def test_what_does_not_fit_is_refused_before_any_work(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("idif.files.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1))
    shutil.copytree(world / "runs" / "tiny", tmp_path / "tiny")
    monkeypatch.setattr("idif.evaluation.scoring.Scorer.score", None)
    train = ["train", f"--config={world / 'c.yaml'}", f"--set=run.dir={json.dumps(str(tmp_path))}", *FAST]
    for arguments in (
        [*train, "--set=run.name=new"],
        ["eval", str(tmp_path / "tiny")],
        ["cache", "export", str(world / "store.zarr"), str(tmp_path / "s.h5")],
    ):
        assert run([*arguments, "--json"]) == 3
        assert "GB and 1e-09 GB are free" in json.loads(capsys.readouterr().out)["error"]
