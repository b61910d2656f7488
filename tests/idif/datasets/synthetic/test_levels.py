"""The rendered dataset as a benchmark: levels of difficulty, visibility per view, several processes."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.__main__ import run
from idif.datasets.checks.dataset import check_dataset
from idif.datasets.realiad.files import RealIADLayout
from idif.datasets.synthetic import RIG, SynthRequest, render_workers, synthesize
from idif.datasets.synthetic.camera_rig import TablePose
from idif.datasets.synthetic.distance_volume import DistanceVolume
from idif.datasets.synthetic.materials import BLACK, RED
from idif.datasets.synthetic.part_model import Component, Mark, Part
from idif.datasets.synthetic.ray_tracer import DepthRenderer
from idif.datasets.synthetic.sample_renderer import SampleRenderer
from idif.datasets.synthetic.sample_specs import LEVELS, SampleSpec, specs_for_split
from idif.datasets.synthetic.scene import trace_views
from idif.datasets.synthetic.sdf import Points, Values, extrude, length, rectangle
from idif.datasets.synthetic.shading import Light, Scene
from idif.datasets.synthetic.visibility import visible_shares
from idif.errors import CannotFinish, DatasetError
from tests.helpers.tiny_data import tree

SIZE = 64
REQUEST: dict[str, Any] = {"categories": 1, "train": 10, "test": 12, "size": SIZE, "seed": 2}


@pytest.fixture(scope="module")
def dataset(renderer: SampleRenderer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("levels") / "data"
    synthesize(root, SynthRequest(**REQUEST))
    return root


@pytest.mark.parametrize(
    ("category", "kind"),
    [
        ("gear", "AK"),
        ("terminal_block", "HS"),
        ("bolt", "PS"),
        ("bottle_cap", "ZW"),
        ("hinge", "YW"),
        ("ball_valve", "QS"),
        ("battery_holder", "WP"),
        ("spring", "BX"),
    ],
)
def test_the_harder_the_level_the_less_is_to_be_seen(
    renderer: SampleRenderer, category: str, kind: str
) -> None:
    """The same defect at the same place, three sizes: the difference to the unspoilt twin, summed over its
    mask, falls from level to level."""
    evidence = []
    for level in LEVELS:
        rendered = renderer.render(SampleSpec(7, category, "test", 0, (kind,), level))
        areas = rendered.masks.sum((1, 2))
        evidence.append(float((areas * np.array(rendered.contrast)).sum()))
    easy, medium, hard = evidence
    assert easy > 1.15 * medium
    assert medium > 1.15 * hard > 0


def test_the_level_is_recorded_and_chosen(dataset: Path, tmp_path: Path) -> None:
    sheet = json.loads((dataset / "synth.json").read_text(encoding="utf-8"))
    samples = json.loads((dataset / "defects" / "gear.json").read_text(encoding="utf-8"))["samples"]
    assert sheet["request"]["difficulty"] == "mixed"
    assert sheet["anomalous_by_difficulty"] == {"easy": 2, "medium": 2, "hard": 2}
    asked = [o for o in specs_for_split(2, "gear", "test", 12, "mixed") if o.kinds]
    assert [(s["difficulty"], s["kinds"]) for s in samples] == [(o.level, list(o.kinds)) for o in asked]
    for sample in samples:
        low, high = sheet["severities"][sample["difficulty"]]
        assert all(low <= severity <= high for severity in sample["severities"])
    assert {o.level for o in specs_for_split(0, "gear", "test", 9, "hard")} == {"hard"}
    with pytest.raises(DatasetError, match="difficulty"):
        synthesize(tmp_path / "out", SynthRequest(**REQUEST, difficulty="brutal"))  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="other settings"):
        synthesize(dataset, SynthRequest(**REQUEST, difficulty="hard"))


def test_visibility_agrees_with_labels_and_masks(dataset: Path) -> None:
    sheet = json.loads((dataset / "realiad_jsons" / "gear.json").read_text(encoding="utf-8"))
    listed: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in sheet["test"]:
        place_camera, name = entry["image_path"].rsplit("/", 1)
        listed.setdefault(f"gear/{place_camera}", {})[name.split("_C")[1][0]] = entry
    samples = json.loads((dataset / "defects" / "gear.json").read_text(encoding="utf-8"))["samples"]
    assert {s["sample"] for s in samples} == {
        place_camera for place_camera in listed if place_camera.startswith("gear/NG/")
    }
    hidden = 0
    for sample in samples:
        assert set(sample["views"]) == set("12345")
        for number, view in sample["views"].items():
            entry = listed[sample["sample"]][number]
            assert view["class"] == entry["anomaly_class"]
            assert 0 <= view["visible"] <= 1
            if view["class"] == "OK":
                hidden += 1
                assert entry["mask_path"] is None
                assert view["mask_pixels"] == view["contrast"] == 0
            else:
                assert view["class"] in sample["kinds"]
                assert view["visible"] > 0
                with Image.open(dataset / f"realiad_{SIZE}" / "gear" / entry["mask_path"]) as mask:
                    assert np.count_nonzero(np.asarray(mask)) == view["mask_pixels"] > 0
    assert hidden > 0


def test_the_dataset_is_sound(dataset: Path) -> None:
    report = check_dataset(RealIADLayout(dataset, images=f"realiad_{SIZE}"))
    assert report.sound, report.errors
    assert {finding.kind for finding in report.warnings} <= {"near_duplicate"}


def ball(marked: Mark | None, wall: bool) -> Scene:
    """A ball of half a unit on the table, with a wall towards C2 if asked for."""

    def solid(p: Points) -> Values:
        return length(p - np.array([[0.0], [0.0], [0.5]], np.float32)) - 0.5

    def screen(p: Points) -> Values:
        return extrude(rectangle(p[0] - 0.85, p[1], 0.05, 0.9), p[2], 0.0, 1.4, 0.01)

    pieces = [Component("ball", solid, RED)]
    if wall:
        pieces.append(Component("wall", screen, BLACK))
    marks = () if marked is None else (marked,)
    part = Part(tuple(pieces), radius=1.0, height=1.45, table=(0.5, 0.5, 0.5), marks=marks)
    return Scene(
        part,
        DistanceVolume(part),
        TablePose(0.0, (0.0, 0.0)),
        Light(55, 52, 1, 1),
        np.zeros((3, 1), np.float32),
    )


def shares(weight: Mark, wall: bool) -> tuple[float, ...]:
    with DepthRenderer(len(RIG), 128) as raster:
        before, after = (trace_views(ball(mark, wall), raster, RIG) for mark in (None, weight))
    return visible_shares(before, after, None, np.random.default_rng(0))


def test_visible_share_is_that_of_a_ball_seen_from_afar(renderer: SampleRenderer) -> None:
    def everywhere(p: Points) -> Values:
        return np.where(length(p - np.array([[0.0], [0.0], [0.5]], np.float32)) < 0.55, 1.0, 0.0)

    whole = Mark(everywhere, (1.0, 1.0, 1.0), 0.5, 0.0)
    # From a distance d a ball of radius r shows the cap (1 - r / d) / 2 of itself.
    for share, camera in zip(shares(whole, wall=False), RIG, strict=True):
        assert share == pytest.approx((1 - 0.5 / camera.distance) / 2, abs=0.03)

    def right(p: Points) -> Values:
        shown: Values = everywhere(p) * (p[0] > 0.4)
        return shown

    patch = replace(whole, weight=right)
    c1, c2, c3, c4, c5 = shares(patch, wall=False)
    assert c4 == 0  # looks at the other side
    assert c2 > 0.75
    assert min(c1, c3, c5) > 0
    walled = shares(patch, wall=True)
    assert walled[1] < 0.05 < c2  # C2 looks at the wall
    assert walled[3] == 0


@pytest.mark.long
def test_several_processes_write_the_same_bytes(
    renderer: SampleRenderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render_workers, "_MIN_SPECS_PER_WORKER", 1)
    asked = [
        *specs_for_split(0, "hinge", "train", 1, "mixed"),
        *specs_for_split(0, "bolt", "test", 4, "mixed"),
    ]
    written = []
    for workers in (1, 2):
        root = tmp_path / str(workers)
        root.mkdir()
        written.append(list(render_workers.write_samples(asked, 48, root, workers)))
    assert written[0] == written[1]
    assert [len(sample.entries) for sample in written[0]] == [5] * 5
    assert tree(tmp_path / "1") == tree(tmp_path / "2")
    assert not multiprocessing.active_children()

    (tmp_path / "3").mkdir()
    dying = render_workers.write_samples(
        [*specs_for_split(0, "hinge", "train", 40, "mixed")], 48, tmp_path / "3", 2
    )
    next(dying)
    for child in multiprocessing.active_children():
        child.kill()
    with pytest.raises(CannotFinish, match="died"):
        list(dying)


def test_the_command_takes_level_and_processes(
    renderer: SampleRenderer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "synth", str(tmp_path / "d"), "--categories=1", "--train=1", "--test=2", "--size=64"]
    assert run([*command, "--difficulty=hard", "--workers=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["levels"] == {"easy": 0, "medium": 0, "hard": 1}
    assert run([*command, "--difficulty=easy"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert run([*command, "--difficulty=brutal"]) == 2
    assert run([*command, "--workers=0"]) == 2
