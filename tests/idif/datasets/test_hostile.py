"""Data made to do harm: every case ends in one clear sentence, in bounded time and memory."""

import io
import json
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idif.data.decode import decode_sample
from idif.data.images import MAX_FILE_BYTES
from idif.datasets.checks.dataset import check_dataset
from idif.datasets.realiad.files import RealIADLayout
from idif.datasets.realiad.reader import MAX_JSON_BYTES, read_realiad
from idif.errors import DatasetError
from idif.inference.photo_grouping import find_parts
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations

SECONDS, MEGABYTES = 3.0, 300
"""Processor time and growth of memory that one case may cost, well below those of doing what it asks for."""

IMAGE = "realiad_256/cup/OK/S0000/cup_0000_OK_C1_20240101.jpg"
MASK = "realiad_256/cup/NG/scratch/S1001/cup_1001_NG_scratch_C2_20240101.png"
ANNOTATIONS = "realiad_jsons/cup.json"

Harm = Callable[[Path], object]

PATHS = {
    "absolute": "/etc/passwd_0001_C1_x.jpg",
    "two-slashes": "//host/cup_0001_C1_x.jpg",
    "up": "../../../cup_0001_C1_x.jpg",
    "down-and-up": "OK/S0001/../../../../cup_0001_C1_x.jpg",
    "drive": "C:/cup_0001_C1_x.jpg",
    "drive-relative": "c:cup_0001_C1_x.jpg",
    "backslashes": "..\\..\\cup_0001_C1_x.jpg",
    "share": "\\\\host\\share\\cup_0001_C1_x.jpg",
    "nul": "OK/cup_0001_C1_x\0.jpg",
    "newline": "OK/cup_0001\n_C1_x.jpg",
    "return": "OK/cup_0001\r_C1_x.jpg",
    "ansi": "OK/\x1b[2J\x1b[31mcup_0001_C1_x.jpg",
    "csi": "OK/\x9b31mcup_0001_C1_x.jpg",
    "bell": "OK/\x07cup_0001_C1_x.jpg",
    "delete": "OK/\x7fcup_0001_C1_x.jpg",
    "line-separator": "OK/cup_0001\u2028_C1_x.jpg",
    "surrogate": "OK/cup_0001\ud800_C1_x.jpg",
    "long-name": "OK/cup_0001_C1_" + "x" * 300 + ".jpg",
    "long-path": "a/" * 3000 + "cup_0001_C1_x.jpg",
}


def annotate(split: str, **values: Any) -> Harm:
    def harm(root: Path) -> None:
        path = root / ANNOTATIONS
        content = json.loads(path.read_text())
        # the first view of the test's defective sample that has a mask
        entries = [entry for entry in content[split] if split == "train" or entry["mask_path"]]
        entries[0] |= values
        path.write_text(json.dumps(content))

    return harm


def meta(**values: Any) -> Harm:
    def harm(root: Path) -> None:
        path = root / ANNOTATIONS
        content = json.loads(path.read_text())
        content["meta"] |= values
        path.write_text(json.dumps(content))

    return harm


def write(file: str, content: bytes) -> Harm:
    return lambda root: (root / file).write_bytes(content)


def sparse(file: str, size: int) -> Harm:
    return lambda root: os.truncate(root / file, size)


def link(file: str, target: str) -> Harm:
    """Replace a file or folder by a link; what it was goes outside the root."""

    def harm(root: Path) -> None:
        (root / file).rename(root.parent / "outside")
        try:
            (root / file).symlink_to(target.replace("ROOT", str(root)))
        except OSError:
            pytest.skip("this system does not allow symbolic links")

    return harm


def pipe(file: str) -> Harm:
    def harm(root: Path) -> None:
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system has no named pipes")
        (root / file).unlink()
        os.mkfifo(root / file)

    return harm


def folder(file: str) -> Harm:
    def harm(root: Path) -> None:
        (root / file).unlink()
        (root / file).mkdir()

    return harm


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(width: int, height: int, *extra: bytes, depth: int = 8) -> bytes:
    """A PNG that says it has this size, with the data of one empty row."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    body = b"".join(extra) + chunk(b"IDAT", zlib.compress(bytes(1 + width // 8)))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def bmp(side: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)


def tiff(side: int) -> bytes:
    tags = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, 1)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)


def jpeg(width: int, height: int) -> bytes:
    return b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00\xff\xd9"


def gif() -> bytes:
    """A picture without a fault, of a kind that is not decoded."""
    file = io.BytesIO()
    Image.new("L", (48, 48), 90).save(file, "GIF")
    return file.getvalue()


BOMB = zlib.compress(bytes(100_000_000), 1)
HUGE = 100_000
PICTURES = {
    "png-huge": png(HUGE, HUGE),
    "png-huge-bits": png(HUGE, HUGE, depth=1),
    "png-a-little-too-large": png(12_000, 9_000),
    "png-largest": png(2**31 - 1, 2**31 - 1),
    "png-text-bomb": png(8, 8, chunk(b"zTXt", b"note\0\0" + BOMB)),
    "png-profile-bomb": png(8, 8, chunk(b"iCCP", b"profile\0\0" + BOMB)),
    "png-many-texts": png(8, 8, *[chunk(b"tEXt", b"k\0" + b"v" * 1_000_000)] * 70),
    "png-no-rows": png(64, 64),
    "png-wrong-sum": png(8, 8)[:-20] + b"\0" * 20,
    "png-chunk-beyond-end": png(8, 8)[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT",
    "bmp-huge": bmp(HUGE),
    "tiff-huge": tiff(HUGE),
    "jpeg-huge": jpeg(65_500, 65_500),
    "ppm-huge": f"P6 {HUGE} {HUGE} 255\n".encode(),
    "empty": b"",
    "text": b"hello\n" * 10,
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
    "gif": b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b";",
    "gif-sound": gif(),
    "archive": b"PK\x03\x04" + bytes(200),
    "vector": b"<svg xmlns='http://www.w3.org/2000/svg' width='100000' height='100000'/>",
}

CASES: dict[str, Harm] = {
    **{f"image-path-{name}": annotate("train", image_path=path) for name, path in PATHS.items()},
    **{f"mask-path-{name}": annotate("test", mask_path=path) for name, path in PATHS.items()},
    **{f"image-{name}": write(IMAGE, content) for name, content in PICTURES.items()},
    **{f"mask-{name}": write(MASK, PICTURES[name]) for name in ("png-huge", "png-text-bomb", "tiff-huge")},
    "prefix-up": meta(prefix="../.."),
    "prefix-absolute": meta(prefix="/"),
    "prefix-ansi": meta(prefix="\x1b]0;cup\x07/"),
    "class-ansi": annotate("train", anomaly_class="\x1b[31mscratch"),
    "class-newline": annotate("train", anomaly_class="a\nb"),
    "category-ansi": annotate("train", category="\x1b[31mcup"),
    "view-of-many-digits": annotate("train", image_path=f"OK/cup_0001_C{'9' * 200}_x.jpg"),
    "json-gigabyte": sparse(ANNOTATIONS, 2**30),
    "json-just-too-large": sparse(ANNOTATIONS, MAX_JSON_BYTES + 1),
    "json-deep-lists": write(ANNOTATIONS, b"[" * 100_000 + b"]" * 100_000),
    "json-deep-objects": write(ANNOTATIONS, b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "json-deep-inside": write(ANNOTATIONS, b'{"meta": {}, "train": [], "test": ' + b"[" * 100_000),
    "json-long-number": write(ANNOTATIONS, b'{"meta": ' + b"9" * 1_000_000 + b"}"),
    "json-not-utf8": write(ANNOTATIONS, b'{"meta": "\xff\xfe"}'),
    "json-empty": write(ANNOTATIONS, b""),
    "json-pipe": pipe(ANNOTATIONS),
    "json-folder": folder(ANNOTATIONS),
    "json-link-out": link(ANNOTATIONS, "../../outside"),
    "json-link-loop": link(ANNOTATIONS, "cup.json"),
    "json-named-newline": lambda root: (root / ANNOTATIONS).rename(root / "realiad_jsons/a\nb.json"),
    "json-named-ansi": lambda root: (root / ANNOTATIONS).rename(root / "realiad_jsons/\x1b[31mcup.json"),
    "annotations-link-out": link("realiad_jsons", "../outside"),
    "images-link-out": link("realiad_256", "../outside"),
    "image-link-out": link(IMAGE, "../../../../../outside"),
    "image-link-absolute": link(IMAGE, "/etc/hostname"),
    "image-link-loop": link(IMAGE, Path(IMAGE).name),
    "image-folder-link-out": link(IMAGE.rsplit("/", 1)[0], "../../../../outside"),
    "mask-link-out": link(MASK, "../../../../../../outside"),
    "image-pipe": pipe(IMAGE),
    "image-folder": folder(IMAGE),
    "image-too-large": sparse(IMAGE, MAX_FILE_BYTES + 1),
    "mask-pipe": pipe(MASK),
}


@pytest.fixture(scope="module")
def index_and_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "pristine"
    index = tiny_index(categories=["cup"], train=1, test=2, views=2, absent=False)
    make_tiny_realiad(root, index)
    write_annotations(root, index)
    return root


@pytest.fixture
def root(index_and_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index_and_root, tmp_path / "a" / "root"))


def peak_megabytes() -> float:
    resource = pytest.importorskip("resource", reason="this system does not tell a process's memory")
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if os.uname().sysname == "Darwin" else 2**10)


def said_by_reading(root: Path) -> Iterator[str]:
    """The error of reading and decoding everything: the way of builds, live training and prediction."""

    def read() -> None:
        for sample in read_realiad(RealIADLayout(root)).samples:
            decode_sample(root, sample, 16)

    with pytest.raises(DatasetError) as caught:
        read()
    yield str(caught.value)


def said_by_the_check(root: Path) -> Iterator[str]:
    try:
        report = check_dataset(RealIADLayout(root))
    except DatasetError as error:  # of the folders themselves
        yield str(error)
        return
    assert not report.sound
    yield from (finding.message for finding in report.errors)


@pytest.mark.parametrize("name", CASES)
def test_harm_ends_in_a_sentence_in_bounded_time_and_memory(root: Path, name: str) -> None:
    assert len(CASES) >= 60
    try:
        CASES[name](root)
    except FileNotFoundError:
        raise
    except OSError as error:
        pytest.skip(f"this file system cannot hold the case ({error})")
    before = peak_megabytes()
    start = time.process_time()
    said = [*said_by_reading(root), *said_by_the_check(root)]
    assert time.process_time() - start < SECONDS
    assert peak_megabytes() - before < MEGABYTES
    assert len(said) >= 2
    for sentence in said:
        assert sentence.isprintable(), sentence
        assert len(sentence) < 900
        assert "root" in sentence or "cup" in sentence


def test_the_same_data_unharmed_are_read(root: Path) -> None:
    assert check_dataset(RealIADLayout(root)).sound
    assert [
        decode_sample(root, sample, 16)[0].any() for sample in read_realiad(RealIADLayout(root)).samples
    ] == [True] * 3


@pytest.mark.parametrize("name", ["cup\n.png", "\x1b[31mcup.png", "cup\x9b.jpg"])
def test_photographs_with_names_that_would_command_a_terminal(tmp_path: Path, name: str) -> None:
    try:
        (tmp_path / name).touch()
    except OSError as error:
        pytest.skip(f"this file system cannot hold the case ({error})")
    for given in (tmp_path, tmp_path / name):
        with pytest.raises(DatasetError, match="control characters") as caught:
            find_parts([given], (1, 2), ["cup"])
        assert str(caught.value).isprintable()


def test_a_picture_of_deep_colours_is_refused_by_its_bits(root: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(root / IMAGE, format="TIFF")
    (finding,) = check_dataset(RealIADLayout(root)).errors
    assert "8 or 16 bits a channel, got 32" in finding.message
