"""`idif data check`: every fault planted is found under its name, and sound data stay sound."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from cli.__main__ import run
from idif.datasets.checks.dataset import check_dataset
from idif.datasets.checks.findings import ERRORS, WARNINGS, CheckReport
from idif.datasets.checks.thumbnails import THUMBNAIL, exchanged_views, near_duplicates
from idif.datasets.realiad import statistics
from idif.datasets.realiad.files import RealIADLayout
from idif.datasets.realiad.statistics import COUNTS, Counts, count_differences
from idif.errors import DatasetError
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations

TRAIN = "realiad_256/cup/OK/S0002/cup_0002_OK_C1_20240101.jpg"
OTHER = "realiad_256/cup/OK/S0003/cup_0003_OK_C1_20240101.jpg"
TEST = "realiad_256/cup/OK/S1002/cup_1002_OK_C1_20240101.jpg"
DEFECT = "realiad_256/cup/NG/scratch/S1003/cup_1003_NG_scratch_C3_20240101.jpg"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    index = tiny_index(train=10, test=10)
    make_tiny_realiad(root, index)
    write_annotations(root, index)
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "data"))


def annotate(root: Path, image: str, **values: Any) -> None:
    path = root / "realiad_jsons" / "cup.json"
    content = json.loads(path.read_text())
    name = image.removeprefix("realiad_256/cup/")
    (entry,) = [e for split in ("train", "test") for e in content[split] if e["image_path"] == name]
    entry |= values
    path.write_text(json.dumps(content))


def mask_of(image: str) -> str:
    return image.removesuffix("jpg") + "png"


def found(report: CheckReport) -> set[tuple[str, str]]:
    return {(finding.kind, finding.file) for finding in (*report.errors, *report.warnings)}


def cut(root: Path, file: str) -> None:
    content = (root / file).read_bytes()
    (root / file).write_bytes(content[: len(content) // 2])


def resize(root: Path, file: str) -> None:
    with Image.open(root / file) as image:
        image.resize((40, 44)).save(root / file)


def smooth(root: Path, file: str) -> None:
    with Image.open(root / file) as mask:
        mask.filter(ImageFilter.GaussianBlur(2)).save(root / file)


def paint(root: Path, file: str, grey: int) -> None:
    with Image.open(root / file) as image:
        Image.new(image.mode, image.size, (grey,) * len(image.getbands())).save(root / file)


def move(root: Path, image: str, to: str) -> None:
    (root / to).parent.mkdir(parents=True, exist_ok=True)
    (root / image).rename(root / to)
    annotate(root, image, image_path=to.removeprefix("realiad_256/cup/"))


def encode_again(root: Path, image: str, to: str) -> None:
    pixels = np.asarray(Image.open(root / image)).astype(int) + 3
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / to, quality=95)


MOVED = "realiad_256/cup/OK/S0007/cup_0002_OK_C1_20240101.jpg"
FOREIGN = "realiad_256/cup/OK/S0002/bolt_0002_OK_C1_20240101.jpg"
UNDER_NG = "realiad_256/cup/NG/scratch/S0002/cup_0002_OK_C1_20240101.jpg"

FAULTS: list[tuple[str, str, Callable[[Path], object]]] = [
    ("missing", TRAIN, lambda root: (root / TRAIN).unlink()),
    ("missing", mask_of(DEFECT), lambda root: (root / mask_of(DEFECT)).unlink()),
    ("unreadable", TRAIN, lambda root: cut(root, TRAIN)),
    ("unreadable", mask_of(DEFECT), lambda root: cut(root, mask_of(DEFECT))),
    ("unreadable", DEFECT, lambda root: (root / DEFECT).write_bytes(b"")),
    ("wrong_size", TRAIN, lambda root: resize(root, TRAIN)),
    ("wrong_size", mask_of(DEFECT), lambda root: resize(root, mask_of(DEFECT))),
    ("misplaced_view", MOVED, lambda root: move(root, TRAIN, MOVED)),
    ("misplaced_view", FOREIGN, lambda root: move(root, TRAIN, FOREIGN)),
    ("misplaced_view", UNDER_NG, lambda root: move(root, TRAIN, UNDER_NG)),
    ("mask_without_defect", mask_of(DEFECT), lambda root: annotate(root, DEFECT, anomaly_class="OK")),
    ("defect_without_mask", DEFECT, lambda root: annotate(root, DEFECT, mask_path=None)),
    ("defect_without_mask", mask_of(DEFECT), lambda root: paint(root, mask_of(DEFECT), 0)),
    ("mask_marks_most", mask_of(DEFECT), lambda root: paint(root, mask_of(DEFECT), 255)),
    ("grey_mask", mask_of(DEFECT), lambda root: smooth(root, mask_of(DEFECT))),
    ("train_and_test", TEST, lambda root: shutil.copy(root / TRAIN, root / TEST)),
    ("annotations", "realiad_jsons/cup.json", lambda root: cut(root, "realiad_jsons/cup.json")),
    ("near_duplicate", OTHER, lambda root: shutil.copy(root / TRAIN, root / OTHER)),
    ("near_duplicate", OTHER, lambda root: encode_again(root, TRAIN, OTHER)),
    ("near_duplicate", TEST, lambda root: encode_again(root, TRAIN, TEST)),
    ("brightness", TRAIN, lambda root: paint(root, TRAIN, 2)),
    ("brightness", TRAIN, lambda root: paint(root, TRAIN, 235)),
    ("brightness", TRAIN, lambda root: paint(root, TRAIN, 255)),
]


def test_sound_data_are_sound(pristine: Path) -> None:
    heard: list[tuple[int, int]] = []
    report = check_dataset(
        RealIADLayout(pristine), progress=lambda done, total, what="": heard.append((done, total))
    )
    assert found(report) == set()
    assert report.sound
    assert report.files == heard[-1][0] == heard[-1][1] == 2 * (20 * 3 - 2 + 5 * 2 - 1)
    assert report.views == (1, 2, 3)
    # sample 1 of each split lacks view 2; camera 1 sees none of the five scratches
    assert report.counts["cup"] == Counts(10, 29, 0, 10, 29, 5, 5, 9, 2)


@pytest.mark.parametrize(
    ("kind", "file", "harm"), FAULTS, ids=[f"{k}-{n}" for n, (k, _, _) in enumerate(FAULTS)]
)
def test_a_fault_is_found_under_its_name_and_nothing_else_is(
    root: Path, kind: str, file: str, harm: Callable[[Path], object]
) -> None:
    harm(root)
    report = check_dataset(RealIADLayout(root))
    assert found(report) == {(kind, file)}
    assert report.sound == (kind in WARNINGS)
    assert len({*ERRORS, *WARNINGS}) == len(ERRORS) + len(WARNINGS)


def test_a_link_that_leaves_the_root_is_not_followed(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    (root / TRAIN).rename(secret)
    try:
        (root / TRAIN).symlink_to(secret)
    except OSError:
        pytest.skip("this system does not allow symbolic links")
    report = check_dataset(RealIADLayout(root))
    assert found(report) == {("unreadable", TRAIN)}
    assert "outside the dataset's root" in report.errors[0].message


def test_another_set_of_another_size(root: Path) -> None:
    """One view a sample, a contaminated training split, raw images: all without a fault."""
    content = json.loads((root / "realiad_jsons" / "cup.json").read_text())
    for split in ("train", "test"):
        content[split] = [entry for entry in content[split] if "_C3_" in entry["image_path"]]
    moved = [entry for entry in content["test"] if entry["anomaly_class"] != "OK"][:2]
    content["train"] += moved
    content["test"] = [entry for entry in content["test"] if entry not in moved]
    nested = root / "realiad_jsons_fuiad_0.1" / "realiad_jsons_fuiad_0.1"
    nested.mkdir(parents=True)
    (nested / "cup.JSON").write_text(json.dumps(content))
    (root / "realiad_256").rename(root / "realiad_raw")
    report = check_dataset(RealIADLayout(root, images="realiad_raw", annotations="realiad_jsons_fuiad_0.1"))
    assert report.sound
    assert report.views == (3,)
    counts = report.counts["cup"]
    assert (counts.train_samples, counts.train_anomalous, counts.test_anomalous) == (12, 2, 3)
    assert not report.whole
    (warning,) = [finding for finding in report.warnings if finding.kind != "few_samples"]
    assert (warning.kind, warning.category) == ("contaminated", "cup")
    assert warning.message == "2 of 12 training samples are labelled anomalous"


def test_small_and_one_sided_splits_are_told(tmp_path: Path) -> None:
    index = tiny_index(train=9, test=1)
    make_tiny_realiad(tmp_path, index)
    write_annotations(tmp_path, index)
    report = check_dataset(RealIADLayout(tmp_path), categories=["cup"])
    assert report.sound
    assert [finding.kind for finding in report.warnings] == ["few_samples", "few_samples", "one_class"]
    assert "all 1 test samples are normal" in report.warnings[2].message


def test_a_category_without_any_mask_needs_none(root: Path) -> None:
    for number in (1001, 1003, 1005, 1007, 1009):
        for view in (2, 3):
            image = DEFECT.replace("1003", str(number)).replace("C3", f"C{view}")
            if (root / image).exists():
                annotate(root, image, mask_path=None)
    assert found(check_dataset(RealIADLayout(root))) == set()


def test_images_of_every_size_are_one_warning(root: Path) -> None:
    for number, path in enumerate(sorted((root / "realiad_256" / "cup" / "OK").rglob("*_C1_*.jpg"))):
        with Image.open(path) as image:
            image.resize((40 + number, 40)).save(path)
    assert found(check_dataset(RealIADLayout(root))) == {("sizes_vary", "")}


def test_original_photographs_may_differ_in_size(root: Path) -> None:
    images = root / "realiad_original"
    (root / "realiad_256").rename(images)
    for file in (TRAIN, TEST, mask_of(DEFECT)):
        resize(root, file.replace("realiad_256", "realiad_original"))
    report = check_dataset(RealIADLayout(root, images="./realiad_original"))
    (error,) = report.errors
    mask = mask_of(DEFECT).replace("realiad_256", "realiad_original")
    assert (error.kind, error.file) == ("wrong_size", mask), "a mask must have the size of its own photograph"
    (warning,) = report.warnings
    assert (warning.kind, warning.category, warning.file) == ("sizes_vary", "cup", "")
    assert warning.message == (
        "camera 1: 2 of 20 images are of another size than 48x48; all become one square"
    )
    images.rename(root / "realiad_256")
    kinds = sorted(finding.kind for finding in check_dataset(RealIADLayout(root)).errors)
    assert kinds == ["wrong_size"] * 3, "images that an import made one size must have it"


def test_views_exchanged_between_cameras_are_seen_where_cameras_differ() -> None:
    rng = np.random.default_rng(0)
    samples = 12
    scenes = rng.integers(0, 256, (3, THUMBNAIL, THUMBNAIL))
    scenes[2] = scenes[1]  # cameras 2 and 3 see the same
    pictures = (scenes[None] + rng.normal(0, 4, (samples, 3, THUMBNAIL, THUMBNAIL))).clip(0, 255)
    pictures[5, [0, 1]] = pictures[5, [1, 0]]
    pictures[7, [1, 2]] = pictures[7, [2, 1]]
    pictures[9, 0] = 255 - pictures[9, 0]  # odd, but nobody else's
    flat = pictures.astype(np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL)
    owners, cameras = np.repeat(np.arange(samples), 3), np.tile([1, 2, 3], samples)
    assert exchanged_views(flat, owners, cameras) == [(15, 16)]
    assert exchanged_views(flat[:18], owners[:18], cameras[:18]) == [], "six pictures make no usual one"


def test_near_duplicates_are_of_one_camera_and_two_samples() -> None:
    base = np.random.default_rng(1).integers(40, 200, (THUMBNAIL, THUMBNAIL)).astype(np.uint8)
    pictures = np.stack([base, base + 5, base, base[::-1]])
    assert near_duplicates(pictures, np.array([0, 1, 0, 2]), np.array([1, 1, 1, 1])) == [(0, 1), (1, 2)]
    assert near_duplicates(pictures, np.arange(4), np.array([1, 2, 3, 1])) == []


def test_published_counts_are_compared_where_the_whole_set_is_there(
    pristine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(statistics.CATEGORIES) == 30
    assert list(count_differences(Counts(**COUNTS))) == []
    assert not check_dataset(RealIADLayout(pristine)).whole
    monkeypatch.setattr(statistics, "CATEGORIES", {"cup", "bolt"})
    report = check_dataset(RealIADLayout(pristine))
    assert report.whole
    assert [finding.kind for finding in report.errors] == ["counts"] * 5
    assert report.errors[0].message == "Real-IAD has 7,293 train samples, these annotations 20"
    assert not check_dataset(RealIADLayout(pristine), categories=["cup"]).whole


def test_the_only_folder_of_images_is_taken_and_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "check", "realiad", f"--root={root}", "--json"]
    (root / "realiad_256").rename(root / "realiad_512")
    (root / "realiad_jsons_sv").mkdir()
    assert run(command) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["images"] == "realiad_512"
    assert printed.err.splitlines() == [
        "note: there is no realiad_256; the images checked are those of realiad_512"
    ]
    (root / "realiad_1024").mkdir()
    assert run(command) == 2
    told = capsys.readouterr().err
    assert "there is: realiad_1024, realiad_512; choose one with --images" in told
    assert run([*command, "--images=realiad_512"]) == 0
    assert capsys.readouterr().err == ""
    (root / "realiad_256").mkdir()
    assert run(command) == 1, "the default goes before all others, and is empty"
    shutil.rmtree(root / "realiad_256")
    shutil.rmtree(root / "realiad_1024")
    shutil.rmtree(root / "realiad_512")
    assert run(command) == 2
    assert "realiad_256: expected the folder data.images, but it is missing" in capsys.readouterr().err


def test_the_command_prints_one_object_and_its_exit_code(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "check", "realiad", f"--root={root}"]
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sound"] is True
    encode_again(root, TRAIN, OTHER)
    assert run(command) == 0
    assert "warning: 1 near-duplicates" in capsys.readouterr().out
    cut(root, TRAIN)
    assert run([*command, "--json"]) == 1
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert (error["kind"], error["file"]) == ("unreadable", TRAIN)
    assert run(command) == 1
    text = capsys.readouterr().out
    assert "error: 1 files that cannot be read" in text
    assert TRAIN in text
    assert run([*command, "--category=cupp"]) == 2
    assert "did you mean cup?" in capsys.readouterr().err
    with pytest.raises(DatasetError, match="no such folder"):
        check_dataset(RealIADLayout(root / "nowhere"))


def test_every_copy_of_a_training_file_is_an_error_also_in_another_category(root: Path) -> None:
    copies = [
        TEST,
        "realiad_256/cup/OK/S1004/cup_1004_OK_C1_20240101.jpg",
        "realiad_256/bolt/OK/S1006/bolt_1006_OK_C1_20240101.jpg",
    ]
    for copy in copies:
        shutil.copy(root / TRAIN, root / copy)
    errors = check_dataset(RealIADLayout(root)).errors
    assert sorted((e.kind, e.category, e.file) for e in errors) == sorted(
        ("train_and_test", copy.split("/")[1], copy) for copy in copies
    )
    assert all(TRAIN in error.message for error in errors)
