"""Eyecandies' importer, on made-up samples in the published layout: geometry, normals, classes, faults."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cli.__main__ import run
from idif.data.images import load_photograph
from idif.datasets.checks.dataset import check_dataset
from idif.datasets.realiad.files import RealIADLayout
from idif.datasets.realiad.reader import read_realiad
from idif.datasets.realiad.writer import ImportRequest
from idif.datasets.scans.eyecandies import FOCAL_LENGTH, SCALE, EyecandiesFiles, import_eyecandies, read_depth
from idif.errors import DatasetError

GRID = 128
TABLE, TOP = 6.0, 5.6
"""Depths of the table and of the box on it; the box is 0.6 by 0.3 of the same unit."""


def write_candy(folder: Path, number: str, *, defects: tuple[str, ...] = ()) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    x, y = np.meshgrid(*[(np.arange(GRID) - GRID / 2) / FOCAL_LENGTH] * 2)
    box = (np.abs(x * TOP) <= 0.3) & (np.abs(y * TOP) <= 0.15)
    depth = np.where(box, TOP, TABLE)
    levels = np.rint((depth - 5) / 2 * 65535).astype(np.uint16)
    spot = np.zeros((GRID, GRID), bool)
    spot[60:68, 40:50] = True

    def save(item: str, array: npt.NDArray[np.generic]) -> None:
        Image.fromarray(array).save(folder / f"{number}_{item}.png")

    save("depth", levels)
    (folder / f"{number}_info_depth.yaml").write_text("normalization:\n  min: 5.0\n  max: 7.0\n")
    up = np.full((GRID, GRID, 3), (128, 128, 255), np.uint8)
    save("normals", up)
    for light in range(6):
        colors = np.where(box[..., None], (200, 120, 30 * light), 20).astype(np.uint8)
        save(f"image_{light}", colors)
    for kind in ("bumps", "dents", "colors", "normals"):
        save(f"{kind}_mask", (spot & (kind in defects)).astype(np.uint8) * 255)
    save("mask", (spot & bool(defects)).astype(np.uint8) * 255)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    src = tmp_path_factory.mktemp("eyecandies")
    for number in range(3):
        write_candy(src / "Lollipop" / "train" / "data", f"{number:03d}")
    for number, defects in enumerate([(), ("bumps",), ("colors", "dents")]):
        write_candy(src / "Lollipop" / "test_public" / "data", f"{number:02d}", defects=defects)
    write_candy(src / "Lollipop" / "test_private" / "data", "000")
    return src


@pytest.fixture
def src(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "src"))


def pictures(out: Path, row: int) -> list[npt.NDArray[np.uint8]]:
    sample = read_realiad(RealIADLayout(out, images="realiad_64")).samples[row]
    return [load_photograph(out / view.image) for view in sample.views if view is not None]


def test_depth_becomes_points_where_the_lens_says(pristine: Path) -> None:
    candy = EyecandiesFiles("train", None, str(pristine / "Lollipop" / "train" / "data" / "000"), 0)
    points = read_depth(candy) / SCALE
    np.testing.assert_allclose(points[0, 0], [-64 / 711.11 * 6, -64 / 711.11 * 6, 6], atol=1e-4)
    np.testing.assert_allclose(points[64, 64], [0, 0, 5.6], atol=1e-4)


def test_an_import_reads_as_real_iad(src: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = import_eyecandies(ImportRequest(src, out, size=64), align=False, modality="both")
    assert (summary.train_samples, summary.test_samples, summary.images) == (3, 3, 60)
    samples = read_realiad(RealIADLayout(out, images="realiad_64")).samples
    assert [s.anomaly_class for s in samples] == ["OK", "OK", "OK", "bumps", "combined", "OK"]
    assert all(all(s.labels) for s in samples[3:5]), "the spot on the top is seen by every camera"
    # the made-up samples are copies of each other; nothing else is wrong
    assert {e.kind for e in check_dataset(RealIADLayout(out, images="realiad_64")).errors} == {
        "train_and_test"
    }
    above = pictures(out, 0)[0]
    rows, columns = np.nonzero(above.max(2) > 60)
    # the longer side fills nine tenths of the picture, the shorter one half of that
    assert np.ptp(columns) + 1 == pytest.approx(0.9 * 64, abs=2)
    assert np.ptp(rows) + 1 == pytest.approx(0.45 * 64, abs=2)
    np.testing.assert_allclose(above[32, 32], (200, 120, 0), atol=1)


def test_normals_are_told_in_each_camera_s_own_directions(src: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_eyecandies(ImportRequest(src, out, size=64), align=False, modality="normals")
    lean = np.radians(25)
    side, front = 127.5 * (1 - np.sin(lean)), 127.5 * (1 + np.cos(lean))
    level = 127.5
    # from above; then leaning right, up, left, down: the top's normal points the other way
    expected = [(level, level, 255), (side, level, front), (level, side, front)]
    expected += [(255 - side, level, front), (level, 255 - side, front)]
    for picture, color in zip(pictures(out, 0), expected, strict=True):
        np.testing.assert_allclose(picture[32, 32], color, atol=2)


def break_png(src: Path) -> None:
    path = src / "Lollipop" / "train" / "data" / "001_normals.png"
    path.write_bytes(path.read_bytes()[:80])


def info(text: str) -> Callable[[Path], object]:
    return lambda src: (src / "Lollipop" / "train" / "data" / "000_info_depth.yaml").write_text(text)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda src: shutil.rmtree(src / "Lollipop" / "train"), "folders <category>/train/data"),
        (lambda src: (src / "Lollipop/train/data/001_normals.png").unlink(), r"001_normals\.png: is missing"),
        (break_png, r"001_normals\.png: image cannot be read"),
        (info("normalization: {min: 7, max: 5}"), r"info_depth\.yaml: expected 0 <= min < max"),
        (info("[1, 2"), r"info_depth\.yaml: expected 'normalization'"),
        (info("x" * 100_000), "expected a few numbers"),
        (
            lambda src: write_candy(src / "Lollipop/train/data", "001", defects=("bumps",)),
            r"001_mask\.png: a training sample's mask marks a defect",
        ),
        (
            lambda src: Image.new("RGB", (GRID, GRID)).save(src / "Lollipop/train/data/002_depth.png"),
            r"002_depth\.png: expected a 16-bit grey depth map, got an image of mode RGB",
        ),
        (
            lambda src: Image.new("L", (9, 9)).save(src / "Lollipop/train/data/002_mask.png"),
            r"002_mask\.png: is 9x9, its depth map is 128x128",
        ),
    ],
)
def test_what_is_wrong_is_named(
    src: Path, tmp_path: Path, harm: Callable[[Path], object], message: str
) -> None:
    harm(src)
    with pytest.raises(DatasetError, match=message):
        import_eyecandies(ImportRequest(src, tmp_path / "out", size=64), views=1)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_the_command(src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["data", "import", "eyecandies", str(src), str(out), "--size=64", "--views=2"]
    assert run([*command, "--category=Gum"]) == 2
    assert "no category 'Gum'; there is: Lollipop" in capsys.readouterr().err
    assert run([*command, "--preview"]) == 0
    assert (out / "preview" / "Lollipop.png").is_file()
    assert "3 training and 3 test samples, 12 images" in " ".join(capsys.readouterr().out.split())
