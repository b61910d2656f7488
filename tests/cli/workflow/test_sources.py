"""A store beside its dataset: an identical one is accepted, every difference refused; no image is read."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.__main__ import run
from cli.workflow.sources import Sources
from idif.config.loader import resolve
from idif.data.index import Index
from idif.errors import StoreMismatch
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations
from tests.helpers.tiny_store import build_by_command

CPU = torch.device("cpu")
CUP = tiny_index(["cup"], train=2, test=2, views=2)
BOLT = tiny_index(["bolt"], train=2, test=2, views=3)
"""Categories of different cameras."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("cameras")
    for index in (CUP, BOLT):
        make_tiny_realiad(home / "data", index)
        write_annotations(home / "data", index)
    assert build_by_command(home / "data", home / "s", 32) == 0
    return home


@pytest.fixture
def annotated(built: Path, tmp_path: Path) -> Path:
    """The dataset's annotations without its images."""
    shutil.copytree(built / "data" / "realiad_jsons", tmp_path / "data" / "realiad_jsons")
    (tmp_path / "data" / "realiad_256").mkdir()
    return tmp_path / "data"


def sources(root: Path, store: Path | None, **data: Any) -> Sources:
    sections = {
        "data": {"root": str(root), **data},
        "cache": {"store": None if store is None else str(store)},
    }
    if store is None:
        sections["teacher"] = {"weights": "untrained", "image_size": 32}
    return Sources(resolve(sections, source="test")[0], CPU)


def present_slots(index: Index) -> set[tuple[bool, ...]]:
    return {sample.present for sample in index.samples}


@pytest.mark.parametrize("recorded", [{}, {"views": [1, 2, 3]}, {"views": [1, 2, 3], "categories": ["cup"]}])
def test_one_category_is_compared_though_others_have_more_cameras(
    built: Path, annotated: Path, recorded: dict[str, Any]
) -> None:
    opened = sources(annotated, built / "s", **recorded)
    for category in opened.categories():
        index = opened.unplaced([category], "train").index
        assert index.view_numbers == (1, 2, 3)
        assert (True, True, category == "bolt") in present_slots(index)


def test_live_categories_of_different_cameras_have_the_same_view_numbers(built: Path) -> None:
    opened = sources(built / "data", None)
    assert {opened.unplaced([c], "test").index.view_numbers for c in ("cup", "bolt")} == {(1, 2, 3)}
    assert [s.split for s in opened.samples(["cup"])] == ["train", "train", "test", "test"]


def test_a_dataset_of_different_cameras_verifies(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", "verify", str(built / "s"), f"--root={built / 'data'}", "--deep", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["views_compared"] == 16


def change(root: Path, category: str, split: str, **values: Any) -> None:
    path = root / "realiad_jsons" / f"{category}.json"
    content = json.loads(path.read_text())
    content[split][-1] |= values
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("split", ["train", "test"])
def test_training_compares_every_split_of_the_store(built: Path, annotated: Path, split: str) -> None:
    change(annotated, "cup", split, anomaly_class="dent")
    opened = sources(annotated, built / "s")
    opened.unplaced(["bolt"], "train")
    with pytest.raises(
        StoreMismatch, match=r"annotations of data\.root .*view 1: label is OK in the store, dent in the"
    ):
        opened.unplaced(["cup"], "train")


def test_a_camera_that_the_store_lacks_is_a_difference(built: Path, annotated: Path) -> None:
    index = tiny_index(["cup"], train=2, test=2, views=4)
    write_annotations(annotated, index)
    with pytest.raises(
        StoreMismatch, match=r"view numbers: the store has \[1, 2, 3\], the data \[1, 2, 3, 4\]"
    ):
        sources(annotated, built / "s").unplaced(["cup"], "test")


def test_a_camera_that_the_category_s_store_lacks_is_a_difference(built: Path, annotated: Path) -> None:
    write_annotations(annotated, tiny_index(["cup"], train=2, test=2, views=3))
    with pytest.raises(StoreMismatch, match="view 3: is in the data but not in the store"):
        sources(annotated, built / "s").unplaced(["cup"], "test")


def test_a_split_that_the_store_lacks_is_not_compared(built: Path, annotated: Path, tmp_path: Path) -> None:
    assert build_by_command(built / "data", tmp_path / "s", 32, "--category=cup", "--split=train") == 0
    change(annotated, "cup", "test", anomaly_class="dent")
    assert len(sources(annotated, tmp_path / "s").unplaced(["cup"], "train").index) == 2
