"""`idif data import folder`: photographs as people have them come out as the reader wants them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cli.__main__ import run
from idif.data.images import load_image, load_mask
from idif.data.index import Sample
from idif.datasets.checks.dataset import check_dataset
from idif.datasets.contact_sheet import CELL, COLUMNS
from idif.datasets.folder.importer import import_folder
from idif.datasets.folder.layout import read_pattern
from idif.datasets.realiad.files import RealIADLayout
from idif.datasets.realiad.reader import read_realiad
from idif.datasets.realiad.writer import ImportRequest
from idif.errors import DatasetError
from tests.helpers.tiny_run import FAST, SIZE

Pixels = npt.NDArray[np.uint8]


def pixels(seed: int, height: int = 40, width: int = 60) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, image: npt.NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def mark(path: Path, height: int = 40, width: int = 60, *, side: int = 10) -> None:
    mask = np.zeros((height, width), np.uint8)
    mask[5 : 5 + side, 20 : 20 + side] = 255
    save(path, mask)


@pytest.fixture
def mug(tmp_path: Path) -> Path:
    """One category in MVTec AD's layout; returns the folder above it."""
    src = tmp_path / "src"
    for number in range(3):
        save(src / "mug" / "train" / "good" / f"{number:03d}.png", pixels(number))
    save(src / "mug" / "test" / "good" / "000.JPG", pixels(10))
    for number in range(2):
        save(src / "mug" / "test" / "big chip" / f"{number:03d}.png", pixels(20 + number))
        mark(src / "mug" / "ground_truth" / "big chip" / f"{number:03d}_mask.png")
    (src / "mug" / "readme.txt").write_text("hello")
    (src / "mug" / "train" / "good" / ".DS_Store").write_bytes(b"\0")
    return src


def read(out: Path, size: int | str = 32) -> tuple[Sample, ...]:
    return read_realiad(RealIADLayout(out, images=f"realiad_{size}")).samples


def multi_view(src: Path, *, name: str = "{sample}_{view}") -> Path:
    """Two cameras, one photograph missing; the defect shows in one view only."""
    for number in range(3):
        for view in ("top", "side"):
            if (number, view) != (2, "side"):
                place = name.replace("{sample}", f"part_{number}").replace("{view}", view)
                save(src / "cog" / "train" / "good" / f"{place}.bmp", pixels(number))
    for view in ("top", "side"):
        place = name.replace("{sample}", "part_9").replace("{view}", view)
        save(src / "cog" / "test" / "bent" / f"{place}.bmp", pixels(9))
    mark(src / "cog" / "ground_truth" / "bent" / f"{place}.png")
    return src


def test_mvtec_ad_becomes_one_view_a_sample(mug: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    heard: list[tuple[int, int, str]] = []
    summary = import_folder(
        ImportRequest(mug, out, size=32),
        progress=lambda done, total, what="": heard.append((done, total, what)),
    )
    assert heard == [(k, 6, "mug") for k in range(1, 7)]
    assert (summary.train_samples, summary.test_samples, summary.images, summary.masks) == (3, 3, 6, 2)
    assert summary.cameras == {1: "1"}
    samples = read(out)
    assert [(s.split, s.anomaly_class, s.has_mask) for s in samples] == [
        ("train", "OK", (False,)),
        ("train", "OK", (False,)),
        ("train", "OK", (False,)),
        ("test", "big chip", (True,)),
        ("test", "big chip", (True,)),
        ("test", "OK", (False,)),
    ]
    view = samples[1].views[0]
    assert view is not None
    assert "train-001" in view.image
    assert check_dataset(RealIADLayout(out, images="realiad_32")).sound


def test_pixels_are_those_that_a_model_would_see_of_the_original(mug: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_folder(ImportRequest(mug, out, size=32))
    view = read(out)[4].views[0]
    assert view is not None
    assert view.mask is not None
    original, shape = load_image(mug / "mug" / "test" / "big chip" / "001.png", 32)
    np.testing.assert_array_equal(load_image(out / view.image, 32)[0], original)
    truth = load_mask(mug / "mug" / "ground_truth" / "big chip" / "001_mask.png", 32, shape)
    np.testing.assert_array_equal(load_mask(out / view.mask, 32, (32, 32)), truth)


def test_visa_names_masks_as_images(mug: Path, tmp_path: Path) -> None:
    truth = mug / "mug" / "ground_truth" / "big chip"
    for number in range(2):
        (truth / f"{number:03d}_mask.png").rename(truth / f"{number:03d}.png")
    assert import_folder(ImportRequest(mug, tmp_path / "out", size=32)).masks == 2


def test_no_masks_are_needed(mug: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(mug / "mug" / "ground_truth")
    out = tmp_path / "out"
    assert run(["data", "import", "folder", str(mug), str(out), "--size=32"]) == 0
    assert "no masks, so pixel metrics will be null" in capsys.readouterr().out
    samples = read(out)
    assert [s.label for s in samples] == [False, False, False, True, True, False]
    assert not any(any(s.has_mask) for s in samples)
    assert check_dataset(RealIADLayout(out, images="realiad_32")).sound


@pytest.mark.parametrize("pattern", ["{sample}_{view}", "{sample}_{view}.bmp", "{sample}/{view}"])
def test_views_of_a_sample_by_pattern(tmp_path: Path, pattern: str) -> None:
    src = multi_view(tmp_path / "src", name=pattern.removesuffix(".bmp"))
    out = tmp_path / "out"
    summary = import_folder(ImportRequest(src, out, size=32), pattern=pattern, views=2)
    assert summary.cameras == {1: "side", 2: "top"}
    samples = read(out)
    assert [s.present for s in samples] == [(True, True), (True, True), (False, True), (True, True)]
    # only the side view has a mask, so only there the defect shows
    assert samples[3].labels == (True, False)
    assert check_dataset(RealIADLayout(out, images="realiad_32")).sound


def test_without_masks_every_view_of_a_defective_sample_is_anomalous(tmp_path: Path) -> None:
    src = multi_view(tmp_path / "src")
    shutil.rmtree(src / "cog" / "ground_truth")
    import_folder(ImportRequest(src, tmp_path / "out", size=32), pattern="{sample}_{view}")
    assert read(tmp_path / "out")[3].labels == (True, True)


def test_numbered_views_keep_their_numbers_unless_they_begin_at_nought(tmp_path: Path) -> None:
    for base, expected in ((2, {2: "2", 4: "4", 10: "10"}), (0, {1: "0", 2: "2", 3: "8"})):
        src = tmp_path / str(base)
        for view in (0, 2, 8):
            save(src / "train" / "good" / f"a_{view + base}.png", pixels(1))
        summary = import_folder(
            ImportRequest(src, tmp_path / f"out{base}", size=32), pattern="{sample}_{view}"
        )
        assert summary.cameras == expected
        assert summary.categories == (str(base),), "a category's own folder may be given"


def test_kinds_of_file_are_decoded_alike(tmp_path: Path) -> None:
    good = tmp_path / "cup" / "train" / "good"
    ramp = np.tile(np.arange(32, dtype=np.uint16) * 2048, (32, 1))
    save(good / "a16.png", ramp)
    save(good / "b16.tiff", ramp)
    save(good / "c8.bmp", (ramp >> 8).astype(np.uint8))
    turned = Image.fromarray((ramp >> 8).astype(np.uint8)).convert("RGB").rotate(90)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise to show
    turned.save(good / "d-exif.tif", exif=exif)
    import_folder(ImportRequest(tmp_path, tmp_path / "out", size=32))
    images = [
        load_image(tmp_path / "out" / s.views[0].image, 32)[0] for s in read(tmp_path / "out") if s.views[0]
    ]
    assert len(images) == 4
    for image in images:
        np.testing.assert_array_equal(image, np.broadcast_to(ramp >> 8, (3, 32, 32)))


def test_a_defect_smaller_than_a_pixel_is_kept(mug: Path, tmp_path: Path) -> None:
    big = mug / "mug" / "test" / "big chip" / "000.png"
    save(big, pixels(3, 400, 600))
    mark(mug / "mug" / "ground_truth" / "big chip" / "000_mask.png", 400, 600, side=2)
    import_folder(ImportRequest(mug, tmp_path / "out", size=32))
    view = read(tmp_path / "out")[3].views[0]
    assert view is not None
    assert view.mask is not None
    assert np.argwhere(load_mask(tmp_path / "out" / view.mask, 32, (32, 32))).tolist() == [[0, 1]]


def chip(name: str) -> Callable[[Path], Path]:
    return lambda src: src / "mug" / "ground_truth" / "big chip" / name


def remove_pngs(folder: Path) -> None:
    for path in folder.glob("*.png"):
        path.unlink()


FAULTS: list[tuple[str, Callable[[Path], object]]] = [
    ("found 'mug'", lambda src: shutil.rmtree(src / "mug" / "train")),
    (r"good: expected photographs", lambda src: remove_pngs(src / "mug/train/good")),
    ("other than 'good'", lambda src: save(src / "mug/train/bad/1.png", pixels(1))),
    (r"001\.png: shows 'big chip', but no mask", lambda src: chip("001_mask.png")(src).unlink()),
    (r"001\.png: shows 'big chip', but no mask", lambda src: mark(chip("001_mask.png")(src), side=0)),
    (r"007\.png: a mask of no photograph", lambda src: mark(chip("007.png")(src))),
    (r"000_mask\.png: mask is 9x9", lambda src: mark(chip("000_mask.png")(src), 9, 9)),
    (r"002\.png: image cannot be read", lambda src: (src / "mug/train/good/002.png").write_bytes(b"x")),
    (r"000\.png: a second photograph", lambda src: save(src / "mug/train/good/000.bmp", pixels(1))),
    ("cannot be the name of a defect", lambda src: (src / "mug/test/big chip").rename(src / "mug/test/OK")),
]  # fmt: skip


@pytest.mark.parametrize(("message", "harm"), FAULTS, ids=[str(n) for n in range(len(FAULTS))])
def test_what_is_wrong_is_named_and_nothing_is_left(
    mug: Path, tmp_path: Path, message: str, harm: Callable[[Path], object]
) -> None:
    harm(mug)
    with pytest.raises(DatasetError, match=message):
        import_folder(ImportRequest(mug, tmp_path / "out", size=32))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_patterns(tmp_path: Path) -> None:
    assert read_pattern("{sample}_{view}").read("a_1_top.JPEG") == ("a_1", "top")
    assert read_pattern("v{view}-{sample}.png").read("v3-x.PNG") == ("x", "3")
    assert read_pattern("v{view}-{sample}.png").read("v3-x.jpg") is None
    for wrong in ("{sample}", "{sample}{view}{view}", "{sample}_{camera}", "x"):
        with pytest.raises(DatasetError, match="--pattern"):
            read_pattern(wrong)
    src = multi_view(tmp_path)
    with pytest.raises(DatasetError, match="expected 5 views, found 2: side, top"):
        import_folder(ImportRequest(src, tmp_path / "out"), pattern="{sample}_{view}", views=5)
    with pytest.raises(DatasetError, match=r"_side\.bmp: expected a name that fits --pattern"):
        import_folder(ImportRequest(src, tmp_path / "out"), pattern="{sample}-{view}")


def test_a_finding_names_the_photograph_as_it_was_imported(
    mug: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(mug / "mug/train/good/001.png", mug / "mug/test/good/twin.png")
    out = tmp_path / "out"
    import_folder(ImportRequest(mug, out, size=32))
    (found,) = check_dataset(RealIADLayout(out, images="realiad_32")).errors
    assert (found.kind, found.source) == ("train_and_test", "test/good/twin.png")
    assert run(["data", "check", "realiad", f"--root={out}"]) == 1
    assert "(imported from test/good/twin.png)" in capsys.readouterr().out


def test_the_command(mug: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["data", "import", "folder", str(mug), str(out), "--size=32"]
    assert run([*command, "--category=mugg", "--json"]) == 2
    assert "no category 'mugg'; there is: 'mug'" in json.loads(capsys.readouterr().out)["error"]
    assert run([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["cameras"] == {"1": "1"}
    assert said["kept"] == []
    assert run([*command, "--json", "--preview"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == said | {"kept": ["mug"]}
    with Image.open(out / "preview" / "mug.png") as sheet:
        # three training samples, two chips and a good one, four in a row
        assert sheet.size == (COLUMNS * (CELL + 4) - 4, 2 * (CELL + 14))
        red = np.asarray(sheet)[CELL + 14 + 14 :, :CELL] == (255, 40, 40)
    assert red.all(2).any()
    mark(mug / "mug" / "ground_truth" / "big chip" / "000_mask.png", side=7)
    assert run([*command, "--json"]) == 2
    assert "from another source" in json.loads(capsys.readouterr().out)["error"]


def test_originals_are_copied_and_resized_by_the_encoder(mug: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = import_folder(ImportRequest(mug, out, size=None))
    assert (summary.images, summary.masks) == (6, 2)
    samples = read(out, "original")
    views = [view for sample in samples for view in sample.views if view is not None]
    for view in views:
        assert view.source is not None
        copied, source = out / view.image, mug / "mug" / view.source
        assert copied.read_bytes() == source.read_bytes()
        assert copied.suffix == source.suffix.lower()
        lanczos = load_image(copied, 48, "lanczos")[0]
        assert np.array_equal(lanczos, load_image(source, 48, "lanczos")[0])
        if view.mask is not None:
            # the photographs are 40 high and 60 wide, and so are their masks
            whole = mug / "mug" / "ground_truth" / "big chip" / f"{source.stem}_mask.png"
            assert np.array_equal(load_mask(out / view.mask, 48, (40, 60)), load_mask(whole, 48, (40, 60)))
    assert not check_dataset(RealIADLayout(out, images="realiad_original")).errors
    assert import_folder(ImportRequest(mug, out, size=None)).kept == ("mug",)
    with pytest.raises(DatasetError, match="holds 'realiad_original', images of another size"):
        import_folder(ImportRequest(mug, out, size=32))


def test_originals_that_do_not_fit_are_refused(mug: Path, tmp_path: Path) -> None:
    mark(mug / "mug" / "ground_truth" / "big chip" / "000_mask.png", width=61)
    with pytest.raises(DatasetError, match=r"000_mask\.png: mask is 61x40, its image is 60x40"):
        import_folder(ImportRequest(mug, tmp_path / "out", size=None))
    photo = mug / "mug" / "train" / "good" / "000.png"
    photo.write_bytes(photo.read_bytes()[:-40])
    with pytest.raises(DatasetError, match=r"000\.png: image cannot be read"):
        import_folder(ImportRequest(mug, tmp_path / "out", size=None))


def test_a_store_that_enlarges_its_images_is_warned_of(
    mug: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "import", "folder", str(mug), str(tmp_path / "small"), "--size=tall"]) == 2
    assert "--size: expected a number of pixels or original, got 'tall'" in capsys.readouterr().err
    for size, images in (("32", "realiad_32"), ("original", "realiad_original")):
        out = tmp_path / size
        assert run(["data", "import", "folder", str(mug), str(out), f"--size={size}"]) == 0
        assert f"--images {images}" in " ".join(capsys.readouterr().out.split())
        for command, crop in (("build", 32), ("build", 48), ("plan", 48)):
            place = [f"--root={out}", f"--images={images}", f"--store={tmp_path / f'{size}{crop}.zarr'}"]
            options = ["--teacher-weights=untrained", "--image-size=32", f"--crop-from={crop}"]
            assert run(["cache", command, "realiad", *place, *options]) == 0
            said = " ".join(capsys.readouterr().err.split())
            now = "32x32" if size == "32" else "60x40"
            larger = f"warning: images of mug are {now} pixels and will be enlarged to 48x48"
            assert said.count(larger) == said.count("enlarged") == (crop == 48)


def test_one_view_without_masks_goes_the_whole_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    src = tmp_path / "mug"
    for number in range(4):
        save(src / "train" / "good" / f"{number}.png", pixels(number))
        save(src / "test" / "good" / f"{number}.png", pixels(40 + number))
        save(src / "test" / "chip" / f"{number}.png", 255 - pixels(80 + number) // 4)
    data, store, runs = tmp_path / "data", tmp_path / "store.zarr", tmp_path / "runs"
    assert run(["data", "import", "folder", str(src), str(data), f"--size={SIZE}"]) == 0
    read_as = [f"--root={data}", f"--images=realiad_{SIZE}"]
    built = [f"--store={store}", f"--image-size={SIZE}", "--teacher-weights=untrained"]
    assert run(["cache", "build", "realiad", *read_as, *built]) == 0
    config = tmp_path / "c.yaml"
    config.write_text(
        f"cache: {{store: '{store.as_posix()}'}}\nrun: {{name: v1, dir: '{runs.as_posix()}'}}\n"
    )
    assert run(["train", f"--config={config}", *FAST]) == 0
    capsys.readouterr()
    assert run(["eval", str(runs / "v1"), "--json"]) == 0
    found = json.loads((runs / "v1" / "metrics.json").read_text())["categories"]["mug"]
    assert 0 <= found["s_auroc"] <= 1
    assert found["s_auroc"] == found["i_auroc"], "a sample is its one view"
    assert found["p_auroc"] is None
    assert found["reasons"]["p_auroc"]
    capsys.readouterr()
    assert run(["sweep", "missing-views", str(runs / "v1")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("one camera, and without it nothing to score: the sweep is the evaluation")
    assert "Shapley" not in said


def cameras_of(src: Path, out: Path, pattern: str | None = "{sample}_{view}") -> dict[int, str]:
    return import_folder(ImportRequest(src, out, size=32), pattern=pattern).cameras


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([f"cam{n}" for n in range(1, 13)], {n: f"cam{n}" for n in range(1, 13)}),
        (["C2", "C5"], {2: "C2", 5: "C5"}),
        (["cam0", "cam10", "cam9"], {1: "cam0", 2: "cam9", 3: "cam10"}),
        (["Top", "left", "right"], {1: "left", 2: "right", 3: "Top"}),
    ],
)
def test_cameras_are_numbered_as_their_names_tell(
    tmp_path: Path, names: list[str], expected: dict[int, str]
) -> None:
    for name in names:
        save(tmp_path / "src" / "mug" / "train" / "good" / f"000_{name}.png", pixels(0))
    assert cameras_of(tmp_path / "src", tmp_path / "out") == expected


def test_names_that_tell_cameras_need_a_pattern(tmp_path: Path) -> None:
    for name in ("mug_0001_C1", "mug_0001_C2"):
        save(tmp_path / "src" / "mug" / "train" / "good" / f"{name}.png", pixels(0))
    with pytest.raises(DatasetError, match="views of cameras 1 and 2 of one sample; say so with --pattern"):
        cameras_of(tmp_path / "src", tmp_path / "out", None)
    assert cameras_of(tmp_path / "src", tmp_path / "out") == {1: "C1", 2: "C2"}


def test_hidden_files_are_no_photographs_and_what_is_not_read_is_said(mug: Path, tmp_path: Path) -> None:
    good = mug / "mug" / "train" / "good"
    save(good / "__MACOSX" / "000.png", pixels(0))
    (good / "._000.png").write_bytes(b"\0")
    (good / "x.heic").write_bytes(b"\0")
    save(good / "y.png", pixels(7))
    (good / "y.png").rename(good / "y.jfif")
    summary = import_folder(ImportRequest(mug, tmp_path / "out", size=32))
    assert summary.train_samples == 4
    assert summary.left_out is not None
    assert summary.left_out.startswith("1 pictures or linked folders are not read (.heic)")


@pytest.mark.parametrize("name", ["ok", "Good", "GOOD", "normal"])
def test_a_folder_of_normal_samples_is_no_defect(mug: Path, tmp_path: Path, name: str) -> None:
    save(mug / "mug" / "test" / name / "x.png", pixels(1))
    with pytest.raises(DatasetError, match="name the folder of normal samples 'good', in lower case"):
        import_folder(ImportRequest(mug, tmp_path / "out", size=32))


def test_masks_of_another_spelling_or_of_no_defect_are_refused(mug: Path, tmp_path: Path) -> None:
    masks = mug / "mug" / "ground_truth"
    (masks / "big chip").rename(masks / "Big chip")
    with pytest.raises(DatasetError, match="expected the same spelling as"):
        import_folder(ImportRequest(mug, tmp_path / "out", size=32))
    (masks / "Big chip").rename(masks / "crack")
    with pytest.raises(DatasetError, match=r"masks of a defect that .* does not have"):
        import_folder(ImportRequest(mug, tmp_path / "out", size=32))


def test_the_layout_of_loco_is_refused_with_the_way_out(mug: Path, tmp_path: Path) -> None:
    masks = mug / "mug" / "ground_truth" / "big chip"
    (masks / "000").mkdir()
    (masks / "000_mask.png").rename(masks / "000" / "000.png")
    with pytest.raises(DatasetError, match=r"as in MVTec LOCO AD: merge them into one mask .*000\.png"):
        import_folder(ImportRequest(mug, tmp_path / "out", size=32))


def test_long_names_of_category_defect_and_sample_fit_into_a_file_name(tmp_path: Path) -> None:
    category, defect, sample = "c" * 100, "d" * 100, "s" * 120
    save(tmp_path / "src" / category / "train" / "good" / f"{sample}.png", pixels(0))
    save(tmp_path / "src" / category / "test" / defect / f"{sample}.png", pixels(1))
    mark(tmp_path / "src" / category / "ground_truth" / defect / f"{sample}.png")
    assert import_folder(ImportRequest(tmp_path / "src", tmp_path / "out", size=32)).test_samples == 1
    assert [s.anomaly_class for s in read(tmp_path / "out")] == ["OK", defect]
