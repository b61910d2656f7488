"""`idif data import folder` of parts sorted into good and bad."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.__main__ import run
from idif.data.index import Sample
from idif.datasets.folder.importer import import_folder
from idif.datasets.folder.layout import PhotoSample
from idif.datasets.folder.sorted_layout import TestShare
from idif.datasets.realiad.writer import ImportRequest
from idif.errors import DatasetError
from tests.idif.datasets.folder.test_importer import mark, pixels, read, save

GOOD = 20


def sort_parts(folder: Path, good: str = "ok", bad: tuple[str, ...] = ("ng",)) -> Path:
    """``folder`` with 20 good parts and two in each folder of bad ones."""
    for number in range(GOOD):
        save(folder / good / f"p{number:02d}.png", pixels(number))
    for place, name in enumerate(bad):
        for number in range(2):
            save(folder / name / f"b{number}.png", pixels(100 + 10 * place + number))
    return folder


def classes(samples: tuple[Sample, ...]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for sample in samples:
        key = (sample.split, sample.anomaly_class)
        counts[key] = counts.get(key, 0) + 1
    return counts


@pytest.mark.parametrize(
    ("good", "bad", "defects"),
    [
        ("OK", ("NG",), ["NG"]),
        ("good", ("scratch", "dent"), ["dent", "scratch"]),
        ("Normal", ("nok/scratch", "nok/dent"), ["dent", "scratch"]),
        ("ok", ("ng/scratch", "stain"), ["scratch", "stain"]),
    ],
)
@pytest.mark.parametrize("below", [True, False])
def test_parts_sorted_in_any_of_these_ways(
    tmp_path: Path, good: str, bad: tuple[str, ...], defects: list[str], below: bool
) -> None:
    sort_parts(tmp_path / "line" / "mug", good, bad)
    src = tmp_path / "line" if below else tmp_path / "line" / "mug"
    summary = import_folder(ImportRequest(src, tmp_path / "out", size=32))
    assert summary.categories == ("mug",)
    counts = classes(read(tmp_path / "out"))
    assert {name: counts.pop(("test", name)) for name in defects} == dict.fromkeys(defects, 2)
    kept, tested = counts.pop(("train", "OK")), counts.pop(("test", "OK"))
    assert not counts
    assert (kept, tested) == (16, 4)
    assert summary.chosen_split == (
        "of 20 good samples 16 are for training and 4 for testing (by name; test share 0.2, seed 0)"
    )


def parts(names: set[str]) -> list[PhotoSample]:
    return [PhotoSample("train", None, name, {"1": name}, {}) for name in sorted(names)]


def splits(test: TestShare, names: set[str]) -> dict[str, str]:
    return {sample.name: sample.split for sample in test.split(parts(names))}


def test_few_parts_change_their_split_when_others_are_added() -> None:
    """At most as many as are added."""
    for seed in range(20):
        before = splits(TestShare(0.2, seed), {f"part-{number}" for number in range(200)})
        after = splits(TestShare(0.2, seed), {f"part-{number}" for number in range(210)})
        assert list(before.values()).count("test") == 40
        assert list(after.values()).count("test") == 42
        assert sum(after[name] != split for name, split in before.items()) <= 10


@pytest.mark.parametrize("count", range(2, 8))
def test_few_parts_are_in_both_splits(count: int) -> None:
    for seed in range(20):
        for share in (0.01, 0.5, 0.9):
            assert set(splits(TestShare(share, seed), set("abcdefgh"[:count])).values()) == {"train", "test"}


def test_the_share_is_that_of_the_good_parts() -> None:
    many = parts({f"part-{number}" for number in range(37)})
    assert sum(sample.split == "test" for sample in TestShare(0.3, 1).split(many)) == 11
    assert TestShare(0.0).split(many) == many
    assert TestShare(0.3, 1).split(many) != TestShare(0.3, 2).split(many)


def test_masks_are_those_of_the_defect(tmp_path: Path) -> None:
    src = sort_parts(tmp_path / "mug", bad=("ng/scratch",))
    for number in range(2):
        mark(src / "ground_truth" / "scratch" / f"b{number}_mask.png")
    import_folder(ImportRequest(src, tmp_path / "out", size=32))
    masked = [s for s in read(tmp_path / "out") if any(v is not None and v.mask for v in s.views)]
    assert [sample.anomaly_class for sample in masked] == ["scratch", "scratch"]


def test_only_good_parts_are_all_for_training(tmp_path: Path) -> None:
    summary = import_folder(ImportRequest(sort_parts(tmp_path / "mug", bad=()), tmp_path / "out", size=32))
    assert classes(read(tmp_path / "out")) == {("train", "OK"): GOOD}
    assert summary.chosen_split is not None
    assert summary.chosen_split.endswith("; no bad parts to test with in mug")


def photograph(place: str) -> Callable[[Path], object]:
    return lambda src: save(src / place / "x.png", pixels(1))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (photograph("Good"), r"expected one folder of good parts, found 'Good' and 'ok'"),
        (photograph("ng/dent"), r"'.*ng': expected photographs or one folder for each defect, found both"),
        (photograph("train/good-ones"), r"'.*train': a split beside 'ok'"),
        (lambda src: mark(src / "ground_truth" / "dent" / "x.png"), r"'.*dent': masks of a defect that"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, harm: Callable[[Path], object], message: str) -> None:
    src = sort_parts(tmp_path / "mug")
    harm(src)
    with pytest.raises(DatasetError, match=message):
        import_folder(ImportRequest(src, tmp_path / "out", size=32))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.jpg"))


def test_an_empty_folder_of_good_parts(tmp_path: Path) -> None:
    save(tmp_path / "mug" / "ng" / "x.png", pixels(1))
    (tmp_path / "mug" / "ok").mkdir()
    with pytest.raises(DatasetError, match=r"ok': expected photographs, found none"):
        import_folder(ImportRequest(tmp_path / "mug", tmp_path / "out", size=32))


def test_the_command_says_what_it_chose_and_refuses_to_split_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "data",
        "import",
        "folder",
        str(sort_parts(tmp_path / "mug")),
        str(tmp_path / "out"),
        "--size=32",
    ]
    assert run([*command, "--test-share=0.5", "--seed=3"]) == 0
    said = capsys.readouterr().err
    assert "are for training and" in said
    assert "(by name; test share 0.5, seed 3)" in said
    other = tmp_path / "split" / "cup"
    for place in ("train/good", "test/good", "test/bad"):
        photograph(place)(other)
    again = ["data", "import", "folder", str(other), str(tmp_path / "cup"), "--size=32", "--seed=3", "--json"]
    assert run(again) == 2
    assert "there is a split: train/good" in json.loads(capsys.readouterr().out)["error"]


def test_folders_below_ng_can_be_the_samples_of_a_pattern(tmp_path: Path) -> None:
    for number, folder in enumerate(("ok/a", "ok/b", "ok/c", "ng/d")):
        for view in ("top", "side"):
            save(tmp_path / "mug" / folder / f"{view}.png", pixels(number))
    request = ImportRequest(tmp_path / "mug", tmp_path / "out", size=32)
    summary = import_folder(request, pattern="{sample}/{view}")
    assert summary.taken_as_defects == ("ng",)
    assert (summary.train_samples, summary.test_samples) == (2, 2)


@pytest.mark.parametrize("name", ["masks", "Ground_Truth"])
def test_a_folder_of_masks_is_no_defect(tmp_path: Path, name: str) -> None:
    sort_parts(tmp_path / "mug", bad=("ng", name))
    with pytest.raises(DatasetError, match="expected masks in ground_truth/<defect>"):
        import_folder(ImportRequest(tmp_path / "mug", tmp_path / "out", size=32))
