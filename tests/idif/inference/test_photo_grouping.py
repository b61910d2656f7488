"""Which files are which views: by Real-IAD's names, by order, by folder; never by guessing."""

from pathlib import Path

import pytest

from idif.errors import DatasetError
from idif.inference.photo_grouping import find_parts, left_out_of

VIEWS = (1, 2, 5)


def touch(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


def test_names_say_sample_view_and_category_in_any_order(tmp_path: Path) -> None:
    a = touch(tmp_path, "cup_0007_NG_C5_1.jpg", "cup_big_0007_OK_C1_1.jpg", "cup_0007_NG_C1_9.jpg")
    parts = {part.name: part for part in find_parts(a, VIEWS, ["cup", "cup_big"])}
    assert parts["cup_0007"].images == (a[2], None, a[0])
    assert parts["cup_0007"].category == "cup"
    assert parts["cup_big_0007"].images == (a[1], None, None)


def test_one_number_in_two_folders_is_two_parts_with_two_names(tmp_path: Path) -> None:
    touch(tmp_path / "a", "cup_0001_C1_x.png")
    touch(tmp_path / "b", "cup_0001_C1_x.png", "notes.txt")
    parts = find_parts([tmp_path], VIEWS, ["cup"])
    assert [part.name for part in parts] == ["cup_0001", "cup_0001-2"]
    assert len({part.images[0] for part in parts}) == 2


def test_a_mask_beside_its_image_is_no_photograph(tmp_path: Path) -> None:
    touch(tmp_path, "cup_0001_NG_C1_.jpg", "cup_0001_NG_C1_.png", "cup_0001_NG_C2_.png")
    (part,) = find_parts([tmp_path], VIEWS, ["cup"])
    assert [p and p.name for p in part.images] == ["cup_0001_NG_C1_.jpg", "cup_0001_NG_C2_.png", None]


def test_a_mask_that_is_called_one_is_no_photograph(tmp_path: Path) -> None:
    touch(tmp_path, "cup_0001_C1_a.png", "cup_0001_C1_a_mask.png", "cup_0001_C2_mask.png")
    (part,) = find_parts([tmp_path], VIEWS, ["cup"])
    assert [p and p.name for p in part.images] == ["cup_0001_C1_a.png", "cup_0001_C2_mask.png", None]


def test_other_files_are_one_part_in_the_order_given(tmp_path: Path) -> None:
    left, top = touch(tmp_path, "left.png", "top.png")
    (part,) = find_parts([top, left], VIEWS, ["cup"])
    assert part.images == (top, left, None)
    assert part.name == "top"


def test_a_folder_is_a_part_in_natural_order_and_a_tree_is_many(tmp_path: Path) -> None:
    touch(tmp_path / "p1", "v10.PNG", "v2.png")
    touch(tmp_path / "p2", "v1.png")
    parts = find_parts([tmp_path], VIEWS, ["cup"])
    assert [[p and p.name for p in part.images] for part in parts] == [
        ["v2.png", "v10.PNG", None],
        ["v1.png", None, None],
    ]
    assert [part.name for part in parts] == ["p1", "p2"]


def test_with_one_view_every_file_is_a_part(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png", "c.png")
    assert [part.name for part in find_parts([tmp_path], (1,), ["cup"])] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("names", "category", "message"),
    [
        (["a.png"], None, "does not say which category.*cup, lid.*--category"),
        (["a.png"], "cap", "--category 'cap': the run has cup, lid"),
        (["cap_0001_C1.png"], None, "does not say which category"),
        (["cup_0001_C1_.png"], "lid", "named as a view of cup, but --category is lid"),
        (["cup_0001_C3_.png"], None, r"view 3, but the run has views \[1, 2, 5\]"),
        (["cup_0001_C1_a.png", "cup_0001_C1_b.png"], None, "a second file for view 1; the first is .*_a.png"),
        (["a.png", "b.png", "c.png", "d.png"], "cup", "4 photographs, but a part has 3 views"),
    ],
)
def test_what_cannot_be_told_is_refused(
    tmp_path: Path, names: list[str], category: str | None, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        find_parts(touch(tmp_path, *names), VIEWS, ["cup", "lid"], category)


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "readme.md")
    with pytest.raises(DatasetError, match=r"expected photographs .*found none"):
        find_parts([tmp_path], VIEWS, ["cup"])


def slots(paths: list[Path], views: tuple[int, ...] = VIEWS) -> dict[str, list[str | None]]:
    return {
        p.name: [None if i is None else i.name for i in p.images] for p in find_parts(paths, views, ["gear"])
    }


def test_a_name_that_tells_a_camera_is_obeyed(tmp_path: Path) -> None:
    files = touch(tmp_path, "gear_0101_NG_C5.jpg", "part7_C2_x.jpg", "part7_C1_x.jpg")
    assert slots(files[:1]) == {"gear_0101": [None, None, "gear_0101_NG_C5.jpg"]}
    assert slots(files[1:]) == {"part7": ["part7_C1_x.jpg", "part7_C2_x.jpg", None]}
    assert slots(touch(tmp_path / "a", "cam2.png", "cam05.png")) == {"cam2": [None, "cam2.png", "cam05.png"]}
    touch(tmp_path / "b", "View-5.png")
    assert slots([tmp_path / "b"]) == {"b": [None, None, "View-5.png"]}


def test_a_folder_of_parts_whose_names_tell_cameras_is_many_parts(tmp_path: Path) -> None:
    touch(tmp_path, "p1_C1.png", "p1_C5.png", "p2_C2.png")
    assert slots([tmp_path]) == {"p1": ["p1_C1.png", None, "p1_C5.png"], "p2": [None, "p2_C2.png", None]}


@pytest.mark.parametrize(
    ("names", "views", "message"),
    [
        (["gear_0101_NG_C4.jpg"], VIEWS, r"view 4, but the run has views \[1, 2, 5\]"),
        (["part7_C3_x.jpg"], VIEWS, "view 3, but the run has"),
        (["part7_C3_x.jpg"], (1,), "view 3, but the run has"),
        (["cam0.jpg"], VIEWS, "view 0, but the run has"),
        (["p_C1.png", "q.png"], VIEWS, "q.png: its name tells no camera, but that of p_C1.png does"),
        (["p_C1_a.png", "p_C1_b.png"], VIEWS, "a second file for view 1"),
    ],
)
def test_a_camera_that_cannot_be_obeyed_is_refused(
    tmp_path: Path, names: list[str], views: tuple[int, ...], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        find_parts(touch(tmp_path, *names), views, ["gear"])


def test_hidden_files_take_no_slot(tmp_path: Path) -> None:
    touch(tmp_path, "left.jpg", "._left.jpg", ".left.jpg", "right.jpg")
    touch(tmp_path / "__MACOSX", "left.jpg", "._x.jpg")
    touch(tmp_path / ".cache", "left.jpg")
    expected = {tmp_path.name: ["left.jpg", "right.jpg", None]}
    assert slots([tmp_path]) == expected
    assert list(slots([tmp_path / "._left.jpg", tmp_path / "left.jpg"]).values()) == [
        ["left.jpg", None, None]
    ]


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    touch(tmp_path / "away", "x.jpg")
    given = tmp_path / "given"
    touch(given, "a.jfif", "b.heic", "c.GIF", "d.txt")
    (given / "linked").symlink_to(tmp_path / "away", target_is_directory=True)
    assert slots([given]) == {"given": ["a.jfif", None, None]}
    assert (said := left_out_of([given])) is not None
    assert said.startswith("3 pictures or linked folders are not read (.gif, .heic, linked folder)")
    (given / "a.jfif").unlink()
    with pytest.raises(DatasetError, match="3 pictures or linked folders are not read"):
        find_parts([given], VIEWS, ["gear"])


@pytest.mark.parametrize(
    ("names", "part", "views"),
    [
        (["p7_Top.png", "p7_far-left.png"], "p7", (0, 2)),
        (["TOP_p7.png", "left_p7.png"], "p7", (0, 1)),
        (["Top/p7.png", "far-left/p7.png"], "p7", (0, 2)),
        (["p7/top.png", "p7/left.png"], "p7", (0, 1)),
        (["p7_C1.png", "p7_Left_2026.png"], "p7", (0, 1)),
    ],
)
def test_cameras_are_known_by_their_names(
    names: list[str], part: str, views: tuple[int, int], tmp_path: Path
) -> None:
    for name in names:
        touch((tmp_path / name).parent, Path(name).name)
    cameras = {1: "Top", 2: "left", 5: "far-left"}
    (found,) = find_parts([tmp_path], VIEWS, ["gear"], cameras=cameras)
    assert found.name == part
    assert [None if image is None else image.relative_to(tmp_path).as_posix() for image in found.images] == [
        names[views.index(slot)] if slot in views else None for slot in range(len(VIEWS))
    ]


@pytest.mark.parametrize("category", [None, "cup", "auto"])
@pytest.mark.parametrize("name", ["pcb_0001_NG_C1_x.jpg", "cup_big_0007_NG_HS_C2_20231022164217.jpg"])
def test_a_complete_name_of_a_category_that_the_run_lacks_is_refused(
    tmp_path: Path, name: str, category: str | None
) -> None:
    of = name.split("_0")[0]
    expected = "--category is cup" if category == "cup" else "the run has cup"
    with pytest.raises(DatasetError, match=rf"{name}: named as a view of {of}, but {expected}; rename"):
        find_parts(touch(tmp_path, "cup_0001_OK_C1_x.jpg", name), VIEWS, ["cup"], category)


@pytest.mark.parametrize(
    "name",
    [
        "part_0001.jpg",
        "part_0001_C1.jpg",
        "part_0001_C1_x.jpg",
        "lot_12_OK_C1_x.jpg",
        "part_OK_C1_x.jpg",
        "line_0001_OK_C1.jpg",
        "other_0001_OK_C1_test-good-17.png",
        "other_0001_scratch_C1_test-scratch-17.png",
    ],
)
def test_names_that_merely_resemble_a_complete_one_are_scored(tmp_path: Path, name: str) -> None:
    (part,) = find_parts(touch(tmp_path, name), VIEWS, ["cup"])
    assert part.category == "cup"
