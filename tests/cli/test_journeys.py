"""From own photographs to a decision: one camera, five cameras of which one is missing, the tutorial."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from cli.__main__ import run
from cli.commands.export import deployment
from idif.runs.run import open_run
from tests.helpers.photographs import write_part, write_photographs

ROOT = Path(__file__).parents[2]
CAMERAS = ("Top", "left", "right", "Front", "back")
TINY = "--image-size 32 --teacher-weights untrained"
RATE = "--set eval.threshold=false-positive-rate --set eval.target_fpr=0.2 --set train.holdout=0.4"


class Terminal:
    """Runs command lines in this process; keeps what the last one printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.text = ""

    def __call__(self, line: str, code: int = 0) -> str:
        """The output of ``idif`` and a command line; spaces and line ends alike are one space."""
        got = run(shlex.split(line))
        printed = self._capsys.readouterr()
        self.text = printed.out + printed.err
        assert got == code, f"{line}: exit code {got}\n{self.text}"
        return " ".join(self.text.split())


@pytest.fixture
def idif(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cli.terminal.console.out.width", 80)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    return Terminal(capsys)


def test_own_photographs_of_one_camera(idif: Terminal) -> None:
    write_photographs(Path("photographs/tile"), "IMG_{sample}.jpg", ["1"])
    said = idif("cache build realiad --root photographs", code=2)
    assert "import your own photographs with `idif data import folder photographs OUT`" in said
    said = idif("data import folder photographs data --size 32 --preview")
    assert "data: tile; 12 training and 10 test samples, 22 images, no masks" in said
    assert "next: idif data check realiad --root data --images realiad_32" in said
    assert "sound, 0 warnings" in idif("data check realiad --root data --images realiad_32")
    idif(f"cache build realiad --root data --images realiad_32 --store s.zarr {TINY}")
    idif(f"train --config configs/patchcore.yaml --set cache.store=s.zarr --set run.name=first {RATE}")
    said = idif("eval runs/first --export table.md")
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


def test_five_cameras_of_which_one_is_missing(idif: Terminal) -> None:
    write_photographs(Path("photographs/valve"), "part{sample}_{view}.png", CAMERAS)
    said = idif("data import folder photographs data --pattern '{sample}_{view}' --size 32")
    assert "views: 1 = back, 2 = Front, 3 = left, 4 = right, 5 = Top" in said
    idif(f"cache build realiad --root data --images realiad_32 --store s.zarr {TINY}")
    idif(f"train --config configs/patchcore.yaml --set cache.store=s.zarr --set run.name=first {RATE}")
    assert "misses 0 of 4" in idif("eval runs/first")
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
    facts = deployment(open_run(Path("runs/first")), "valve").facts()
    assert json.loads(facts["cameras"]) == ["back", "Front", "left", "right", "Top"]


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
