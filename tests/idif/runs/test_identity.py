"""A run's identity: other encoders, data, rules or weights and damaged files are refused in a sentence."""

import json
import shutil
from pathlib import Path

import pytest

from cache import FeatureStore
from cli.__main__ import run
from idif.errors import StoreMismatch
from idif.fingerprint import sha256_of_file
from idif.report.run_data import read_run
from idif.runs.api import load_run
from idif.runs.fitted import load_decision
from idif.runs.listing import summarize_run
from idif.runs.run import open_run
from tests.helpers.sealed_run import change_json
from tests.helpers.tiny_run import FAST, SIZE

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def others(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stores of the same parts at another size, and of fewer parts."""
    home = tmp_path_factory.mktemp("others")
    build = ["cache", "build", "realiad", f"--root={world / 'data'}", "--teacher-weights=untrained"]
    assert run([*build, f"--store={home / 'large.zarr'}", "--image-size=64"]) == 0
    shutil.copytree(world / "data", home / "data")
    for path in (home / "data" / "realiad_jsons").glob("cup.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        content["train"] = [entry for entry in content["train"] if "S0000" not in json.dumps(entry)]
        path.write_text(json.dumps(content), encoding="utf-8")
    build[3] = f"--root={home / 'data'}"
    assert run([*build, f"--store={home / 'fewer.zarr'}", f"--image-size={SIZE}"]) == 0
    return {"large": home / "large.zarr", "fewer": home / "fewer.zarr"}


@pytest.fixture(scope="module")
def evaluated(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny run, evaluated."""
    folder = tmp_path_factory.mktemp("evaluated") / "tiny"
    shutil.copytree(world / "runs" / "tiny", folder)
    assert run(["eval", str(folder), "--no-maps"]) == 0
    return folder


@pytest.fixture
def own(evaluated: Path, tmp_path: Path) -> Path:
    """A copy of the evaluated run."""
    shutil.copytree(evaluated, tmp_path / "tiny")
    return tmp_path / "tiny"


def test_other_training_samples_are_refused_from_python_too(own: Path, others: dict[str, Path]) -> None:
    test, training = (FeatureStore.open(others["fewer"], split=split) for split in ("test", "train"))
    with pytest.raises(StoreMismatch, match="training: the training samples of cup are not those of the run"):
        load_run(own).evaluate(test, training)


@pytest.mark.parametrize(
    ("store", "message"), [("large", "images of 64 px"), ("fewer", "training samples of cup are not those")]
)
@pytest.mark.parametrize("command", [["eval"], ["sweep", "missing-views"]])
def test_another_store_is_refused(
    own: Path, others: dict[str, Path], store: str, message: str, command: list[str], capsys: Capture
) -> None:
    (own / "metrics.json").unlink(missing_ok=True)
    assert run([*command, str(own), f"--set=cache.store={others[store].as_posix()}"]) == 2
    assert message in capsys.readouterr().err
    assert not (own / "metrics.json").exists()


@pytest.mark.parametrize("store", ["large", "fewer"])
def test_a_run_is_not_resumed_with_another_store(
    own: Path, world: Path, others: dict[str, Path], store: str, capsys: Capture
) -> None:
    shutil.rmtree(own / "cup")
    before = {name: sha256_of_file(own / name) for name in ("teacher.safetensors", "environment.json")}
    settings = [f"--set=run.dir={own.parent.as_posix()}", f"--set=cache.store={others[store].as_posix()}"]
    assert run(["train", f"--config={world / 'c.yaml'}", *FAST, *settings, "--resume"]) == 2
    assert str(others[store]) in capsys.readouterr().err
    assert before == {name: sha256_of_file(own / name) for name in before}


def test_a_decision_keeps_the_rules_that_it_was_fitted_under(own: Path, capsys: Capture) -> None:
    assert run(["eval", str(own), "--no-maps", "--set=eval.score=topk", "--set=eval.top_k=7"]) == 0
    decision = load_decision(open_run(own), "cup")
    assert (decision.rules.score, decision.rules.top_k) == ("topk", 7)
    with pytest.raises(Exception, match=r"eval.sample_score: mean, but .*metrics.json was made with max"):
        load_decision(open_run(own, ["eval.sample_score=mean"]), "cup")
    fixed = load_decision(open_run(own, ["eval.threshold=0.25"]), "cup")
    assert (fixed.thresholds.part, fixed.thresholds.view) == (0.25, 0.25)
    with pytest.raises(Exception, match=r"eval.threshold: false-positive-rate, but .* made with f1-max"):
        load_decision(open_run(own, ["eval.threshold=false-positive-rate"]), "cup")


def test_results_of_earlier_weights_are_refused_or_left_out(own: Path, capsys: Capture) -> None:
    assert run(["sweep", "missing-views", str(own)]) == 0
    assert read_run(own).sweep is not None
    assert summarize_run(own).metrics is not None
    note = own / "cup" / "checkpoint" / "checkpoint.json"
    change_json(note, lambda value: value | {"sha256": value["sha256"] | {"model.safetensors": "0" * 64}})
    capsys.readouterr()
    for command in (["report", str(own)], ["eval", str(own), "--from-predictions"]):
        assert run(command) == 2
        assert "of an earlier training of cup; evaluate the run again" in capsys.readouterr().err
    assert summarize_run(own).metrics is None


def test_a_sweep_by_other_rules_is_left_out_of_the_report(own: Path) -> None:
    assert run(["sweep", "missing-views", str(own), "--set=eval.sample_score=mean"]) == 0
    found = read_run(own)
    assert found.sweep is None
    assert any("sweep.json was scored by other rules" in text for text in found.caveats)


FILES = ("config.yaml", "environment.json", "metrics.json", "cup/checkpoint/checkpoint.json")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("harm", ["cut at a line", "empty", "other type", "not UTF-8", "one digit"])
def test_a_damaged_file_is_named_in_one_sentence(own: Path, file: str, harm: str, capsys: Capture) -> None:
    path = own / file
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    digit = next(i for i, byte in enumerate(data) if chr(byte) in "12345678")
    path.write_bytes(
        {
            "cut at a line": b"".join(lines[: len(lines) // 2]),
            "empty": b"",
            "other type": b"[1]\n",
            "not UTF-8": b"\xff" + data,
            "one digit": data[:digit] + b"9" + data[digit + 1 :],
        }[harm]
    )
    capsys.readouterr()
    assert run(["report", str(own)]) == 2 or file.endswith("checkpoint.json")
    if not file.endswith("metrics.json"):
        assert run(["eval", str(own)]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert path.name in error
