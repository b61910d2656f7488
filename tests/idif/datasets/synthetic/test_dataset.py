"""The rendered dataset: layout, repeatability, masks against unspoilt twins, geometry."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

from idif.datasets.synthetic import RIG, SynthRequest, synthesize
from idif.datasets.synthetic.camera_rig import FIELD_OF_VIEW, TablePose, place_camera
from idif.datasets.synthetic.catalog import BUILDERS
from idif.datasets.synthetic.defects import CONSTRUCTION, KINDS, SURFACE
from idif.datasets.synthetic.distance_volume import DistanceVolume
from idif.datasets.synthetic.part_model import TABLE, Fault
from idif.datasets.synthetic.ray_tracer import DepthRenderer
from idif.datasets.synthetic.sample_renderer import SampleRenderer
from idif.datasets.synthetic.sample_specs import LEVELS, SampleSpec, kinds_for, level_for
from idif.datasets.synthetic.scene import trace_views
from idif.datasets.synthetic.shading import Light, Scene
from idif.errors import DatasetError
from tests.helpers.tiny_data import tree

SIZE = 64
SMALL: dict[str, Any] = {"categories": 2, "train": 1, "test": 4, "size": SIZE}


@pytest.fixture(scope="module")
def dataset(renderer: SampleRenderer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synth") / "data"
    synthesize(root, SynthRequest(**SMALL))
    return root


def entries(root: Path, category: str, split: str) -> list[dict[str, str]]:
    annotations = json.loads((root / "realiad_jsons" / f"{category}.json").read_text(encoding="utf-8"))
    listed: list[dict[str, str]] = annotations[split]
    return listed


def test_layout_is_that_of_real_iad(dataset: Path) -> None:
    listed = {"synth.json"}
    for category in ("gear", "terminal_block"):
        listed |= {f"realiad_jsons/{category}.json", f"defects/{category}.json"}
        sheet = json.loads((dataset / "realiad_jsons" / f"{category}.json").read_text(encoding="utf-8"))
        assert sheet["meta"] == {"prefix": f"{category}/", "normal_class": "OK"}
        assert len(sheet["train"]) == 5
        assert len(sheet["test"]) == 20
        assert {e["anomaly_class"] for e in sheet["train"]} == {"OK"}
        for entry in sheet["train"] + sheet["test"]:
            assert entry["category"] == category
            folder = f"realiad_{SIZE}/{category}"
            pattern = rf"(OK|NG/([A-Z]{{2}}))/S(\d{{4}})/{category}_\3_(OK|NG_\2)_C([1-5])_\d{{14}}\.jpg"
            assert re.fullmatch(pattern, entry["image_path"]), entry
            listed.add(f"{folder}/{entry['image_path']}")
            with Image.open(dataset / folder / entry["image_path"]) as image:
                assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (SIZE, SIZE))
            assert (entry["mask_path"] is None) == (entry["anomaly_class"] == "OK")
            if entry["mask_path"] is not None:
                assert entry["mask_path"] == entry["image_path"].replace(".jpg", ".png")
                listed.add(f"{folder}/{entry['mask_path']}")
                with Image.open(dataset / folder / entry["mask_path"]) as mask:
                    assert (mask.format, mask.mode, mask.size) == ("PNG", "L", (SIZE, SIZE))
                    assert set(np.unique(np.asarray(mask)).tolist()) == {0, 255}
    assert set(tree(dataset)) == listed


def test_half_of_the_test_samples_are_anomalous_and_shown_by_at_least_one_view(dataset: Path) -> None:
    summary = synthesize(dataset, SynthRequest(**SMALL))
    anomalous = 0
    for category in summary.categories:
        samples: dict[str, list[str]] = {}
        for entry in entries(dataset, category, "test"):
            samples.setdefault(entry["image_path"].rsplit("/", 1)[0], []).append(entry["anomaly_class"])
        assert len(samples) == 4
        for folder, classes in samples.items():
            assert len(classes) == 5
            shown = {name for name in classes if name != "OK"}
            assert bool(shown) == folder.startswith("NG/")
            if shown:
                assert folder.split("/")[1] in shown
                anomalous += 1
    assert anomalous == summary.anomalous == 4
    assert summary.views == 2 * 5 * 5


def test_same_call_same_bytes_also_in_a_fresh_process_that_may_train_then(
    renderer: SampleRenderer, tmp_path: Path
) -> None:
    tiny: dict[str, Any] = {"categories": 1, "train": 1, "test": 2, "size": SIZE}
    for name in ("one", "two"):
        synthesize(tmp_path / name, SynthRequest(**tiny))
    code = (
        "import sys; from pathlib import Path; from idif.datasets.synthetic import SynthRequest, synthesize; "
        f"synthesize(Path(sys.argv[1]), SynthRequest(**{tiny!r})); "
        "import torchvision"  # as training does; its triton could crash after OpenGL
    )
    command = [sys.executable, "-c", code, str(tmp_path / "three")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""  # no complaint of VTK about a missing display either
    assert tree(tmp_path / "one") == tree(tmp_path / "two") == tree(tmp_path / "three")


def test_more_samples_keep_the_first_and_another_seed_changes_them(dataset: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / "more", SynthRequest(categories=1, train=2, test=4, size=SIZE))
    first, more = (
        tree(dataset / f"realiad_{SIZE}" / "gear"),
        tree(tmp_path / "more" / f"realiad_{SIZE}" / "gear"),
    )
    assert set(first) < set(more)
    assert all(more[name] == data for name, data in first.items())
    synthesize(tmp_path / "other", SynthRequest(categories=1, train=1, test=0, size=SIZE, seed=1))
    other = tree(tmp_path / "other" / f"realiad_{SIZE}" / "gear")
    assert all(first[name] != data for name, data in other.items())


def test_finished_call_is_not_repeated_and_nothing_else_is_overwritten(dataset: Path, tmp_path: Path) -> None:
    before = tree(dataset)
    assert not synthesize(dataset, SynthRequest(**SMALL)).rendered
    with pytest.raises(DatasetError, match="other settings"):
        synthesize(dataset, SynthRequest(**{**SMALL, "seed": 5}))
    assert tree(dataset) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("three years", encoding="utf-8")
    with pytest.raises(DatasetError, match="mine"):
        synthesize(tmp_path / "mine", SynthRequest(**SMALL))
    with pytest.raises(DatasetError, match=r"thesis\.txt"):
        synthesize(tmp_path / "mine" / "thesis.txt", SynthRequest(**SMALL))
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]


def test_interrupted_call_leaves_nothing_that_could_be_trusted(
    renderer: SampleRenderer, tmp_path: Path
) -> None:
    def stop(done: int, total: int, what: str = "") -> None:
        if done == 2:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        synthesize(out, SynthRequest(**SMALL), progress=stop)
    assert list(tmp_path.iterdir()) == []
    # A killed process cannot clean up: what it left must not end up in the next dataset.
    litter = tmp_path / ".out.partial" / f"realiad_{SIZE}"
    litter.mkdir(parents=True)
    (litter / "half.jpg").write_bytes(b"")
    out.mkdir()
    summary = synthesize(out, SynthRequest(categories=1, train=1, test=0, size=32))
    assert summary.rendered
    assert not any(name.endswith("half.jpg") for name in tree(out))
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    "wrong",
    [
        {"categories": 0},
        {"categories": 99},
        {"train": -1},
        {"test": 5000},
        {"size": 8},
        {"seed": -1},
        {"train": 0, "test": 0},
    ],
)
def test_impossible_requests_name_the_argument(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=next(iter(wrong))):
        synthesize(tmp_path / "out", SynthRequest(**{**SMALL, **wrong}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="VTK's off-screen window is chosen by variable on Linux"
)
def test_without_opengl_the_message_names_the_packages(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from idif.datasets.synthetic import SynthRequest, synthesize; "
        "from idif.errors import CannotFinish\n"
        "try:\n    synthesize(Path(sys.argv[1]), SynthRequest(categories=1, train=1, test=0, size=32))\n"
        "except CannotFinish as error:\n    print(error)\n    sys.exit(3)\n"
    )
    environment = {**os.environ, "VTK_DEFAULT_OPENGL_WINDOW": "vtkOSOpenGLRenderWindow"}
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode == 0:
        pytest.skip("this machine has OSMesa")
    assert done.returncode == 3, done.stderr
    assert "libegl1" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("category", "kind"),
    [
        ("gear", "AK"),
        ("terminal_block", "HS"),
        ("circuit_board", "QS"),
        ("bolt", "BX"),
        ("bolt", "YW"),
        ("bottle_cap", "WP"),
        ("bottle_cap", "PS"),
        ("bearing", "ZW"),
        ("cooling_fan", "QS"),
        ("emergency_stop", "HS"),
        ("hinge", "WP"),
        ("spring", "YW"),
    ],
)
def test_mask_is_where_the_picture_differs_from_its_unspoilt_twin(
    renderer: SampleRenderer, category: str, kind: str
) -> None:
    spec = SampleSpec(3, category, "test", 1, (kind,), "medium")
    # Pose, light, materials and sensor noise do not depend on the defect: only the defect tells them apart.
    clean, defective = renderer.render(replace(spec, kinds=())), renderer.render(spec)
    assert clean.classes == ("OK",) * 5
    assert not clean.masks.any()
    assert set(defective.classes) <= {"OK", kind}
    assert kind in defective.classes
    difference = np.abs(clean.images.astype(int) - defective.images).max(-1)
    for view, name in enumerate(defective.classes):
        mask = defective.masks[view]
        assert (name == "OK") == (not mask.any())
        around = binary_dilation(mask, iterations=2)
        changed = difference[view] > 20
        if name == "OK":
            assert changed.sum() < 40
        else:
            assert (difference[view][mask] > 5).mean() > 0.5
            # Beside the mask only what the defect throws a shadow on may change.
            assert (changed & ~around).sum() <= 0.4 * mask.sum() + 30
            assert mask.mean() < 0.35


def test_every_category_can_show_every_kind_and_kinds_take_turns() -> None:
    assert set(KINDS) == {*CONSTRUCTION, *SURFACE}
    assert len(BUILDERS) >= 12
    assert len(KINDS) >= 8
    given = [kinds_for(0, "gear", number) for number in range(96)]
    assert all(kinds == () for kinds in given[::2])
    defective = given[1::2]
    counts = {kind: sum(kind in kinds for kinds in defective) for kind in KINDS}
    assert min(counts.values()) >= 4
    assert max(counts.values()) <= 10
    pairs = [kinds for kinds in defective if len(kinds) == 2]
    assert len(pairs) == 8
    assert all(first in CONSTRUCTION and second in SURFACE for first, second in pairs)
    single = [(number, kinds_for(0, "gear", number)) for number in range(1, 144, 2)]
    met = {(kinds[0], level_for(0, "gear", number)) for number, kinds in single if len(kinds) == 1}
    assert met == {(kind, level) for kind in KINDS for level in LEVELS}


@pytest.mark.parametrize("category", BUILDERS)
def test_distances_are_float32_and_never_overstated_much(category: str) -> None:
    """A sphere tracer passes through walls where a field grows faster than the way walked."""
    faults = [None, *(Fault(kind, 0.7, np.random.default_rng(1)) for kind in CONSTRUCTION)]
    rng = np.random.default_rng(0)
    for fault in faults:
        part = BUILDERS[category](np.random.default_rng(0), fault)
        p = rng.uniform((-1.1, -1.1, 0), (1.1, 1.1, part.height + 0.1), (20000, 3)).T.astype(np.float32)
        step = rng.normal(size=p.shape)
        step = (0.01 * step / np.linalg.norm(step, axis=0)).astype(np.float32)
        before, after = part.distance(p), part.distance(p + step)
        assert before.dtype == after.dtype == np.float32
        slope = np.abs(after - before) / 0.01
        assert np.quantile(slope[before > 0], 0.999) < 1.25


@pytest.mark.parametrize("category", BUILDERS)
def test_what_is_missing_leaves_nothing_new_behind(category: str) -> None:
    rng = np.random.default_rng(0)
    whole = BUILDERS[category](np.random.default_rng(0), None)
    p = rng.uniform((-1.2, -1.2, 0), (1.2, 1.2, whole.height + 0.1), (30000, 3)).T.astype(np.float32)
    before = whole.distance(p)
    for severity, seed in ((0.1, 0), (0.5, 1), (0.5, 2), (0.95, 3), (0.95, 4)):
        part = BUILDERS[category](
            np.random.default_rng(0), Fault("QS", severity, np.random.default_rng(seed))
        )
        after = part.distance(p)
        assert not ((before > 0.01) & (after < -0.002)).any()
        assert ((before < -0.002) & (after > 0.005)).any()


@pytest.mark.parametrize("category", ["gear", "circuit_board"])
def test_rasterised_start_finds_what_patient_tracing_finds(renderer: SampleRenderer, category: str) -> None:
    size = 48
    part = BUILDERS[category](np.random.default_rng(2), None)
    pose = TablePose(5.0, (0.02, -0.01))
    scene = Scene(part, DistanceVolume(part), pose, Light(55, 52, 1.2, 0.8), np.zeros((3, 1), np.float32))
    # The mesh from which rays start must lie outside the part all around.
    outside = part.distance(np.asarray(scene.volume.proxy().points, np.float32).T)
    assert outside.min() > 0.0
    with DepthRenderer(len(RIG), size) as raster:
        hits = trace_views(scene, raster, RIG)
    pixels = np.arange(5 * size * size, dtype=np.int32)
    origins, rays = hits.cameras.rays(pixels)
    stride = np.linalg.norm(rays, axis=0)
    t = np.full(len(pixels), 3.0, np.float32)
    floor = -origins[2] / rays[2]
    stopped = np.zeros(len(t), bool)
    for _ in range(400):
        distance = part.distance(origins + rays * t)
        stopped |= (distance < 0.001) | (t >= floor)
        t = np.where(stopped, t, t + 0.7 * np.maximum(distance, 0.001) / stride)
    on_table = t >= floor
    agree = on_table == (hits.component == TABLE)
    assert agree.mean() > 0.997
    both = agree & ~on_table
    assert both.sum() > 1000
    assert np.quantile(np.abs(t - hits.depth)[both], 0.99) < 0.01


def test_cameras_stand_where_the_rig_says() -> None:
    assert [camera.number for camera in RIG] == [1, 2, 3, 4, 5]
    assert RIG[0].elevation == 90
    assert [camera.azimuth for camera in RIG[1:]] == [0, 90, 180, 270]
    for camera in RIG:
        placed = place_camera(camera, TablePose(0.0, (0.0, 0.0)), 1.0, 0.5)
        axes = np.concatenate([placed.right, placed.up, placed.forward], axis=1)
        assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-6)
        assert np.allclose(
            np.cross(placed.right[:, 0], placed.up[:, 0]),
            -placed.forward[:, 0],
            atol=1e-6,
        )
        e, a = np.radians(camera.elevation), np.radians(camera.azimuth)
        toward = np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
        assert np.allclose(-placed.forward[:, 0], toward, atol=1e-6)
        # The middle of the part lands within the framing error of the image's middle.
        q = np.array([0.0, 0.0, 0.21]) - placed.position[:, 0]
        depth = q @ placed.forward[:, 0]
        reach = depth * np.tan(np.radians(FIELD_OF_VIEW / 2))
        assert abs(q @ placed.right[:, 0] / reach) < 0.03
        assert abs(q @ placed.up[:, 0] / reach) < 0.03
    # A sample turned by a quarter shows camera C2 what C3 saw of it before.
    turned = place_camera(replace(RIG[2], number=2), TablePose(0.0, (0.0, 0.0)), 1.0, 0.5)
    other = place_camera(replace(RIG[2], azimuth=0.0), TablePose(-90.0, (0.0, 0.0)), 1.0, 0.5)
    assert np.allclose(turned.position, other.position, atol=1e-5)
