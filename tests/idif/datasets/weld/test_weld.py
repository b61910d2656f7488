"""Weld runs: the manifest, damaged and hostile files, the check, and what synthetic runs show."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from idif.data.index import NORMAL_CLASS
from idif.data.media import read_frames, read_series, read_sound
from idif.datasets.weld.check import check_weld
from idif.datasets.weld.manifest import read_manifest
from idif.datasets.weld.reader import read_weld
from idif.datasets.weld.synthetic.camera import render_video
from idif.datasets.weld.synthetic.dataset import SynthWeldRequest, synthesize_weld
from idif.datasets.weld.synthetic.plan import SHOWS, RunPlan, plan_runs
from idif.datasets.weld.synthetic.process import simulate
from idif.datasets.weld.synthetic.sensors import sensor_text
from idif.datasets.weld.synthetic.sound import render_sound
from idif.datasets.weld.synthetic.stills import render_stills
from idif.encoders.weld.sensors import SENSOR_COLUMNS
from idif.errors import ConfigError, DatasetError
from tests.helpers.tiny_weld import TINY, make_tiny_weld

RUN = "run_0003"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weld") / "data"
    make_tiny_weld(root)
    return root


@pytest.fixture
def root(runs: Path, tmp_path: Path) -> Path:
    """A copy of the runs that a test may damage."""
    return Path(shutil.copytree(runs, tmp_path / "data"))


def file(root: Path, suffix: str) -> Path:
    return root / RUN / f"{RUN}{suffix}"


def test_an_index_has_one_category_three_splits_and_the_runs_defects(runs: Path) -> None:
    index = read_weld(runs)
    assert index.categories == ("weld",)
    assert index.view_numbers == (1, 2, 3, 4, 5)
    by_split = {split: [s for s in index.samples if s.split == split] for split in ("train", "val", "test")}
    assert [len(samples) for samples in by_split.values()] == [4, 2, 4]
    assert not any(sample.label for sample in by_split["train"])
    for split in ("val", "test"):
        assert {sample.label for sample in by_split[split]} == {False, True}
    defective = next(sample for sample in index.samples if sample.label)
    assert defective.anomaly_class in SHOWS
    assert not any(defective.labels)
    assert set(defective.inputs) == {"video", "audio", "sensor"}
    assert [s.sample_id for s in read_weld(runs, "val").samples] == [s.sample_id for s in by_split["val"]]


def test_absent_inputs_are_recorded_and_nothing_takes_their_place(root: Path) -> None:
    file(root, ".avi").unlink()
    for still in sorted((root / RUN / "images").iterdir())[2:]:
        still.unlink()
    sample = next(s for s in read_weld(root).samples if s.sample_id == RUN)
    assert sample.inputs["video"] is None
    assert sample.present == (True, True, False, False, False)
    assert RUN not in {s.sample_id for s in read_weld(root, drop_incomplete=True).samples}
    report = check_weld(root)
    assert report.sound
    assert [w.message for w in report.warnings if w.run == RUN] == [
        "has no video; it is marked as absent",
        "has 2 stills, expected 5; the others are marked as absent",
    ]
    assert report.present["video"] == 9


def manifest(root: Path, change: Callable[[str], str]) -> None:
    path = root / "manifest.csv"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text + text.splitlines()[1].replace("TRAIN", "TEST") + "\n", "is in train and test"),
        (lambda text: text + text.splitlines()[1] + "\n", "twice in train"),
        (lambda text: text.replace("TRAIN", "DEV"), "SPLIT: expected TRAIN, VAL, TEST, got 'DEV'"),
        (lambda text: text.replace("SUBDIRS", "FOLDER"), "expected a value in the column SUBDIRS"),
        (lambda text: text.replace("run_0001", "../run_0001"), "stays inside its folder"),
        (lambda text: text.splitlines()[0] + "\n", "names no run"),
        (lambda text: text.replace("run_0001", "run_9999"), "there is no such folder"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(
    root: Path, change: Callable[[str], str], message: str
) -> None:
    manifest(root, change)
    with pytest.raises(DatasetError, match=message):
        read_weld(root)


def test_names_of_defects_are_those_of_the_real_set(root: Path) -> None:
    manifest(root, lambda text: text.replace("\ngood", "\nGood", 1).replace("\ngood", "\nCrater Cracks", 1))
    assert [run.defect for run in read_manifest(root)[:2]] == [NORMAL_CLASS, "crater_cracks"]


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def resample(path: Path) -> None:
    sound, _ = soundfile.read(path)
    soundfile.write(path, sound, 44_100, format="FLAC")


def stereo(path: Path) -> None:
    sound, rate = soundfile.read(path)
    soundfile.write(path, np.stack([sound, sound], axis=1), rate, format="FLAC")


def scramble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + 500] = b"\xff" * 500
    path.write_bytes(bytes(content))


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def spoil_value(text: str) -> str:
    lines = text.splitlines()
    values = lines[2].split(",")
    values[lines[0].split(",").index("Feed")] = "nan"
    lines[2] = ",".join(values)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("suffix", "damage", "message"),
    [
        (".avi", lambda path: cut(path, 0.5), "is cut; its header says"),
        (".avi", lambda path: path.write_bytes(b""), "is empty"),
        (".avi", lambda path: path.write_bytes(b"no video" * 99), "expected a video"),
        (".flac", resample, "expected 16000 samples per second, got 44100"),
        (".flac", stereo, "expected one channel, got 2"),
        (".flac", lambda path: cut(path, 0.5), "cannot be read as sound|is cut"),
        (".flac", scramble, "cannot be read as sound|is cut"),
        (".csv", lambda path: path.write_bytes(b""), "is empty"),
        (".csv", lambda path: edit(path, lambda text: text.splitlines()[0]), "but no row"),
        (
            ".csv",
            lambda path: edit(path, spoil_value),
            "line 3: column 'Feed' holds 'nan', expected a number",
        ),
        (
            ".csv",
            lambda path: edit(path, lambda text: text.replace("Feed", "Fed")),
            "column 'Feed' is missing",
        ),
        (".csv", lambda path: path.write_bytes(b"\xff\xfe\x00"), "cannot be read as CSV"),
    ],
)
def test_a_damaged_file_is_told_in_one_sentence(
    root: Path, suffix: str, damage: Callable[[Path], object], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(file(root, suffix))
    report = check_weld(root)
    assert not report.sound
    (error,) = report.errors
    assert error.run == RUN
    assert "\n" not in error.message
    with pytest.raises(DatasetError, match=message) as raised:
        {
            ".avi": lambda path: read_frames(path, 4, 32),
            ".flac": read_sound,
            ".csv": lambda path: read_series(path, SENSOR_COLUMNS),
        }[suffix](file(root, suffix))
    assert str(raised.value) == error.message
    assert capfd.readouterr().err == ""


def test_a_copied_run_is_an_error(root: Path) -> None:
    last = f"run_{TINY.runs:04d}"
    shutil.copy(file(root, ".avi"), root / last / f"{last}.avi")
    (error,) = check_weld(root).errors
    assert "is a copy of" in error.message
    assert error.message.endswith("the runs are in test and train")


def test_columns_are_found_by_name_in_any_order(root: Path) -> None:
    path = file(root, ".csv")
    before = read_series(path, SENSOR_COLUMNS)
    lines = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("\n".join(", ".join(reversed(line)).upper() for line in lines), encoding="utf-8")
    assert np.array_equal(read_series(path, SENSOR_COLUMNS), before)


def test_equal_requests_give_equal_bytes(runs: Path, tmp_path: Path) -> None:
    synthesize_weld(tmp_path / "again", TINY, workers=2)
    files = sorted(path.relative_to(runs) for path in runs.rglob("*") if path.is_file())
    assert len(files) == 1 + TINY.runs * 8
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (runs / name).read_bytes(), name


def test_what_cannot_be_written_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected an empty folder"):
        synthesize_weld(runs, TINY)
    with pytest.raises(ConfigError, match="at least 8, got 7"):
        synthesize_weld(tmp_path, SynthWeldRequest(runs=7))


def rendered(plan: RunPlan) -> dict[str, bytes]:
    return {
        "video": render_video(plan, 0.8, 48).tobytes(),
        "audio": render_sound(plan, 0.8).tobytes(),
        "sensor": sensor_text(plan, 0.8).encode(),
        "stills": b"".join(picture.tobytes() for picture in render_stills(plan, 48)),
    }


@pytest.mark.parametrize("defect", SHOWS)
def test_a_defect_shows_in_its_inputs_and_in_no_other(defect: str) -> None:
    good = plan_runs(10, 0)[0]
    without, with_it = rendered(good), rendered(replace(good, defect=defect))
    assert {name for name in without if without[name] != with_it[name]} == SHOWS[defect]


def test_the_process_obeys_the_relations_of_short_circuit_welding() -> None:
    plan = plan_runs(10, 0)[0]
    good = simulate(plan, frozenset(), 6.0)
    low = simulate(plan, frozenset({"excessive_convexity"}), 6.0)
    hot = simulate(plan, frozenset({"excessive_penetration"}), 6.0)
    leak = simulate(plan, frozenset({"porosity"}), 6.0)
    assert len(low.shorts) > len(good.shorts)  # a lower voltage means a shorter arc
    assert hot.current.mean() > 1.05 * good.current.mean()  # more wire is burned off by more current
    assert hot.heat.mean() > good.heat.mean()
    assert leak.gas.min() < 0.7 * good.gas.min()
    assert abs(good.current[good.arc > 0].mean() / plan.setting.current_a - 1) < 0.15
    assert not good.current[good.arc == 0].any()
