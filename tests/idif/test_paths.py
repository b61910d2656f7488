"""Names from files: which can be a folder's on every system, and what becomes of the others."""

import os
from pathlib import Path

import pytest

from idif.config.loader import load_configs
from idif.errors import ConfigError, DatasetError
from idif.inference.photo_grouping import find_parts
from idif.paths import is_portable_name, portable_name, relative_posix, resolve_inside

HOSTILE = [
    *("", ".", "..", "...", ".hidden", "a/b", "a\\b", "../up", "/abs", "c:", "a:b", "a*", 'a"', "a?", "<a"),
    "a|b",
    *("end.", "end ", " start", "con", "CON", "con.jpg", "Nul.txt", "aux", "prn", "com1", "LPT9.x", "com²"),
    *("conin$", "a\x00b", "a\nb", "a\x1b[31m", "a\x7fb", "a\x9bb", "a\u2028b", "a\ud800b", "x" * 101),
    "\u5b57" * 99,
]
PLAIN = ["cup", "zip lock", "a.b", "Kabel 1", "größe", "com10", "console", "nullable", "x" * 100, "字" * 50]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_names_that_no_folder_may_have(name: str) -> None:
    assert not is_portable_name(name)
    assert is_portable_name(portable_name(name))


@pytest.mark.parametrize("name", PLAIN, ids=ascii)
def test_ordinary_names_stay(name: str) -> None:
    assert is_portable_name(name)
    assert portable_name(name) == name


def test_a_path_is_measured_in_bytes() -> None:
    assert relative_posix("\u5b57" * 85, "key") == "\u5b57" * 85
    with pytest.raises(DatasetError, match="short enough"):
        relative_posix("\u5b57" * 86, "key")


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_looping_links_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DatasetError, match="loop"):
        resolve_inside(tmp_path, "loop/x.png")


@pytest.mark.skipif(os.name != "posix", reason="such a file cannot exist on Windows")
@pytest.mark.parametrize("file", ["...jpg", "con.jpg", "predictions.jsonl.png", ".. .png", "a:b.png"])
def test_no_photograph_names_a_folder_that_is_not_its_own(tmp_path: Path, file: str) -> None:
    (tmp_path / file).touch()
    (part,) = find_parts([tmp_path / file], [1], ["cup"])
    assert is_portable_name(part.name)
    assert part.name != "predictions.jsonl"


@pytest.mark.parametrize("name", ["..", "../up", "con", "a/b"])
def test_a_config_names_no_category_outside_the_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "c.yaml").write_text(f"data: {{categories: ['{name}']}}\n")
    with pytest.raises(ConfigError, match=r"data\.categories.*cannot be the name of a folder"):
        load_configs(tmp_path / "c.yaml")
