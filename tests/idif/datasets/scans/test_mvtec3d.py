"""MVTec 3D-AD's importer: geometry against scenes of known shape, and what can go wrong on disk."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from idif.datasets.realiad.files import RealIADLayout
from idif.datasets.realiad.reader import read_realiad
from idif.datasets.realiad.writer import ImportRequest
from idif.datasets.scans import importer, mvtec3d
from idif.datasets.scans.cameras import Scan, fit_cameras, place_cameras, prepare_scan, render_views
from idif.datasets.scans.importer import label_views
from idif.datasets.scans.mvtec3d import import_mvtec3d, list_scans, read_cloud, read_scan
from idif.datasets.scans.point_cloud import Floats, close_holes, drop_flying, find_table, keep_object
from idif.datasets.scans.pose import Pose
from idif.datasets.scans.rasterizer import (
    FARTHEST,
    SUPERSAMPLING,
    paint,
    paint_depth,
    paint_mask,
    rasterize,
    tilted_camera,
    triangulate,
)
from idif.errors import DatasetError
from tests.helpers.tiny_data import tree

RED, GRAY = (200, 20, 20), (120, 130, 140)
Box = tuple[float, float, float, float, float]
"""x0, x1, y0, y1, height of a box on the table, metres."""

BAR: list[Box] = [(-0.03, 0.02, -0.01, 0.01, 0.01), (0.02, 0.03, -0.02, 0.02, 0.01)]
"""A hammer: a long handle and a cross piece at its +x end."""


def scan_boxes(
    boxes: list[Box], *, tilt: float = 0.0, turn: float = 0.0, grid: int = 160, spot: Box | None = None
) -> tuple[Floats, npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """A pinhole camera 0.6 m from the origin of a table, ``tilt`` off its normal; boxes turned by ``turn``.

    Returns the organised cloud (camera axes), RGB, and the mask of ``spot``, which is red on the boxes' tops.
    """
    # the camera's axes in table coordinates: x right, y down, z forward
    right = np.array([1.0, 0, 0])
    forward = np.array([0, np.sin(tilt), -np.cos(tilt)])
    down = np.cross(forward, right)
    eye = -0.6 * forward
    pixel = (np.arange(grid) - (grid - 1) / 2) / grid * 0.16
    u, v = np.meshgrid(pixel, pixel)
    rays = forward + u[..., None] * right + v[..., None] * down

    cos, sin = np.cos(turn), np.sin(turn)
    to_box = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    start, way = to_box @ eye, rays @ to_box.T
    way = np.where(np.abs(way) < 1e-12, 1e-12, way)
    reach = -start[2] / way[..., 2]
    on_box = np.zeros((grid, grid), bool)
    for x0, x1, y0, y1, height in boxes:
        low, high = (np.array([x0, y0, 0.0]) - start) / way, (np.array([x1, y1, height]) - start) / way
        enter, leave = np.minimum(low, high).max(-1), np.maximum(low, high).min(-1)
        hit = (enter < leave) & (enter < reach)
        reach, on_box = np.where(hit, enter, reach), on_box | hit
    points = reach[..., None] * np.stack([u, v, np.ones_like(u)], -1)
    place = start + reach[..., None] * way
    mask = np.zeros((grid, grid), bool)
    if spot is not None:
        x0, x1, y0, y1, _ = spot
        x, y = place[..., 0], place[..., 1]
        mask = on_box & (place[..., 2] > 0.005) & (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    rgb = np.where(on_box[..., None], np.array(GRAY), 10)
    rgb = np.where(mask[..., None], np.array(RED), rgb).astype(np.uint8)
    return points, rgb, mask


def prepared(**scene: object) -> Scan:
    return prepare_scan(*scan_boxes(BAR, **scene), remove_background=True)  # type: ignore[arg-type]


def covered(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    shown: npt.NDArray[np.bool_] = picture.max(2) > 60
    return shown


def test_the_table_is_found_and_its_frame_is_right_handed() -> None:
    points, _, _ = scan_boxes(BAR, tilt=0.35)
    points += np.random.default_rng(0).normal(0, 2e-4, points.shape)
    table = find_table(points)
    assert table is not None
    normal = np.array([0, -np.sin(0.35), -np.cos(0.35)])
    assert table.axes[2] @ normal > 0.9999
    np.testing.assert_allclose(table.axes @ table.axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(table.axes) == pytest.approx(1)
    heights = table.to_table(points)[..., 2]
    assert np.percentile(heights, 99.9) == pytest.approx(0.01, abs=1e-3)


def test_a_cloud_without_a_plane_has_no_table() -> None:
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, (40, 40, 3))
    assert find_table(noise) is None


@pytest.mark.parametrize("tilt", [0.0, 0.35])
def test_a_box_lands_on_the_pixels_that_its_size_says(tilt: float) -> None:
    box = (-0.03, 0.03, -0.015, 0.015, 0.01)
    points, rgb, mask = scan_boxes([box], tilt=tilt)
    table = find_table(points)
    assert table is not None
    mesh = triangulate(close_holes(table.to_table(keep_object(points, table))))
    top = np.nanmax(mesh.points[..., 2])
    assert top == pytest.approx(0.01, abs=1e-4)
    middle = np.append(np.nanmean(mesh.points[mesh.points[..., 2] > 0.0095], axis=0)[:2], 0.0)
    fragments = rasterize(mesh, np.eye(3), middle, 0.1, 100 * SUPERSAMPLING)
    seen = covered(paint(fragments, rgb.astype(np.float32), 0.0))
    rows, columns = np.nonzero(seen)
    # a pixel is a millimetre; the cloud has a point every 0.6 mm
    assert columns.min() == pytest.approx(20, abs=1.5)
    assert columns.max() == pytest.approx(79, abs=1.5)
    assert rows.min() == pytest.approx(35, abs=1.5)
    assert rows.max() == pytest.approx(64, abs=1.5)
    assert seen[37:63, 22:78].all()
    assert not paint_mask(fragments, mask).any()


def test_up_is_up_and_right_is_right() -> None:
    points, rgb, mask = scan_boxes(
        [(-0.02, 0.02, -0.02, 0.02, 0.01)], spot=(0.01, 0.03, 0.01, 0.03, 0), grid=120
    )
    picture_mask = render_plain(prepare_scan(points, rgb, mask, remove_background=True))[0][1]
    rows, columns = np.nonzero(picture_mask)
    assert rows.max() < 32 < columns.min()


def render_plain(scan: Scan, size: int = 64) -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]]:
    return render_views(scan, fit_cameras([scan], size=size, align=False, views=5))


def test_the_nearer_of_two_surfaces_is_seen() -> None:
    rows, columns = np.indices((30, 30)) * 1e-3
    low = np.stack([columns, rows, np.zeros_like(rows)], -1)
    both = np.concatenate([low, low + np.array([0.0, 0.0, 0.02])])
    fragments = rasterize(triangulate(both), np.eye(3), np.array([0.0145, 0.0145, 0]), 0.02, 20)
    assert np.nanmin(fragments.depth) == pytest.approx(0.02)
    below = rasterize(triangulate(both), tilted_camera(np.pi, 0.0), np.array([0.0145, 0.0145, 0]), 0.02, 20)
    assert np.nanmax(below.depth) == pytest.approx(0.0, abs=1e-9)


def test_the_raster_has_no_cracks_and_interpolates_exactly() -> None:
    rows, columns = np.indices((21, 21)) * 1e-3
    sheet = np.stack([columns, -rows, 0.3 * columns], -1)
    camera = tilted_camera(0.4, 0.7)
    fragments = rasterize(triangulate(sheet), camera, sheet.mean((0, 1)), 0.012, 97)
    assert np.isfinite(fragments.column).all()
    place = np.stack([fragments.column, -fragments.row, 0.3 * fragments.column], -1) * 1e-3
    seen = (place - sheet.mean((0, 1))) @ camera.T
    sample = (np.arange(97) - 48) * 0.012 / 97
    np.testing.assert_allclose(seen[..., 0], np.broadcast_to(sample, (97, 97)), atol=1e-7)
    np.testing.assert_allclose(seen[..., 1], np.broadcast_to(-sample[:, None], (97, 97)), atol=1e-7)
    np.testing.assert_allclose(seen[..., 2], fragments.depth, atol=1e-7)


def test_no_triangle_spans_a_depth_jump() -> None:
    rows, columns = np.indices((20, 20)) * 1e-3
    step = np.where(columns < 0.0095, 0.0, 0.02)
    mesh = triangulate(np.stack([columns, rows, step], -1))
    depths = mesh.points.reshape(-1, 3)[mesh.triangles][..., 2]
    assert len(mesh.triangles) == 2 * 19 * 18
    assert (np.ptp(depths, axis=1) == 0).all()


def test_a_cell_with_one_corner_missing_keeps_one_triangle() -> None:
    rows, columns = np.indices((2, 2)) * 1e-3
    for corner in range(4):
        points = np.stack([columns, rows, np.zeros((2, 2))], -1)
        # a longer row gives the grid its step
        points = np.concatenate([points, points + np.array([0.0, 0.002, 0.0])])
        points.reshape(-1, 3)[corner] = np.nan
        mesh = triangulate(points)
        assert corner not in mesh.triangles
        assert sum((t < 4).all() for t in mesh.triangles) == 1


def test_a_thinned_mesh_shows_the_same_places() -> None:
    rows, columns = np.indices((41, 41)) * 1e-3
    sheet = np.stack([columns, -rows, 0.3 * columns], -1)
    middle = sheet.mean((0, 1))
    dense, thin = (rasterize(triangulate(sheet, s), np.eye(3), middle, 0.03, 60) for s in (1, 4))
    np.testing.assert_allclose(thin.column, dense.column, atol=1e-5)
    np.testing.assert_allclose(thin.row, dense.row, atol=1e-5)


def test_a_small_hole_closes_on_the_surface_around_it() -> None:
    rows, columns = np.indices((40, 40)) * 1e-3
    sheet = np.stack([columns, rows, 0.5 * columns - 0.2 * rows], -1)
    holed = sheet.copy()
    holed[15:19, 20:24] = np.nan
    np.testing.assert_allclose(close_holes(holed), sheet, atol=1e-12)


def test_a_hole_at_a_depth_jump_and_a_large_one_stay_open() -> None:
    rows, columns = np.indices((40, 40)) * 1e-3
    step = np.stack([columns, rows, np.where(columns < 0.02, 0.0, 0.05)], -1)
    step[18:21, 19:22] = np.nan
    assert np.isnan(close_holes(step)[18:21, 19:22]).all()
    sheet = np.stack([columns, rows, np.zeros_like(rows)], -1)
    sheet[10:30, 10:30] = np.nan
    assert np.isnan(close_holes(sheet)[10:30, 10:30]).all()


def test_points_that_fly_are_dropped_and_surfaces_are_not() -> None:
    rows, columns = np.indices((20, 20)) * 1e-3
    points = np.stack([columns, rows, np.zeros_like(rows)], -1)
    points[5, 5, 2] = points[0, 9, 2] = 0.01
    keep = drop_flying(points, np.ones((20, 20), bool))
    assert not keep[5, 5]
    assert not keep[0, 9]
    keep[5, 5] = keep[0, 9] = True
    corners = [(0, 0), (0, 19), (19, 0), (19, 19)]
    assert sorted(zip(*(axis.tolist() for axis in np.nonzero(~keep)), strict=True)) == corners


def test_the_rig_leans_evenly_about_the_sensor() -> None:
    sensor = np.array([0.3, -0.2, 0.9]) / np.linalg.norm([0.3, -0.2, 0.9])
    first, *around = place_cameras(sensor, 5)
    np.testing.assert_allclose(first[2], sensor, atol=1e-12)
    for k, camera in enumerate(around):
        np.testing.assert_allclose(camera @ camera.T, np.eye(3), atol=1e-12)
        leaning = first @ camera[2]
        assert np.arctan2(leaning[1], leaning[0]) % (2 * np.pi) == pytest.approx(k * np.pi / 2, abs=1e-9)


def test_pose_undoes_a_turn_on_the_table() -> None:
    turns = [0.0, 0.5, 1.9, 3.3, 4.6]
    scans = [prepared(turn=turn, grid=128) for turn in turns]
    cameras = fit_cameras(scans, size=64, align=True, views=1)
    pictures = [render_views(scan, cameras)[0][0].astype(int) for scan in scans]
    for picture in pictures[1:]:
        # edges of a pixel may differ, no more: a flip changes hundreds
        assert (np.abs(picture - pictures[0]).max(2) > 80).sum() < 60
    # long axis along x, the heavy cross piece to the left
    seen = covered(pictures[0].astype(np.uint8))
    rows, columns = np.nonzero(seen)
    assert np.ptp(columns) > np.ptp(rows)
    width = seen.sum(0)
    assert width[columns.min() + 3] > 1.5 * width[columns.max() - 3]


def test_without_alignment_objects_stay_as_they_lie() -> None:
    scans = [prepared(turn=turn) for turn in (0.0, np.pi / 2)]
    flat, upright = (covered(render_plain(scan)[0][0]) for scan in scans)
    assert np.ptp(np.nonzero(flat)[1]) > np.ptp(np.nonzero(flat)[0])
    assert np.ptp(np.nonzero(upright)[0]) > np.ptp(np.nonzero(upright)[1])


def test_pose_moves_points_and_directions_alike() -> None:
    pose = Pose(0.1, -0.2, 0.7)
    start, along = np.array([0.3, 0.4, 0.5]), np.array([0.1, 0.2, 0.3])
    moved = pose.place(start + along) - pose.place(start)
    np.testing.assert_allclose(moved, pose.rotate_direction(along), atol=1e-12)
    np.testing.assert_allclose(pose.place(np.array([0.1, -0.2, 0.5])), [0, 0, 0.5], atol=1e-12)


@pytest.mark.parametrize("tilt", [0.0, 0.35])
def test_masks_land_where_the_colour_changed(tilt: float) -> None:
    scan = prepared(tilt=tilt, spot=(-0.02, -0.008, -0.006, 0.006, 0))
    for image, mask in render_plain(scan, size=128):
        red = image[..., 0].astype(int) - image[..., 1] > 80
        assert mask.sum() > 100
        assert (red & mask).sum() / (red | mask).sum() > 0.85


def test_the_table_shows_only_when_asked_for() -> None:
    points, rgb, mask = scan_boxes(BAR)
    kept = render_plain(prepare_scan(points, rgb, mask, remove_background=False))[0][0]
    alone = render_plain(prepare_scan(points, rgb, mask, remove_background=True))[0][0]
    # the frame is the object's in both
    assert (covered(kept) != covered(alone)).mean() < 0.02
    assert (kept[~covered(kept)] == 10).mean() > 0.7
    assert (alone[~covered(alone)] == 0).mean() > 0.9


CUBE: Box = (-0.02, 0.02, -0.02, 0.02, 0.04)


def test_a_cube_s_depth_is_its_height() -> None:
    points, _, _ = scan_boxes([CUBE], grid=200)
    table = find_table(points)
    assert table is not None
    mesh = triangulate(table.to_table(keep_object(points, table)))
    middle = np.array([*np.nanmean(mesh.points[mesh.points[..., 2] > 0.039], axis=0)[:2], 0.0])
    fragments = rasterize(mesh, np.eye(3), middle, 0.08, 80 * SUPERSAMPLING)
    gray = paint_depth(fragments, 0.0, 0.05)[..., 0]
    # a pixel is a millimetre: 40 of 80 pixels, 4 of 5 cm high
    np.testing.assert_allclose(gray[22:58, 22:58], FARTHEST + (255 - FARTHEST) * 0.8, atol=1)
    assert not gray[:18].any()
    assert not gray[:, :18].any()
    assert (gray[40] > 0).sum() == pytest.approx(40, abs=3)
    lower = paint_depth(fragments, 0.0, 0.03)[..., 0]
    assert (lower[22:58, 22:58] == 255).all(), "what is nearer than the range is cut"


def test_a_small_hole_in_the_cloud_leaves_no_edge_in_colour_or_depth() -> None:
    points, rgb, mask = scan_boxes([CUBE], grid=200)
    holed = points.copy()
    holed[95:99, 100:104] = np.nan
    pictures = []
    for cloud in (points, holed):
        scan = prepare_scan(cloud, rgb, mask, remove_background=True)
        cameras = fit_cameras([scan], size=64, align=False, views=5, kinds=("rgb", "depth"))
        pictures.append(np.stack([picture for picture, _ in render_views(scan, cameras)]).astype(int))
    assert pictures[0].shape == (10, 64, 64, 3)
    inner = np.s_[:, 16:48, 16:48]
    assert np.abs(pictures[1] - pictures[0])[inner].max() <= 2


def test_depth_views_follow_the_colour_views_with_the_same_masks() -> None:
    scan = prepared(spot=(-0.02, -0.01, -0.005, 0.005, 0))
    taken = {
        kinds: render_views(scan, fit_cameras([scan], size=64, align=False, views=3, kinds=kinds))
        for kinds in (("rgb",), ("depth",), ("rgb", "depth"))
    }
    for (picture, mask), (same, same_mask) in zip(
        taken["rgb", "depth"], taken["rgb",] + taken["depth",], strict=True
    ):
        np.testing.assert_array_equal(picture, same)
        np.testing.assert_array_equal(mask, same_mask)
    for (color, mask), (depth, depth_mask) in zip(taken["rgb",], taken["depth",], strict=True):
        np.testing.assert_array_equal(mask, depth_mask)
        assert ((color.max(2) > 60) <= (depth.max(2) > 0)).all()
        assert (depth[..., 0] == depth[..., 2]).all()
        # the spot is another colour on one flat top: depth cannot see it
        assert np.ptp(depth[mask].astype(int)) < 40


def test_a_defective_sample_never_loses_its_label() -> None:
    empty, small, large = (np.zeros((64, 64), bool) for _ in range(3))
    small[0, 0], large[:8, :8] = True, True
    assert label_views([empty, small, large], True) == [False, True, True]
    small[0, 0], empty[:] = False, False
    assert label_views([empty, small, empty], True) == [True, False, False]
    assert label_views([large, large], False) == [False, False]
    tiny = np.zeros((256, 256), bool)
    tiny[0, :7] = True
    full = tiny.copy()
    full[1, :7] = True
    assert label_views([tiny, full], True) == [False, True]
    assert label_views([np.zeros_like(tiny), tiny], True) == [False, True]


# ---- on disk


def write_scan(folder: Path, name: str, *, spot: Box | None = None, turn: float = 0.0) -> None:
    points, rgb, mask = scan_boxes(BAR, spot=spot, turn=turn, grid=96)
    for kind in ("rgb", "xyz", "gt"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(folder / "rgb" / f"{name}.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "gt" / f"{name}.png")
    points[0, 0] = 0
    cv2.imwrite(str(folder / "xyz" / f"{name}.tiff"), points[..., ::-1].astype(np.float32))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    src = tmp_path_factory.mktemp("mvtec3d")
    for category in ("hammer", "mallet"):
        for k in range(2):
            write_scan(src / category / "train" / "good", f"{k:03d}", turn=float(k))
        write_scan(src / category / "validation" / "good", "000")
        write_scan(src / category / "test" / "good", "000", turn=2.0)
        write_scan(src / category / "test" / "bent_tip", "000", spot=(-0.02, -0.01, -0.005, 0.005, 0))
        write_scan(src / category / "test" / "bent_tip", "001")
    return src


@pytest.fixture
def src(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "src"))


def test_an_import_reads_as_real_iad(src: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    heard: list[tuple[int, int, str]] = []
    summary = import_mvtec3d(
        ImportRequest(src, out, size=64),
        progress=lambda done, total, what="": heard.append((done, total, what)),
    )
    assert summary.categories == ("hammer", "mallet")
    assert (summary.train_samples, summary.test_samples, summary.images) == (4, 6, 50)
    assert heard == [(k, 10, "hammer" if k <= 5 else "mallet") for k in range(1, 11)]
    index = read_realiad(RealIADLayout(out, images="realiad_64"))
    assert index.view_numbers == (1, 2, 3, 4, 5)
    hammer = [sample for sample in index.samples if sample.category == "hammer"]
    assert [(s.split, s.label, s.anomaly_class) for s in hammer] == [
        ("train", False, "OK"),
        ("train", False, "OK"),
        ("test", True, "bent_tip"),
        ("test", True, "bent_tip"),
        ("test", False, "OK"),
    ]
    # the second defective scan has an empty mask: one view keeps the label
    assert [sum(s.labels) for s in hammer] == [0, 0, 5, 1, 0]
    assert (
        sum(view.mask is not None for s in index.samples for view in s.views if view) == summary.masks == 12
    )
    for sample in index.samples:
        for view in sample.views:
            assert view is not None
            with Image.open(out / view.image) as image:
                assert image.size == (64, 64)
            assert (view.mask is not None) == view.label
    entry = json.loads((out / "realiad_jsons" / "hammer.json").read_text())["test"][5]
    assert entry == {
        "category": "hammer",
        "anomaly_class": "bent_tip",
        "image_path": "NG/bent_tip/S0004/hammer_0004_bent_tip_C1_test000.png",
        "mask_path": "NG/bent_tip/S0004/hammer_0004_bent_tip_C1_test000_mask.png",
        "source": "000.png",
    }


def test_the_same_scans_give_the_same_bytes(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    import_mvtec3d(ImportRequest(src, first, size=64, categories=["hammer"]))
    monkeypatch.setattr(importer, "MIN_SCANS_FOR_PROCESSES", 0)  # now in other processes
    import_mvtec3d(ImportRequest(src, second, size=64, categories=["hammer"]))
    assert tree(first) == tree(second)


def test_a_category_is_added_and_none_is_overwritten(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (out / ".importing-hammer" / "hammer" / "OK" / "S0001").mkdir(parents=True)  # left by a killed import
    import_mvtec3d(ImportRequest(src, out, size=64, categories=["hammer"]), views=2)
    assert sorted(path.name for path in out.iterdir()) == ["realiad_64", "realiad_jsons"]
    before = tree(out)
    import_mvtec3d(ImportRequest(src, out, size=64, categories=["mallet"]), views=2)
    after = tree(out)
    assert {name: after[name] for name in before} == before
    assert len(read_realiad(RealIADLayout(out, images="realiad_64"))) == 10
    with pytest.raises(DatasetError, match=r"hammer\.json: is there already"):
        import_mvtec3d(ImportRequest(src, out, size=64), views=1)
    monkeypatch.setattr(mvtec3d, "read_scan", None)  # what is finished is not rendered again
    summary = import_mvtec3d(ImportRequest(src, out, size=64), views=2)
    assert summary.kept == ("hammer", "mallet")
    assert summary.images == 20
    assert tree(out) == after
    write_scan(src / "hammer" / "train" / "good", "007")
    with pytest.raises(DatasetError, match=r"hammer\.json: is there already, from another source"):
        import_mvtec3d(ImportRequest(src, out, size=64), views=2)
    with pytest.raises(DatasetError, match=r"realiad_64.*another size"):
        import_mvtec3d(ImportRequest(src, out, size=96, categories=["mallet"]), views=2)
    assert tree(out) == after


def test_an_import_that_fails_leaves_nothing(src: Path, tmp_path: Path) -> None:
    (src / "mallet" / "test" / "good" / "xyz" / "000.tiff").write_bytes(b"no cloud")
    out = tmp_path / "out"
    with pytest.raises(DatasetError, match=r"xyz.000\.tiff: expected a TIFF"):
        import_mvtec3d(ImportRequest(src, out, size=64), views=1)
    assert {name.split("/")[1].removesuffix(".json") for name in tree(out)} == {"hammer"}
    assert sorted(path.name for path in out.iterdir()) == ["realiad_64", "realiad_jsons"]


def test_foreign_folders_are_not_written_to(src: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("")
    with pytest.raises(DatasetError, match=r"thesis\.tex"):
        import_mvtec3d(ImportRequest(src, out, size=64))
    with pytest.raises(DatasetError, match="is a file"):
        import_mvtec3d(ImportRequest(src, out / "thesis.tex", size=64))
    with pytest.raises(DatasetError, match="found 'hammer'"):
        import_mvtec3d(ImportRequest(src, src, size=64))


def _break_png(src: Path) -> None:
    path = src / "hammer" / "train" / "good" / "rgb" / "001.png"
    path.write_bytes(path.read_bytes()[:200])


def _shrink_mask(src: Path) -> None:
    Image.new("L", (50, 96)).save(src / "hammer" / "test" / "bent_tip" / "gt" / "001.png")


def _write_cloud(value: npt.NDArray[Any]) -> Callable[[Path], None]:
    def write(src: Path) -> None:
        cv2.imwrite(str(src / "hammer" / "train" / "good" / "xyz" / "000.tiff"), value)

    return write


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda src: shutil.rmtree(src), "expected a folder with one folder per category"),
        (lambda src: shutil.rmtree(src / "hammer" / "train" / "good" / "xyz"), r"000\.tiff: is missing"),
        (lambda src: (src / "hammer/test/bent_tip/gt/001.png").unlink(), r"gt.001\.png: is missing"),
        (lambda src: [p.unlink() for p in (src / "hammer/train/good/rgb").iterdir()], "training scans"),
        (_break_png, r"rgb.001\.png: image cannot be read"),
        (_shrink_mask, r"gt.001\.png: is 50x96, its cloud 001\.tiff is 96x96"),
        (_write_cloud(np.zeros((96, 96, 3), np.uint8)), r"xyz.000\.tiff: expected a TIFF of float32"),
        (_write_cloud(np.zeros((96, 96), np.float32)), r"xyz.000\.tiff: expected a TIFF of float32"),
        (_write_cloud(np.zeros((96, 96, 3), np.float32)), r"xyz.000\.tiff: .* no pixel holds a point"),
        (
            _write_cloud(np.random.default_rng(0).uniform(0.1, 0.9, (96, 96, 3)).astype(np.float32)),
            r"xyz.000\.tiff: expected a table",
        ),
        (
            _write_cloud(scan_boxes([], grid=96)[0][..., ::-1].astype(np.float32)),
            r"xyz.000\.tiff: expected an object on the table",
        ),
    ],
)
def test_what_is_wrong_with_a_dataset_is_named(
    src: Path, tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    harm(src)
    with pytest.raises(DatasetError, match=message):
        import_mvtec3d(ImportRequest(src, tmp_path / "out", size=64, categories=["hammer"]), views=1)


def test_options_that_cannot_be_are_named(src: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DatasetError, match="no category 'hamster'; there is: hammer, mallet"):
        import_mvtec3d(ImportRequest(src, out, categories=["hamster"]))
    with pytest.raises(DatasetError, match="views: expected 1 to 9, got 0"):
        import_mvtec3d(ImportRequest(src, out), views=0)
    with pytest.raises(DatasetError, match="size: expected 32 to 2048 pixels, got 8"):
        import_mvtec3d(ImportRequest(src, out, size=8))
    assert not out.exists()


def test_a_cloud_cut_short_is_refused(src: Path) -> None:
    path = src / "hammer" / "train" / "good" / "xyz" / "000.tiff"
    whole = path.read_bytes()
    for share in (0.2, 0.6, 0.95):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DatasetError, match=r"000\.tiff"):
            read_cloud(path)


@pytest.mark.skipif("IDIF_DATA" not in os.environ, reason="IDIF_DATA does not name the folder of real data")
def test_real_scans_come_to_one_pose() -> None:
    folder = Path(os.environ["IDIF_DATA"]) / "mvtec3d" / "cable_gland"
    if not folder.is_dir():
        pytest.skip("no MVTec 3D-AD in IDIF_DATA")
    train = [files for files in list_scans(folder) if files.split == "train"][:60:12]
    scans = [read_scan(files, True) for files in train]
    cameras = fit_cameras(scans, size=128, align=True, views=1)
    for scan in scans:
        seen = render_views(scan, cameras)[0][0].max(2) > 25
        rows, columns = np.nonzero(seen)
        assert 0.5 < max(np.ptp(rows), np.ptp(columns)) / 128 < 1
        # the flange is the wide end, and it lies to the left in every scan
        third = np.array_split(seen.sum(0)[columns.min() : columns.max()], 3)
        assert third[0].max() > 1.15 * third[2].max()
