"""The Real-IAD reader: grouping, labels, splits, and one clear sentence for every fault."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idif.data.index import MIXED_CLASS, Index
from idif.datasets.realiad.files import RealIADLayout, list_categories
from idif.datasets.realiad.reader import read_realiad
from idif.errors import DatasetError
from idif.paths import relative_posix, resolve_inside

Json = dict[str, Any]


def entry(
    category: str,
    number: int,
    view: int,
    cls: str = "OK",
    *,
    folder: str | None = None,
    suffix: str = ".jpg",
    mask: bool = False,
) -> Json:
    """One annotation as Real-IAD writes it; every view has its own timestamp."""
    kind = folder or ("OK" if cls == "OK" else f"NG/{cls}")
    name = f"{category}_{number:04d}_{kind.replace('/', '_')}_C{view}_2023{number:04d}{view}"
    path = f"{kind}/S{number:04d}/{name}"
    return {
        "category": category,
        "anomaly_class": cls,
        "image_path": path + suffix,
        "mask_path": path + ".png" if mask else None,
    }


def content(category: str, train: int = 3, test: int = 2, views: tuple[int, ...] = (1, 2, 3, 4, 5)) -> Json:
    return {
        "meta": {"prefix": f"{category}/", "normal_class": "OK"},
        "train": [entry(category, n, v) for n in range(train) for v in views],
        "test": [entry(category, 100 + n, v, "HS", mask=True) for n in range(test) for v in views],
    }


def write(root: Path, *contents: Json, annotations: str = "realiad_jsons") -> Path:
    (root / "realiad_256").mkdir(parents=True, exist_ok=True)
    folder = root / annotations
    folder.mkdir(parents=True, exist_ok=True)
    for data in contents:
        (folder / f"{data['meta']['prefix'].strip('/')}.json").write_text(json.dumps(data), encoding="utf-8")
    return root


def ids(index: Index) -> list[str]:
    return [sample.sample_id for sample in index.samples]


def test_samples_views_and_paths(tmp_path: Path) -> None:
    index = read_realiad(RealIADLayout(write(tmp_path, content("audiojack"))))
    assert index.view_numbers == (1, 2, 3, 4, 5)
    assert ids(index) == [f"audiojack/OK/S000{n}" for n in range(3)] + [
        f"audiojack/NG/HS/S010{n}" for n in range(2)
    ]
    assert [s.split for s in index.samples] == ["train"] * 3 + ["test"] * 2
    view = index.samples[3].views[4]
    assert view is not None
    assert view.image == "realiad_256/audiojack/NG/HS/S0100/audiojack_0100_NG_HS_C5_202301005.jpg"
    assert view.mask == "realiad_256/audiojack/NG/HS/S0100/audiojack_0100_NG_HS_C5_202301005.png"
    assert [s.label for s in index.samples] == [False] * 3 + [True] * 2


def test_order_of_the_list_means_nothing(tmp_path: Path) -> None:
    data = content("audiojack")
    straight = read_realiad(RealIADLayout(write(tmp_path / "a", data)))
    for split in ("train", "test"):
        random.Random(0).shuffle(data[split])
    assert read_realiad(RealIADLayout(write(tmp_path / "b", data))) == straight


def test_rows_are_ordered_by_category_split_and_id(tmp_path: Path) -> None:
    root = write(tmp_path, content("zipper"), content("audiojack"), content("bolt"))
    index = read_realiad(RealIADLayout(root))
    order = [(s.category, s.split == "test", s.sample_id) for s in index.samples]
    assert order == sorted(order)
    assert list_categories(RealIADLayout(root)) == ["audiojack", "bolt", "zipper"] == list(index.categories)
    chosen = read_realiad(RealIADLayout(root), categories=["zipper", "bolt", "bolt"])
    assert chosen.categories == ("bolt", "zipper")


def test_label_is_the_class_never_the_folder(tmp_path: Path) -> None:
    data = content("audiojack", test=0)
    data["test"] = [entry("audiojack", 7, v, "OK", folder="NG/HS") for v in (1, 2, 3)]
    data["test"] += [entry("audiojack", 7, 4, "HS"), entry("audiojack", 7, 5, "YW", folder="NG/HS")]
    sample = read_realiad(RealIADLayout(write(tmp_path, data)), split="test").samples[0]
    assert sample.labels == (False, False, False, True, True)
    assert sample.anomaly_class == MIXED_CLASS
    assert sample.sample_id == "audiojack/NG/HS/S0007"


def test_another_name_for_normal_is_mapped(tmp_path: Path) -> None:
    data = content("audiojack", test=0)
    data["meta"]["normal_class"] = "good"
    for item in data["train"]:
        item["anomaly_class"] = "good"
    assert not any(s.label for s in read_realiad(RealIADLayout(write(tmp_path, data))).samples)
    data["train"][4]["anomaly_class"] = "OK"
    with pytest.raises(DatasetError, match=r"train\[4\].*normal_class 'good'"):
        read_realiad(RealIADLayout(write(tmp_path, data)))


def test_several_samples_in_one_folder(tmp_path: Path) -> None:
    data = content("audiojack", train=0, test=0)
    for number in (1, 2):
        for view in (1, 2):
            item = entry("audiojack", number, view)
            item["image_path"] = "flat/" + item["image_path"].rsplit("/", 1)[1]
            data["train"].append(item)
    item = entry("audiojack", 3, 1)
    item["image_path"] = item["image_path"].rsplit("/", 1)[1]
    data["train"].append(item)
    assert ids(read_realiad(RealIADLayout(write(tmp_path, data)))) == [
        "audiojack/0003",
        "audiojack/flat/0001",
        "audiojack/flat/0002",
    ]


def test_a_folder_of_another_number_does_not_join_samples(tmp_path: Path) -> None:
    data = content("audiojack", train=0, test=0)
    data["train"] = [entry("audiojack", number, 1) for number in (1, 2)]
    data["train"][1]["image_path"] = data["train"][1]["image_path"].replace("S0002", "S0001")
    expected = ["audiojack/OK/S0001", "audiojack/OK/S0001/0002"]
    assert ids(read_realiad(RealIADLayout(write(tmp_path, data)))) == expected


def test_a_class_named_like_a_camera(tmp_path: Path) -> None:
    data = content("audiojack", test=0)
    data["test"] = [entry("audiojack", 9, view, "C7_dent") for view in (1, 2)]
    index = read_realiad(RealIADLayout(write(tmp_path, data)), split="test")
    assert index.view_numbers == (1, 2, 3, 4, 5)
    assert index.samples[0].present == (True, True, False, False, False)


@pytest.mark.parametrize("category", ["3_adapter", "usb_2_0", "x_C2_y", "end_cap"])
def test_digits_and_cameras_in_a_category_name(tmp_path: Path, category: str) -> None:
    index = read_realiad(RealIADLayout(write(tmp_path, content(category))))
    assert ids(index)[0] == f"{category}/OK/S0000"
    assert index.view_numbers == (1, 2, 3, 4, 5)
    assert all(all(s.present) for s in index.samples)


def test_upper_case_suffixes(tmp_path: Path) -> None:
    data = content("audiojack")
    data["train"][0] = entry("audiojack", 0, 1, suffix=".JPG")
    write(tmp_path, data)
    path = tmp_path / "realiad_jsons" / "audiojack.json"
    path.rename(path.with_suffix(".JSON"))
    view = read_realiad(RealIADLayout(tmp_path)).samples[0].views[0]
    assert view is not None
    assert view.image.endswith(".JPG")


def test_missing_views_keep_their_slot(tmp_path: Path) -> None:
    data = content("audiojack")
    gone = data["train"].pop(1)
    root = write(tmp_path, data)
    index = read_realiad(RealIADLayout(root))
    assert index.samples[0].present == (True, False, True, True, True)
    assert "_C2_" in gone["image_path"]
    assert ids(read_realiad(RealIADLayout(root), drop_incomplete=True)) == ids(index)[1:]


def test_view_numbers_agree_between_splits(tmp_path: Path) -> None:
    data = content("audiojack", views=(1, 3))
    data["test"] += [entry("audiojack", 100, 7, "HS")]
    root = write(tmp_path, data, content("bolt", views=(2,)))
    for split in ("train", "test", None):
        assert read_realiad(RealIADLayout(root), split=split).view_numbers == (1, 2, 3, 7)
        assert read_realiad(RealIADLayout(root), split=split, categories=["audiojack"]).view_numbers == (
            1,
            3,
            7,
        )


def test_views_are_restricted(tmp_path: Path) -> None:
    data = content("audiojack")
    data["train"].append(entry("audiojack", 50, 4))
    root = write(tmp_path, data)
    index = read_realiad(RealIADLayout(root), views=[3, 1])
    assert index.view_numbers == (1, 3)
    assert "audiojack/OK/S0050" not in ids(index), "a sample with no view at all is no sample"
    with pytest.raises(DatasetError, match=r"data.views.*\[1, 2, 3, 4, 5\], got view 6"):
        read_realiad(RealIADLayout(root), views=[1, 6])
    with pytest.raises(DatasetError, match="got none"):
        read_realiad(RealIADLayout(root), views=[])


def test_annotations_one_level_deeper_and_other_sets(tmp_path: Path) -> None:
    root = write(tmp_path, content("audiojack"), annotations="realiad_jsons/realiad_jsons")
    write(tmp_path, content("audiojack", views=(1,)), annotations="realiad_jsons_sv")
    assert read_realiad(RealIADLayout(root)).view_numbers == (1, 2, 3, 4, 5)
    assert read_realiad(RealIADLayout(root, annotations="realiad_jsons_sv")).view_numbers == (1,)
    (root / "realiad_jsons_sv" / "._audiojack.json").write_bytes(b"\0")
    assert list_categories(RealIADLayout(root, annotations="realiad_jsons_sv")) == ["audiojack"]


def test_other_images_folder(tmp_path: Path) -> None:
    (tmp_path / "realiad_512").mkdir()
    index = read_realiad(RealIADLayout(write(tmp_path, content("audiojack")), images="realiad_512"))
    view = index.samples[0].views[0]
    assert view is not None
    assert view.image.startswith("realiad_512/audiojack/OK/")


def test_a_contaminated_training_split(tmp_path: Path) -> None:
    data = content("audiojack")
    data["train"] += [entry("audiojack", 60, v, "HS", mask=v == 2) for v in (1, 2, 3, 4, 5)]
    index = read_realiad(
        RealIADLayout(
            write(tmp_path, data, annotations="realiad_jsons_fuiad_0.1"),
            annotations="realiad_jsons_fuiad_0.1",
        ),
        split="train",
    )
    assert [sample.label for sample in index.samples] == [True, False, False, False]
    assert index.samples[0].has_mask == (False, True, False, False, False)


def test_the_single_view_set_has_one_slot(tmp_path: Path) -> None:
    sets = {"realiad_jsons": (1, 2, 3, 4, 5), "realiad_jsons_sv": (1,)}
    for annotations, views in sets.items():
        write(tmp_path, content("audiojack", views=views), annotations=annotations)
    single = read_realiad(RealIADLayout(tmp_path, annotations="realiad_jsons_sv"))
    assert single.view_numbers == (1,)
    whole = read_realiad(RealIADLayout(tmp_path))
    assert ids(single) == ids(whole)
    assert [s.views[0] for s in single.samples] == [s.views[0] for s in whole.samples]


def test_views_taken_at_other_times_and_kept_in_a_deeper_folder(tmp_path: Path) -> None:
    data = content("audiojack", train=1, test=0)
    data["meta"]["prefix"] = "real/audiojack/"
    for nth, item in enumerate(data["train"]):
        item["image_path"] = item["image_path"].replace("_2023", f"_{2021 + nth}").replace(".jpg", ".JPEG")
    write(tmp_path, content("audiojack"), annotations="realiad_jsons/realiad_jsons")
    path = tmp_path / "realiad_jsons" / "realiad_jsons" / "audiojack.json"
    path.write_text(json.dumps(data))
    (sample,) = read_realiad(RealIADLayout(tmp_path)).samples
    assert all(sample.present)
    first = sample.views[0]
    assert first is not None
    assert first.image.startswith("realiad_256/real/audiojack/OK/S0000/audiojack_0000_OK_C1_2021")


# ---- what is wrong with the data is said in one sentence ----


def change(**values: Any) -> Callable[[Json], None]:
    """Set keys of the second training entry; ``...`` removes one."""

    def apply(data: Json) -> None:
        for key, value in values.items():
            if value is ...:
                del data["train"][1][key]
            else:
                data["train"][1][key] = value

    return apply


def swap(key: str, value: Any) -> Callable[[Json], None]:
    return lambda data: data.update({key: value})


FAULTS: list[tuple[Callable[[Json], None], str]] = [
    (lambda data: data.pop("meta"), "the key 'meta'"),
    (swap("meta", []), "meta: expected an object, got a list"),
    (swap("meta", {"normal_class": "OK"}), "the key 'prefix'"),
    (swap("meta", {"prefix": "../..", "normal_class": "OK"}), "prefix: expected a path that stays inside"),
    (swap("train", {}), "train: expected a list, got an object"),
    (swap("test", None), "test: expected a list, got null"),
    (lambda data: data.update(train=[], test=[]), "train and test are both empty"),
    (lambda data: data["train"].insert(1, "x"), r"train\[1\]: expected an object, got a text"),
    (change(anomaly_class=...), "the key 'anomaly_class'"),
    (change(anomaly_class=""), "expected a class name"),
    (change(anomaly_class="a\x1b[31m"), r"anomaly_class, got 'a\\x1b\[31m'"),
    (change(category=...), "the key 'category'"),
    (change(category="bolt"), "the file's category 'audiojack', got 'bolt'"),
    (change(image_path=...), "the key 'image_path'"),
    (change(image_path=3), "image_path: expected a text, got int 3"),
    (change(image_path=""), "expected a file name"),
    (change(mask_path=...), "the key 'mask_path'"),
    (change(mask_path=False), "mask_path: expected a text, got bool False"),
    (change(mask_path="/etc/mask.png"), "mask_path: expected a relative path"),
    (change(image_path="/a/audiojack_0001_OK_C1_1.jpg"), "expected a relative path"),
    (change(image_path="C:/a/audiojack_0001_OK_C1_1.jpg"), "expected a relative path"),
    (change(image_path="a/../../audiojack_0001_OK_C1_1.jpg"), "stays inside its folder"),
    (change(image_path="a\\audiojack_0001_OK_C1_1.jpg"), "forward slashes"),
    (change(image_path="a/audiojack_0001\0_OK_C1_1.jpg"), "without control characters, got 'a/.*x00"),
    (change(image_path="a/audiojack_0001\n_OK_C1_1.jpg"), "without control characters"),
    (change(image_path="a/audiojack_0001_\ud800_OK_C1_1.jpg"), "without control characters"),
    (change(image_path="a/audiojack_0001_OK_1.jpg"), "_C<view>_<time>, got 'audiojack_0001_OK_1.jpg'"),
    (change(image_path="a/audiojack_OK_C1_1.jpg"), "<number>"),
    (change(image_path="a/audiojack_0001_OK_C0_1.jpg"), "a view 1 to 999"),
    (change(image_path="a/audiojack_0001_OK_C99999999999999999999_1.jpg"), "a view 1 to 999"),
    (change(image_path="a/" + "_1" * 5000), "short enough"),
    (
        change(image_path="OK/S0000/audiojack_0000_OK_C1_other.jpg"),
        "'audiojack/OK/S0000' has two files for view 1: .*_C1_202300001.jpg' and .*_C1_other.jpg'",
    ),
    (lambda data: data["test"].append(entry("audiojack", 2, 5)), "'audiojack/OK/S0002' is in both train and"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[message[:40] for _, message in FAULTS])
def test_faulty_annotations(tmp_path: Path, fault: Callable[[Json], None], message: str) -> None:
    data = content("audiojack")
    fault(data)
    root = write(tmp_path, content("audiojack"))
    (root / "realiad_jsons" / "audiojack.json").write_text(json.dumps(data))
    with pytest.raises(DatasetError, match=message) as caught:
        read_realiad(RealIADLayout(root))
    said = str(caught.value)
    assert "audiojack.json" in said
    assert said.isprintable()
    assert len(said) < 800


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not valid JSON"),
        (b'{"meta": {}, "train": [', "not valid JSON"),
        (b"\xff\xfe\xff", "not valid JSON"),
        (b"[1]", "expected an object, got a list"),
        (b"[" * 200_000, "nested too deep"),
        (b'{"meta": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_files_that_are_no_annotations(tmp_path: Path, raw: bytes, message: str) -> None:
    root = write(tmp_path, content("audiojack"))
    (root / "realiad_jsons" / "audiojack.json").write_bytes(raw)
    with pytest.raises(DatasetError, match=rf"audiojack\.json: .*{message}"):
        read_realiad(RealIADLayout(root))


def test_an_enormous_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, content("audiojack"))
    monkeypatch.setattr("idif.datasets.realiad.reader.MAX_JSON_BYTES", 1000)
    with pytest.raises(DatasetError, match="at most 1,000 bytes, got"):
        read_realiad(RealIADLayout(root))


def test_what_is_missing_is_named_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere.*no such folder"):
        read_realiad(RealIADLayout(tmp_path / "nowhere"))
    root = write(tmp_path, content("audiojack"), content("usb"), content("bolt"))
    (root / "realiad_1024").mkdir()
    with pytest.raises(
        DatasetError, match=r"realiad_512.*data.images.*missing; there is: realiad_1024, real"
    ):
        read_realiad(RealIADLayout(root, images="realiad_512"))
    with pytest.raises(DatasetError, match=r"data.annotations.*missing; there is: realiad_jsons$"):
        read_realiad(RealIADLayout(root, annotations="realiad_jsons_sv"))
    with pytest.raises(DatasetError, match=r"'audiojak' \(did you mean audiojack\?\); .*: audiojack, bo"):
        read_realiad(RealIADLayout(root), categories=["usb", "audiojak"])
    with pytest.raises(DatasetError, match=r"data\.images: expected a path that stays"):
        read_realiad(RealIADLayout(root, images="../realiad_256"))
    (root / "realiad_jsons_sv").mkdir()
    with pytest.raises(DatasetError, match=r"expected files <category>.json, found none"):
        read_realiad(RealIADLayout(root, annotations="realiad_jsons_sv"))


def test_nothing_complete_is_an_error(tmp_path: Path) -> None:
    data = content("audiojack", train=1, test=1)
    del data["train"][0], data["test"][0]
    data["train"].append(entry("audiojack", 5, 1))
    with pytest.raises(DatasetError, match="no complete sample"):
        read_realiad(RealIADLayout(write(tmp_path, data)), drop_incomplete=True)


# ---- paths ----


@given(st.text(alphabet="ab./\\:C\0\n ", max_size=12))
def test_a_relative_path_never_leaves(text: str) -> None:
    try:
        path = relative_posix(text, "key")
    except DatasetError:
        return
    base = Path("/base/of/all")
    assert (base / path).resolve().is_relative_to(base)
    assert relative_posix(path, "key") == path


def test_resolve_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").mkdir()
    assert resolve_inside(root, "a/b.png") == root.resolve() / "a" / "b.png"
    with pytest.raises(DatasetError, match="stays inside"):
        resolve_inside(root, "../secret")
    try:
        (root / "link").symlink_to(tmp_path / "secret", target_is_directory=True)
        (root / "inner").symlink_to(root, target_is_directory=True)
        (root / "loop").symlink_to(root / "loop")
    except OSError:
        pytest.skip("this system does not allow symbolic links")
    assert resolve_inside(root, "inner/x") == root.resolve() / "x"
    with pytest.raises(DatasetError, match="outside the dataset's root"):
        resolve_inside(root, "link/x.png")
