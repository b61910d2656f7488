"""From own photographs to a decision: one camera, five cameras of which one is missing, the tutorial."""

import csv
import gc
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.__main__ import run
from idif.runs.deployment import deployment_of
from idif.runs.run import open_run
from tests.helpers.browser import CHROMIUM
from tests.helpers.photographs import write_part, write_photographs

ROOT = Path(__file__).parents[2]
OF_GRADIO = pytest.mark.filterwarnings(
    # sockets and event loops that Gradio leaves to the garbage collector
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    # what Gradio's own statistics ask of pandas; as an error it stops the queue
    "ignore::DeprecationWarning",
)
CAMERAS = ("Top", "left", "right", "Front", "back")
TINY = "--image-size 32 --teacher-weights untrained"
RATE = "--set eval.threshold=false-positive-rate --set eval.target_fpr=0.2 --set train.holdout=0.4"


class Terminal:
    """Runs command lines in this process; keeps what the last one printed."""

    def __init__(self) -> None:
        self._printed = io.StringIO()

    @property
    def text(self) -> str:
        """What the last command printed, or the one that is running has."""
        return self._printed.getvalue()

    def __call__(self, line: str, code: int = 0) -> str:
        """The output of ``idif`` and a command line; spaces and line ends alike are one space."""
        self._printed = io.StringIO()
        with redirect_stdout(self._printed), redirect_stderr(self._printed):
            got = run(shlex.split(line))
        assert got == code, f"{line}: exit code {got}\n{self.text}"
        assert "Traceback" not in self.text
        return " ".join(self.text.split())


@contextmanager
def at_home(home: Path) -> Iterator[Terminal]:
    """A terminal of 80 columns in a folder with the configs of this project."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        patched.setattr("cli.terminal.console.out.width", 80)
        if not (home / "configs").exists():
            shutil.copytree(ROOT / "configs", home / "configs")
        yield Terminal()


@pytest.fixture
def idif(tmp_path: Path) -> Iterator[Terminal]:
    with at_home(tmp_path) as terminal:
        yield terminal


@dataclass(frozen=True)
class Journey:
    """A folder with own photographs, and a run trained and evaluated on them."""

    home: Path
    said: dict[str, str]
    """Command -> what it printed on the way."""


def travel(home: Path, lines: Sequence[str]) -> Journey:
    """Import, cache, train and evaluate."""
    with at_home(home) as idif:
        lines = [
            *lines,
            f"cache build realiad --root data --images realiad_32 --store s.zarr {TINY}",
            f"train --config configs/patchcore.yaml --set cache.store=s.zarr --set run.name=first {RATE}",
            "eval runs/first --export table.md",
        ]
        return Journey(home, {" ".join(line.split()[:2]): idif(line) for line in lines})


@pytest.fixture(scope="module")
def one_camera(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    home = tmp_path_factory.mktemp("one")
    write_photographs(home / "photographs" / "tile", "IMG_{sample}.jpg", ["1"])
    return travel(home, ["data import folder photographs data --size 32 --preview"])


@pytest.fixture(scope="module")
def five_cameras(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    home = tmp_path_factory.mktemp("five")
    write_photographs(home / "photographs" / "valve", "part{sample}_{view}.png", CAMERAS)
    return travel(home, ["data import folder photographs data --pattern '{sample}_{view}' --size 32"])


def test_own_photographs_of_one_camera(one_camera: Journey, idif: Terminal) -> None:
    shutil.copytree(one_camera.home, ".", dirs_exist_ok=True)
    said = idif("cache build realiad --root photographs", code=2)
    assert "import your own photographs with `idif data import folder photographs OUT`" in said
    said = one_camera.said["data import"]
    assert "data: tile; 12 training and 10 test samples, 22 images, no masks" in said
    assert "next: idif data check realiad --root data --images realiad_32" in said
    assert "sound, 0 warnings" in idif("data check realiad --root data --images realiad_32")
    said = one_camera.said["eval runs/first"]
    assert "threshold" in said
    assert "(20 % false-alarm target, 5 held-out good parts): misses 0 of 4" in said
    assert "missed by class: scratch 0/4" in said
    assert "I-AUROC" not in said, "with one camera that of samples"
    assert "wrote table.md" in said
    idif("report runs/first")
    page = re.sub(r"<[^>]+>", " ", Path("runs/first/report.html").read_text(encoding="utf-8"))
    assert "Missing views" not in page
    assert "By camera" not in page
    write_part(Path("new"), ["a.jpg"], 7, defective=False)
    write_part(Path("new"), ["b.jpg"], 8, defective=True)
    said = idif("predict runs/first new --out found --csv parts.csv")
    assert "2 parts: 1 anomalous, 1 normal; threshold" in said
    assert "(20 % false-alarm target, 5 held-out good parts)" in said
    assert "wrote found/predictions.jsonl and the heat maps of each part beside it" in said
    assert "wrote parts.csv" in said
    rows = list(csv.DictReader(Path("parts.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["part"], row["decision"]) for row in rows] == [("b", "anomalous"), ("a", "normal")]


def test_five_cameras_of_which_one_is_missing(five_cameras: Journey, idif: Terminal) -> None:
    shutil.copytree(five_cameras.home, ".", dirs_exist_ok=True)
    assert "views: 1 = back, 2 = Front, 3 = left, 4 = right, 5 = Top" in five_cameras.said["data import"]
    assert "misses 0 of 4" in five_cameras.said["eval runs/first"]
    swept = idif("sweep missing-views runs/first")
    assert "1 │ Top" in swept, "the best single camera, by name"
    assert "C5" not in swept
    idif("report runs/first")
    page = re.sub(r"<[^>]+>", " ", Path("runs/first/report.html").read_text(encoding="utf-8"))
    assert "back, Front, left, right, Top" in page
    assert "C5" not in page
    # names of the file, of the folder, of the photographs in a folder of the part
    parts = {"byname/p1_{}.png": "p1", "bycamera/{}/p2.png": "p2", "bypart/p3/{}.png": "p3"}
    for number, (pattern, name) in enumerate(parts.items()):
        files = [Path(pattern.format(camera)) for camera in CAMERAS]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        write_part(Path(), list(map(str, files)), number, defective=True)
        files[1].unlink()
        said = idif(f"predict runs/first {pattern.partition('/')[0]} --out found/{name}")
        assert "1 part: 1 anomalous, 0 normal; threshold" in said
        assert "back ┃ Front ┃ right ┃ Top" in said
        (line,) = Path(f"found/{name}/predictions.jsonl").read_text(encoding="utf-8").splitlines()
        result = json.loads(line)
        assert result["sample"] == name
        assert result["missing"] == [3]
        assert result["cameras"] == {"1": "back", "2": "Front", "3": "left", "4": "right", "5": "Top"}
        assert max(result["views"], key=lambda view: result["views"][view]["score"]) == "5", "the defect's"
        assert {file.stem for file in Path(f"found/{name}/{name}").glob("*.png")} == {*CAMERAS} - {"left"}
    facts = deployment_of(open_run(Path("runs/first")), "valve").facts()
    assert json.loads(facts["cameras"]) == ["back", "Front", "left", "right", "Top"]


def look(idif: Terminal, visit: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve the run's page, and do in a browser what a visitor does, given its page."""
    for module in ("gradio", "playwright"):
        pytest.importorskip(module, reason=f"{module} not installed; the extra `test` brings it")
    if CHROMIUM is None:
        pytest.skip("Chromium not found; the page is not opened")
    from playwright.sync_api import sync_playwright

    def visited() -> None:
        (address,) = re.findall(r"http://\S+?/(?=\s|$)", idif.text)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(30_000)
            page.goto(address)
            visit(page)
            assert page.get_by_text("Error").count() == 0
            browser.close()

    monkeypatch.setattr("cli.commands.app.wait_until_stopped", visited)
    idif("app runs/first")
    gc.collect()


@OF_GRADIO
def test_one_camera_from_own_photographs_to_a_decision_on_the_page(
    one_camera: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = one_camera.home
    write_part(home / "new", ["IMG_a.jpg"], 7, defective=False)
    write_part(home / "new", ["IMG_b.jpg"], 8, defective=True)

    def visit(page: Any) -> None:
        page.set_input_files("#upload input[type=file]", [home / "new" / "IMG_b.jpg"])
        page.locator("#verdict .bad", has_text="Anomalous").wait_for()
        said = page.locator("#verdict").inner_text()
        assert "On the test samples, threshold" in said
        assert "(20 % false-alarm target, 5 held-out good parts): misses 0 of 4" in said
        assert page.locator("#maps .pictures span").all_inner_texts() == ["photograph", "anomaly map"]
        small, large = page.locator("#maps img").last, page.locator("#maps .zoom input").last
        before = small.bounding_box()["width"]
        large.check()
        assert small.bounding_box()["width"] > 1.5 * before, "enlarged on a click"
        large.uncheck()
        page.click("#sample input")
        page.get_by_role("option", name="IMG_0200.jpg").click()
        page.locator("#verdict", has_text="Label of the test sample: scratch").wait_for()
        page.get_by_role("tab", name="Many parts").click()
        page.set_input_files("#archive input[type=file]", sorted((home / "new").glob("*.jpg")))
        page.locator("#archive .file-preview").wait_for()
        page.get_by_role("button", name="Score all parts").click()
        page.locator("#results", has_text="2 parts: 1 anomalous, 1 normal.").wait_for()
        cells = page.locator("#results tr").all_inner_texts()
        assert [line.split("\t")[:2] for line in cells] == [
            ["part", "decision"],
            ["IMG_b", "anomalous"],
            ["IMG_a", "normal"],
        ]
        page.get_by_role("tab", name="One part").click()
        typed = page.locator("#threshold input[type=number]")
        typed.fill("1000000")
        typed.press("Enter")
        page.locator("#verdict .good").wait_for()
        page.get_by_role("tab", name="Many parts").click()
        page.locator("#results", has_text="2 parts: 0 anomalous, 2 normal").wait_for()
        everything = page.locator("body").inner_text().lower()
        for word in ("camera", "missing", "c1"):
            assert word not in everything, "with one camera there is nothing to say of several"

    with at_home(home) as idif:
        look(idif, visit, monkeypatch)


@OF_GRADIO
def test_five_cameras_of_which_one_is_missing_on_the_page(
    five_cameras: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = five_cameras.home
    write_part(home / "new", [f"p1_{camera}.png" for camera in CAMERAS], 1, defective=True)
    given = [home / "new" / f"p1_{camera}.png" for camera in CAMERAS if camera != "left"]

    def visit(page: Any) -> None:
        page.set_input_files("#upload input[type=file]", given)
        page.locator("#verdict .bad", has_text="Anomalous").wait_for()
        said = page.locator("#verdict").inner_text()
        assert "score from 4 of 5 cameras" in said
        assert "misses 0 of 4" in said
        assert "with 4 of 5 cameras they may be others" in said
        assert page.locator("#maps figcaption > b").all_inner_texts() == sorted(CAMERAS, key=str.casefold)
        assert "no photograph" in page.locator("#maps figure", has_text="left").inner_text()
        assert page.locator("#cameras input").count() == 4, "only cameras with a photograph"

        page.locator("#cameras").get_by_label("Top", exact=True).uncheck()
        page.locator("#verdict .good", has_text="Normal").wait_for()
        assert "switched off" in page.locator("#maps figure", has_text="Top").inner_text()

        page.get_by_role("button", name="Photographs and cameras").click()
        page.click("#photograph-3 input")
        page.get_by_role("option", name="p1_Top.png").click()
        page.locator("#maps figure", has_text="left").locator("img").first.wait_for()
        assert "p1_Top.png" in page.locator("#maps figure", has_text="left").inner_text()
        assert "no photograph" in page.locator("#maps figure", has_text="Top").last.inner_text()

        page.get_by_role("tab", name="Many parts").click()
        page.set_input_files("#archive input[type=file]", given)
        page.locator("#archive .file-preview").wait_for()
        page.get_by_role("button", name="Score all parts").click()
        page.locator("#results", has_text="1 part: 1 anomalous, 0 normal.").wait_for()
        header, cells = page.locator("#results tr").all_inner_texts()
        seen = dict(zip(header.split("\t"), cells.split("\t"), strict=True))
        assert (seen["part"], seen["decision"], seen["left"], seen["missing"]) == (
            "p1",
            "anomalous",
            "-",
            "left",
        )

    with at_home(home) as idif:
        look(idif, visit, monkeypatch)


def tutorial() -> list[str]:
    """The command lines of the tutorial from the import on."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    return re.findall(r"^idif ([^#\n]+)", text[text.index("and import them") :], re.MULTILINE)


@pytest.mark.parametrize("cameras", [1, 2])
def test_the_commands_of_the_tutorial(cameras: int, idif: Terminal) -> None:
    """As they are written, but with small images, an untrained teacher and, instead of IDIF, PaDiM."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    (config,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    settings = yaml.safe_load(config) | {"method": {"name": "padim"}, "train": {"holdout": 0.1}}
    del settings["corruption"]
    Path("mine.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    views = [str(number) for number in range(1, cameras + 1)]
    write_photographs(Path("photographs/housing"), "{sample}_{view}.png", views, train=30)
    write_part(Path("new-part"), [f"{view}.jpg" for view in views], 3, defective=True)
    lines = tutorial()
    assert len(lines) >= 14
    for line in lines:
        if cameras == 1 and (line.startswith("sweep") or line.startswith("export")):
            continue  # a sweep needs several cameras
        if cameras == 1:
            line = line.replace("--pattern '{sample}_{view}.png' ", "")
        if line.startswith("cache build"):
            line = line.replace("--image-size 128", TINY)
        said = idif(line.strip())
        if line.startswith("predict"):
            assert "1 part: 1 anomalous, 0 normal" in said
