"""A method nothing like IDIF goes the whole way by the command line: no images, no maps, no views."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest
import yaml

from tests.helpers.vector_method import ConfigWithVector

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from tests.helpers.vector_method import installed_method
with installed_method():
    from cli.__main__ import run  # after the method is known: commands are made from the readers there are
    for line in sys.stdin.read().splitlines():
        code = run(line.split("\\t"))
        print(f"exit {code}", flush=True)
"""


def commands(*lines: list[str]) -> tuple[str, str]:
    """Standard output and error of some command lines in one process that knows the method."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        input="\n".join("\t".join(line) for line in lines),
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signals")


@pytest.fixture(scope="module")
def answers(home: Path) -> dict[str, tuple[int, Any]]:
    """Command -> (exit code, its JSON)."""
    (home / "data").mkdir()
    (home / "c.yaml").write_text(
        f"data: {{reader: signals, root: '{(home / 'data').as_posix()}'}}\n"
        f"cache: {{store: '{(home / 's.zarr').as_posix()}'}}\n"
        "teacher: {encoder: vector, weights: untrained}\n"
        "method: {name: vector, width: 3}\n"
        "train: {epochs: 4, batch_size: 4}\n"
        f"run: {{name: vector, dir: '{(home / 'runs').as_posix()}', tracking: none}}\n",
        encoding="utf-8",
    )
    run, config = str(home / "runs" / "vector"), f"--config={home / 'c.yaml'}"
    lines = {
        "build": ["cache", "build", "signals", config],
        "verify": ["cache", "verify", str(home / "s.zarr")],
        "info": ["cache", "info", str(home / "s.zarr")],
        "dry run": ["train", config, "--dry-run"],
        "train": ["train", config],
        "eval": ["eval", run, "--set=eval.record_normal_scores=true"],
        "again": ["eval", run, "--from-predictions"],
        "report": ["report", run],
        "sweep": ["sweep", "missing-views", run],
        "predict": ["predict", run, str(ROOT / "docs" / "images")],
        "export": ["export", run],
        "app": ["app", run],
    }
    out, err = commands(*([*line, "--json"] for line in lines.values()))
    answers: dict[str, tuple[int, Any]] = {}
    decoder, at = json.JSONDecoder(), 0
    for name in lines:
        value, at = decoder.raw_decode(out, at)
        at = out.index("exit ", at)
        stop = out.find("\n", at)
        answers[name] = int(out[at + 5 : stop]), value
        at = stop + 1
    assert "Traceback" not in err
    return answers


def test_every_command_does_it_or_says_in_one_sentence_why_not(answers: dict[str, tuple[int, Any]]) -> None:
    cannot = {"sweep": "have none", "predict": "not photographs", "export": "cannot be exported"}
    cannot["app"] = "`idif report RUN` shows its samples"
    for name, (code, value) in answers.items():
        assert code == (2 if name in cannot else 0), (name, value)
        if name in cannot:
            assert cannot[name] in value["error"], value
            assert "\n" not in value["error"]


def test_its_defaults_are_its_own(home: Path, answers: dict[str, tuple[int, Any]]) -> None:
    text = (home / "runs" / "vector" / "config.yaml").read_text(encoding="utf-8")
    assert "name: sgd" in text
    assert "lr: 0.05" in text
    log = (home / "runs" / "vector" / "weld" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["loss"] for line in log if '"loss"' in line]
    assert losses[-1] < losses[0]
    assert not list((home / "runs").rglob("textures*"))


def test_a_given_key_overrides_one_default_of_the_method() -> None:
    given = {"optimizer": {"momentum": 0.5}, "schedule": {"name": "cosine"}}
    config = ConfigWithVector.model_validate({"method": {"name": "vector"}, "train": given})
    assert (config.train.optimizer.name, config.train.optimizer.momentum) == ("sgd", 0.5)
    assert config.train.schedule.name == "cosine"
    assert config.eval.score == "method"
    other = ConfigWithVector.model_validate(
        {"method": {"name": "vector"}, "train": {"optimizer": {"name": "adam"}}, "eval": {"score": "max"}}
    )
    assert (other.train.optimizer.name, other.train.optimizer.momentum) == ("adam", 0.9)
    assert other.eval.score == "max"
    written = yaml.safe_load(other.to_yaml())
    assert ConfigWithVector.model_validate(written) == other


def test_its_results_are_of_samples_alone(home: Path, answers: dict[str, tuple[int, Any]]) -> None:
    metrics = answers["eval"][1]
    values = metrics["categories"]["weld"]
    assert 0 <= values["s_auroc"] <= 1
    assert values["i_auroc"] is None
    assert values["p_auroc"] is None
    assert "no maps" in values["reasons"]["p_auroc"]
    assert set(values["per_defect"]) == {"burn"}
    assert metrics["protocol"]["head"] == "vector"
    assert answers["again"][1]["categories"]["weld"]["s_auroc"] == values["s_auroc"]
    with h5py.File(home / "runs" / "vector" / "predictions.h5") as file:
        assert "maps" not in file
        assert file["view_scores"].shape == (8, 0)
        assert file["sample_class"].asstr()[2] == "burn"
    page = (home / "runs" / "vector" / "report.html").read_text(encoding="utf-8")
    assert "S-AUROC" in page
    assert "P-AUROC" not in page


def test_a_key_of_another_method_is_told_whose_it_is(home: Path, answers: dict[str, tuple[int, Any]]) -> None:
    config = f"--config={home / 'c.yaml'}"
    _, err = commands(
        ["train", config, "--set=method.fusion=ivc"],
        ["train", config, "--set=method.name=vectr"],
        ["train", config, "--set=corruption.probability=0.5"],
    )
    assert "'method.fusion' is a key of idif, not of the method vector" in err
    assert "there is no method 'vectr'; did you mean 'vector'?" in err
    assert "corruption: the method vector uses none" in err
