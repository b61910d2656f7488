"""`idif data import visa`: the layout of VisA, by its split file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.__main__ import run
from idif.data.index import Sample
from idif.datasets.folder.visa import read_split
from idif.datasets.realiad.files import RealIADLayout
from idif.datasets.realiad.reader import read_realiad
from idif.errors import DatasetError

SPLIT = "split_csv/1cls.csv"


def save(path: Path, values: object, side: tuple[int, int] = (40, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.broadcast_to(np.asarray(values, np.uint8), (*side, 3)).copy()).save(path)


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """Two categories as VisA has them; masks hold small numbers, not 255."""
    root = tmp_path / "VisA"
    split, annotations = ["object,split,label,image,mask"], {}
    for category in ("candle", "pcb1"):
        lines = annotations[category] = ["image,label,mask"]
        for number in range(4):
            image = f"{category}/Data/Images/Normal/{number:04d}.JPG"
            save(root / image, 20 * number)
            split.append(f"{category},{'train' if number < 3 else 'test'},normal,{image},")
            lines.append(f"{image},normal,")
        for number, words in enumerate(('"chunk of wax missing"', '"melt,foreign particle"', "weird/wick")):
            image = f"{category}/Data/Images/Anomaly/{number:03d}.JPG"
            mask = f"{category}/Data/Masks/Anomaly/{number:03d}.png"
            save(root / image, 200)
            values = np.zeros((40, 60), np.uint8)
            values[4:12, 30:40] = number + 1
            (root / mask).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(root / mask)
            split.append(f"{category},test,anomaly,{image},{mask}")
            lines.append(f"{image},{words},{mask}")
    for category, lines in annotations.items():
        (root / category / "image_anno.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (root / "split_csv").mkdir()
    (root / SPLIT).write_text("\n".join(split) + "\n", encoding="utf-8")
    return root


def read(out: Path) -> tuple[Sample, ...]:
    return read_realiad(RealIADLayout(out, images="realiad_32")).samples


def test_the_split_file_says_what_is_trained_on(src: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(["data", "import", "visa", str(src), str(out), "--size=32"]) == 0
    samples = read(out)
    assert len(samples) == 14
    candles = [sample for sample in samples if sample.category == "candle"]
    assert [sample.split for sample in candles] == ["train"] * 3 + ["test"] * 4
    classes = {sample.anomaly_class: sample for sample in candles if sample.split == "test"}
    assert set(classes) == {"OK", "chunk of wax missing", "several", "weird-wick"}
    (view,) = classes["chunk of wax missing"].views
    assert view is not None
    assert view.mask is not None
    rows, columns = np.nonzero(np.asarray(Image.open(out / view.mask)))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 9, 16, 20)


def test_a_second_call_keeps_and_adds_categories(src: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for names in (["--category=pcb1"], []):
        assert run(["data", "import", "visa", str(src), str(out), "--size=32", *names]) == 0
    assert {sample.category for sample in read(out)} == {"candle", "pcb1"}


def test_without_annotations_a_defect_is_an_anomaly(src: Path) -> None:
    (src / "candle" / "image_anno.csv").unlink()
    defects = {sample.defect for sample in read_split(src)["candle"]}
    assert defects == {None, "anomaly"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("object,split", "thing,split", "expected a column 'object'"),
        ("candle,train,normal", "candle,valid,normal", "line 2: expected train or test"),
        ("candle,train,normal", "../x,train,normal", "cannot be the name of a category"),
        ("Normal/0000.JPG", "Normal/missing.JPG", "missing.JPG"),
        ("Normal/0000.JPG", "../../../../etc/passwd", "passwd"),
    ],
)
def test_what_is_wrong_is_named(
    src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: str
) -> None:
    path = src / SPLIT
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    assert run(["data", "import", "visa", str(src), str(tmp_path / "out"), "--size=32"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert words in message
    assert "Traceback" not in message


def test_an_unknown_category_or_no_split_file(src: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "import", "visa", str(src), str(src.parent / "out"), "--size=32"]
    assert run([*command, "--category=cashew"]) == 2
    assert "no category 'cashew'" in " ".join(capsys.readouterr().err.split())
    assert run([*command, "--split=split_csv/2cls_highshot.csv"]) == 2
    assert "2cls_highshot.csv: cannot be read" in " ".join(capsys.readouterr().err.split())


def test_a_category_needs_training_images(src: Path) -> None:
    text = "object,split,label,image,mask\ncandle,test,normal,a.JPG,b.png\n"
    (src / SPLIT).write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match="no training images"):
        read_split(src)


def test_another_number_of_views_is_refused(
    src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "import", "visa", str(src), str(tmp_path / "out"), "--size=32"]
    assert run([*command, "--views=5"]) == 2
    assert f"{src}: expected 5 views, found 1: 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run([*command, "--views=1"]) == 0
