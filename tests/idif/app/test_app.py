"""The page: it shows the results of `idif predict` and nothing of the server, and uploads are limited."""

import base64
import csv
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
import typer
from PIL import Image

from cli.__main__ import run
from cli.commands.app import wait_until_stopped
from cli.terminal.signals import Terminated
from idif.app.uploads import PHOTO_MB, Upload, UploadError
from tests.helpers.browser import CHROMIUM

LACKING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
VIEWS = (1, 2, 3)


@pytest.fixture
def upload() -> Iterator[Upload]:
    made = Upload.make()
    yield made
    made.remove()
    assert not made.folder.parent.exists()


def photo(path: Path) -> Path:
    Image.new("RGB", (48, 48), (90, 120, 60)).save(path)
    return path


def zipped(path: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"not a photograph")
    return path


def test_a_zip_archive_is_a_folder_for_each_part(upload: Upload, tmp_path: Path) -> None:
    names = ["a/2.png", "a/10.png", "a/1.png", "b/1.png", "b/readme.txt"]
    upload.add([str(zipped(tmp_path / "parts.zip", names))])
    first, second = upload.parts(VIEWS, ("cup",), "cup")
    assert [path and path.name for path in first.images] == ["1.png", "2.png", "10.png"]
    assert (first.name, second.name) == ("a", "b")
    assert second.images[1:] == (None, None)


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "C:/evil.png", "a/../../evil.png"])
def test_a_zip_archive_writes_nowhere_else(upload: Upload, tmp_path: Path, name: str) -> None:
    archive = zipped(tmp_path / "parts.zip", [name])
    with pytest.raises(UploadError, match=r"parts\.zip: expected a"):
        upload.add([str(archive)])
    assert not list(upload.folder.parent.rglob("evil.png"))


def test_uploads_are_limited(upload: Upload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = tmp_path / "big.png"
    with big.open("wb") as file:
        file.truncate(PHOTO_MB * 1_000_000 + 1)
    with pytest.raises(UploadError, match=r"big\.png: 25 MB"):
        upload.add([str(big)])
    other = tmp_path / "page.html"
    other.write_text("x")
    with pytest.raises(UploadError, match=r"page\.html: expected a photograph"):
        upload.add([str(other)])
    monkeypatch.setattr("idif.app.uploads.MAX_FILES", 2)
    with pytest.raises(UploadError, match=r"more than 2 photographs"):
        upload.add([str(zipped(tmp_path / "many.zip", ["1.png", "2.png", "3.png"]))])
    with pytest.raises(UploadError, match="at most 2 photographs"):
        upload.add([str(photo(tmp_path / f"{n}.png")) for n in range(3)])
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK")
    with pytest.raises(UploadError, match="cannot be read"):
        upload.add([str(broken)])


def test_error_messages_contain_no_paths(upload: Upload, tmp_path: Path) -> None:
    upload.add([str(photo(tmp_path / f"{n}.png")) for n in range(4)])
    with pytest.raises(UploadError) as told:
        upload.parts(VIEWS, ("cup",), "cup")
    assert "4 photographs, but a part has 3 views" in str(told.value)
    assert str(upload.folder.parent) not in str(told.value)
    inside = upload.folder / "x.png"
    text = f"{inside}: image cannot be read (cannot identify image file {str(inside)!r})"
    assert upload.hide_paths(text) == "x.png: image cannot be read (cannot identify image file 'x.png')"


def test_the_category_is_read_from_file_names(upload: Upload, tmp_path: Path) -> None:
    upload.add([str(photo(tmp_path / f"cup_0001_C{n}_x.png")) for n in (1, 3)])
    (part,) = upload.parts(VIEWS, ("bolt", "cup"), "bolt")
    assert part.category == "cup"
    assert [path is not None for path in part.images] == [True, False, True]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "somewhere", "::"])
def test_other_machines_need_a_password(
    world: Path, host: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IDIF_APP_PASSWORD", raising=False)
    assert run(["app", str(world / "runs" / "tiny"), f"--host={host}"]) == 2
    assert "a password is needed" in capsys.readouterr().err
    assert run(["app", str(world / "runs" / "tiny"), f"--host={host}", "--password="]) == 2


def test_without_gradio_the_error_says_how_to_install_it(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(["app", str(world / "runs" / "tiny")]) == 2
    assert "extra `app`" in capsys.readouterr().err


@pytest.mark.parametrize(("end", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_the_page_ends_without_an_error(
    end: type[BaseException], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: threading.Event, timeout: float | None = None) -> bool:
        raise end

    monkeypatch.setattr(threading.Event, "wait", stopped)
    with pytest.raises(typer.Exit) as ended:
        wait_until_stopped()
    assert ended.value.exit_code == code


@pytest.fixture
def address(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    """The page of the tiny run, served by a process of its own."""
    if LACKING:
        pytest.skip(f"{' and '.join(LACKING)} not installed; the extra `test` brings them")
    if CHROMIUM is None:
        pytest.skip("Chromium not found; the page is not opened")
    shutil.copytree(world / "runs" / "tiny", tmp_path / "run")
    assert run(["eval", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with (tmp_path / "stderr").open("w") as errors:
        server = subprocess.Popen(
            [sys.executable, "-m", "cli", "app", str(tmp_path / "run"), "--json"],
            cwd=Path(__file__).parents[3],
            env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line, (tmp_path / "stderr").read_text()
        yield str(json.loads(line)["url"])
        server.terminate()
        more, _ = server.communicate(timeout=60)
        assert server.returncode == 143
        assert not list(temporary.glob("idif*")), "the photographs of all visits are deleted"
        assert more == "", "--json prints one object"


def scored(capsys: pytest.CaptureFixture[str], folder: Path, photos: list[Path]) -> dict[str, Any]:
    assert run(["predict", str(folder), *map(str, photos), "--json"]) == 0
    (part,) = json.loads(capsys.readouterr().out)["parts"]
    return dict(part)


def test_a_visitor_sees_the_results_of_predict(
    world: Path, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from playwright.sync_api import sync_playwright

    folder = next((world / "data" / "realiad_256" / "cup" / "NG").rglob("S1003"))
    photos = sorted(folder.glob("*.jpg"))
    whole = scored(capsys, tmp_path / "run", photos)
    without = scored(capsys, tmp_path / "run", [photos[0], photos[2]])
    assert f"{whole['score']:.4g}" != f"{without['score']:.4g}", "the test must be able to fail"

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)

        def shows(selector: str, text: str) -> str:
            found = page.locator(selector, has_text=text)
            found.wait_for()
            return str(found.inner_text())

        def shows_score(value: float) -> str:
            page.locator("#verdict .verdict").get_by_text(f"{value:.4g}", exact=True).wait_for()
            return str(page.locator("#verdict").inner_text())

        page.set_input_files("#upload input[type=file]", photos)
        seen = shows_score(whole["score"])
        assert {True: "Anomalous", False: "Normal"}[whole["anomalous"]] in seen
        assert f"Anomalous from {whole['threshold']:.4g} on;" in seen, "the slider starts at the run's"
        assert "all 3 cameras" in seen
        assert page.locator("#maps figure").count() == 3
        assert page.locator("#maps img").count() == 6, "photograph and map of each"

        page.locator("#cameras").get_by_label("C2", exact=True).uncheck()
        assert "2 of 3 cameras" in shows_score(without["score"])
        assert "_C2_" in shows("#maps figure.off", "switched off")
        page.locator("#cameras").get_by_label("C2", exact=True).check()
        shows_score(whole["score"])

        ends = page.locator("#threshold input[type=range]")
        for end, word in (("max", "Normal"), ("min", "Anomalous")):
            page.fill("#threshold input[type=number]", str(ends.get_attribute(end)))
            page.press("#threshold input[type=number]", "Enter")
            page.locator("#verdict .verdict").get_by_text(word, exact=True).wait_for()
        beyond = float(str(ends.get_attribute("max"))) + 5
        page.fill("#threshold input[type=number]", str(beyond))
        page.press("#threshold input[type=number]", "Enter")
        shows("#verdict", f"Anomalous from {beyond:.4g} on")
        page.locator(f"#threshold input[type=range][max='{beyond:g}']").wait_for()
        errors = [found.locator("xpath=../..").inner_text() for found in page.get_by_text("Error").all()]
        assert errors == []

        before = page.locator("#maps img").nth(1).get_attribute("src")
        page.screenshot(path=tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 10_000

        cut = tmp_path / "cup_1003_NG_C2_x.jpg"
        cut.write_bytes(photos[1].read_bytes()[:300])
        page.set_input_files("#upload input[type=file]", [photos[0], cut])
        shows("#verdict", "image cannot be read")
        assert page.locator("#maps img").count() == 2
        assert "cannot be read" in shows("#maps figure.off", "C2")
        assert page.locator("#maps img").nth(1).get_attribute("src") != before
        page.set_input_files("#upload input[type=file]", [*photos, cut])
        shows("#verdict", "a second file for view 2")

        page.click("#sample input")
        page.get_by_role("option", name="S1003").click()
        assert "scratch" in shows("#verdict", "Label of the test sample")
        titles = ["photograph", "anomaly map", "labeled defect"]
        assert page.locator("#maps .pictures span").all_inner_texts() == titles * 3
        boxes = [page.locator("#maps img").nth(n).bounding_box() for n in range(3)]
        assert len({(box["width"], box["height"], box["y"]) for box in boxes if box}) == 1, "side by side"

        page.get_by_role("tab", name="Many parts").click()
        others = sorted((world / "data" / "realiad_256" / "bolt" / "OK" / "S1000").glob("*.jpg"))
        page.set_input_files("#archive input[type=file]", [*photos, *others])
        page.locator("#archive .file-preview").wait_for()
        page.get_by_role("button", name="Score all parts").click()
        link = page.get_by_role("link", name="Save 2 parts as CSV").get_attribute("href")
        assert link is not None
        table = base64.b64decode(link.split(",", 1)[1]).decode()
        rows = {row["part"]: row for row in csv.DictReader(io.StringIO(table))}
        assert float(rows["cup_1003"]["score"]) == pytest.approx(whole["score"], rel=1e-5)
        assert rows["cup_1003"]["decision"] == {True: "anomalous", False: "normal"}[whole["anomalous"]]
        assert rows["cup_1003"]["photographs"] == "; ".join(path.name for path in photos)
        assert rows["bolt_1000"]["category"] == "bolt"

        shown = page.content()
        browser.close()
    assert {urlparse(url).hostname for url in asked if not url.startswith("data:")} == {"127.0.0.1"}
    for place in (tmp_path, world, Path.cwd(), Path.home(), Path(__file__).parents[3]):
        assert str(place) not in shown
    assert "idif-" not in shown, "no folder of an upload"
