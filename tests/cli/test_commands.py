"""The commands as users type them: the whole path on tiny data, and every mistake told in one sentence."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from cli.__main__ import run
from idif.evaluation.predictions import Predictions
from tests.helpers.sealed_run import change_config, change_json
from tests.helpers.tiny_run import FAST, SIZE

BUILD = ["cache", "build", "realiad", "--root=HOME/data"]


def one_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def test_a_run_explains_itself(world: Path) -> None:
    folder = world / "runs" / "tiny"
    facts = json.loads((folder / "environment.json").read_text())
    assert any("untrained" in caveat for caveat in facts["caveats"])
    assert any("generated" in caveat for caveat in facts["caveats"])
    assert len(facts["store_fingerprint"]) == 64
    assert facts["features"]["image_size"] == int(SIZE)
    bank = f"textures-{facts['textures']['fingerprint'][:16]}.npy"
    assert facts["textures"]["origin"] == "procedural: 128 images"
    assert (world / bank).is_file(), "beside the store, for other runs too"
    assert (folder / "config.yaml").exists()
    from idif.encoders.frozen import load_encoder

    assert load_encoder(folder / "teacher.safetensors").sha256 == facts["features"]["weights_sha256"]
    for category in ("cup", "bolt"):
        assert (folder / category / "checkpoint" / "model.safetensors").exists()
        assert (folder / category / "log.jsonl").exists()


def test_eval_and_sweep_write_what_the_surface_promises(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = world / "runs" / "tiny"
    assert run(["eval", str(folder), "--json"]) == 0
    printed = capsys.readouterr()
    assert "2 of 8 samples lack views and are scored by those they have" in printed.err
    metrics = json.loads(printed.out)
    assert metrics == json.loads((folder / "metrics.json").read_text())
    assert set(metrics["categories"]) == {"cup", "bolt"}
    for key in ("s_auroc", "s_ap", "s_f1_max", "i_auroc", "i_ap", "i_f1_max", "p_auroc", "p_ap", "aupro"):
        assert 0 <= metrics["mean"][key] <= 1
    assert 0 <= metrics["mean"]["aupro@0.1"] <= 1
    found = Predictions.open(folder / "predictions.h5")
    assert len(found) == 8
    before = metrics
    exports = [f"--export={folder / name}" for name in ("t.csv", "t.md", "t.tex", "maps.pkl")]
    assert run(["eval", str(folder), "--from-predictions", "--json", *exports]) == 0
    assert one_json(capsys) == before
    assert (folder / "t.csv").read_text().startswith("category,s_auroc")
    assert len(pickle.loads((folder / "maps.pkl").read_bytes())) == found.present.sum()
    rate = ["--set=eval.threshold=false-positive-rate", "--set=eval.pool_categories=true"]
    assert run(["eval", str(folder), "--json", *rate]) == 0
    chosen = one_json(capsys)
    assert chosen["categories"]["cup"]["thresholds"]["sample"]["rule"] == "false-positive-rate"
    assert chosen["categories"]["cup"]["thresholds"]["sample"]["items"] == 3
    assert chosen["pooled"]["counts"]["samples"] == 8

    assert run(["sweep", "missing-views", str(folder), "--json"]) == 0
    sweep = one_json(capsys)
    assert sweep == json.loads((folder / "sweep.json").read_text())
    assert len(sweep["subsets"]) == 7
    assert set(sweep["by_missing"]) == {"0", "1", "2"}
    # the second sample of each category has no second view in the annotations
    assert sweep["protocol"]["incomplete_samples"] == {"bolt": 1, "cup": 1}
    unscorable = {tuple(s["views"]): s["unscorable"] for s in sweep["categories"]["cup"]["subsets"]}
    assert unscorable == {views: int(views == (2,)) for views in unscorable}
    row = found.sample_id.index("cup/NG/scratch/S1001")
    assert found.present[row].tolist() == [True, False, True]
    assert found.labels[row].any(), "what is not listed makes nothing normal"
    full = sweep["categories"]["cup"]["by_missing"]["0"]["s_auroc"]
    assert full == pytest.approx(metrics["categories"]["cup"]["s_auroc"])
    assert run(["sweep", "missing-views", str(folder), "--subsets=paper", "--json"]) == 0
    assert one_json(capsys)["view_value"] is None


def test_a_listed_file_that_is_absent_stops_a_build_by_its_name(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world / "data", tmp_path / "data")
    gone = next((tmp_path / "data").rglob("cup_*_C3_*.jpg"))
    gone.unlink()
    build = ["cache", "build", "realiad", f"--root={tmp_path / 'data'}", f"--store={tmp_path / 's.zarr'}"]
    assert run([*build, f"--image-size={SIZE}", "--teacher-weights=untrained", "--category=cup"]) == 2
    assert gone.name in capsys.readouterr().err


def test_strategies_train_a_painter_once_and_compare_runs(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = world / "runs" / "tiny", world / "runs" / "again"
    shutil.copytree(first, second)
    change_config(second, "name: tiny", "name: again")
    small = ["--set=strategies.inpainter.epochs=1", "--set=strategies.inpainter.width=8"]
    command = ["sweep", "strategies", str(first / "cup"), str(second / "cup"), *small, "--json"]
    assert run(command) == 0
    found = one_json(capsys)
    assert found == json.loads((first / "cup" / "strategies.json").read_text())
    assert [(c["run"], c["strategy"]) for c in found["curves"]] == [
        (name, strategy) for name in ("tiny", "again") for strategy in ("dropout", "retrieve", "reconstruct")
    ]
    for curve in found["curves"]:
        assert list(curve["by_missing"]) == ["0", "1", "2"]
        assert curve["view_dropout"] == 0
        assert curve["categories"]["cup"]["1"]["samples"] + curve["categories"]["cup"]["1"]["unscorable"] == 4
    assert found["curves"][0]["by_missing"] == found["curves"][3]["by_missing"], "the same run, copied"
    painter = first / "cup" / "reconstruct" / "checkpoint" / "model.safetensors"
    before = painter.stat().st_mtime_ns
    assert run([*command, "--set=strategies.score_imputed=true"]) == 0
    assert one_json(capsys)["protocol"]["score_imputed"] is True
    assert painter.stat().st_mtime_ns == before, "a painter is trained once"
    assert run(["sweep", "strategies", str(first / "cup")]) == 2
    assert "delete the folder to train it again" in capsys.readouterr().err
    shutil.rmtree(second)


def test_one_category_of_a_run_works_as_a_run(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = world / "runs" / "tiny" / "cup"
    assert run(["eval", str(folder), "--no-maps", "--json"]) == 0
    metrics = one_json(capsys)
    assert set(metrics["categories"]) == {"cup"}
    assert metrics["mean"]["p_auroc"] is not None
    assert run(["eval", str(folder), "--from-predictions", "--json"]) == 0
    again = one_json(capsys)
    assert again["mean"]["p_auroc"] is None
    assert "--no-maps" in again["categories"]["cup"]["reasons"]["p_auroc"]


def test_resume_does_nothing_on_a_finished_run_and_refuses_another_config(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", f"--config={world / 'c.yaml'}", *FAST]
    weights = world / "runs" / "tiny" / "cup" / "checkpoint" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert run([*train, "--resume", "--json"]) == 0
    states = [model["state"] for model in one_json(capsys)["runs"][0]["models"]]
    assert states == ["finished before"] * 2
    assert weights.stat().st_mtime_ns == before
    assert run(train) == 2
    assert "--resume" in capsys.readouterr().err
    assert run([*train, "--resume", "--set=train.lr=0.5"]) == 2
    assert "train.lr is 0.5, but the run was started with" in capsys.readouterr().err
    gone = [*train, "--resume", f"--set=cache.store={world / 'gone.zarr'}", "--json"]
    assert run(gone) == 0, "nothing needs the features"
    captured = capsys.readouterr()
    assert "gone.zarr: no such store" in captured.err
    assert [model["state"] for model in json.loads(captured.out)["runs"][0]["models"]] == [
        "finished before"
    ] * 2
    assert run([*gone, "--set=data.categories=[cup,mug]"]) == 2, "mug is not trained"


def test_a_run_that_is_not_finished_has_no_results(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(world / "runs" / "tiny", folder)
    note = folder / "cup" / "checkpoint" / "checkpoint.json"
    change_json(note, lambda value: value | {"finished": False})
    assert run(["eval", str(folder)]) == 2
    assert "trained to epoch 1 of 1; results are those of the last epoch" in capsys.readouterr().err
    shutil.rmtree(folder / "cup")
    assert run(["eval", str(folder)]) == 2
    assert "cup is not trained yet" in capsys.readouterr().err


def test_a_run_may_start_from_another_and_says_so(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = world / "runs" / "tiny"
    again = ["train", f"--config={world / 'c.yaml'}", *FAST, "--set=data.categories=[cup]"]
    assert run([*again, "--set=run.name=warm", f"--set=train.init={first.as_posix()}"]) == 0
    facts = json.loads((world / "runs" / "warm" / "environment.json").read_text())
    assert any("weights of the run tiny" in caveat for caveat in facts["caveats"])
    capsys.readouterr()
    assert run([*again, "--set=run.name=none", f"--set=train.init={(first / 'bold').as_posix()}"]) == 2
    assert "bold" in capsys.readouterr().err
    assert not (world / "runs" / "none").exists()


def test_a_unified_run_evaluates_every_category(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", f"--config={world / 'c.yaml'}", *FAST, "--set=run.name=one", "--set=train.mode=unified"]
    assert run(train) == 0
    assert (world / "runs" / "one" / "all" / "checkpoint").is_dir()
    capsys.readouterr()
    settings = ["--set=eval.calibrate=per-view"]
    assert run(["eval", str(world / "runs" / "one"), "--json", *settings]) == 0
    metrics = one_json(capsys)
    assert set(metrics["categories"]) == {"cup", "bolt"}
    assert all(values["s_auroc_raw"] is not None for values in metrics["categories"].values())


def test_live_training_sees_the_same_data(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Source live or stored: the same losses, to float16's tolerance."""
    train = ["train", f"--config={world / 'c.yaml'}", *FAST, "--set=data.categories=[cup]"]
    live = [
        "--set=cache.source=live",
        f"--set=data.root={world / 'data'}",
        "--set=teacher.weights=untrained",
        f"--set=teacher.image_size={SIZE}",
    ]
    losses = []
    for name, extra in (("stored", []), ("live", live)):
        assert run([*train, f"--set=run.name={name}", *extra]) == 0
        log = (world / "runs" / name / "cup" / "log.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in log if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)
    capsys.readouterr()


def test_verify_finds_damage_and_commands_refuse_it(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store.zarr"
    shutil.copytree(world / "store.zarr", store)
    data = f"--root={world / 'data'}"
    assert run(["cache", "verify", str(store), data, "--deep", "--json"]) == 0
    assert one_json(capsys)["sound"] is True
    assert run(["cache", "info", str(store), "--json"]) == 0
    assert one_json(capsys)["spec"]["weights"] == "untrained"
    shard = next((store / "cup" / "train" / "layer2").rglob("c/*"))
    shard = next(p for p in (store / "cup" / "train" / "layer2" / "c").rglob("*") if p.is_file())
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    shard.write_bytes(damaged)
    assert run(["cache", "verify", str(store), "--json"]) == 1
    found = one_json(capsys)
    assert found["sound"] is False
    assert "layer2" in found["problems"][0]["file"]
    moved = [f"--set=cache.store={store}", "--set=run.name=broken"]
    assert run(["train", f"--config={world / 'c.yaml'}", *FAST, *moved]) == 1
    assert "layer2" in capsys.readouterr().err
    assert run(["cache", "verify", str(store), data, "--repair"]) in (0, 1)
    capsys.readouterr()
    assert run(["cache", "verify", str(store), "--json"]) == 0
    assert one_json(capsys)["sound"] is True


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["cache", "build", "realiad", "--root=HOME/nowhere", "--store=HOME/s.zarr"], "nowhere"),
        ([*BUILD, "--store=HOME/s", "--category=cupp"], "cup"),
        ([*BUILD, "--store=HOME/s", "--split=both"], "split"),
        (
            [
                "cache",
                "build",
                "realiad",
                "--root=HOME/data",
                "--store=HOME/s",
                "--teacher-weights=HOME/c.yaml",
            ],
            "c.yaml: not readable as encoder weights",
        ),
        (
            [*BUILD, "--store=HOME/store.zarr", "--image-size=64", "--teacher-weights=untrained"],
            "image_size",
        ),
        (["cache", "verify", "HOME/nowhere.zarr"], "nowhere.zarr"),
        (["cache", "verify", "HOME/store.zarr", "--repair"], "--root"),
        (["cache", "info", "HOME/data"], "data"),
        (["train", "--config=HOME/no.yaml"], "no.yaml: no such config file"),
        (["train", "--config=HOME/c.yaml", "--set=train.epoch=3"], "did you mean 'epochs'?"),
        (["train", "--config=HOME/c.yaml", "--set=run.name=x"], "corruption.textures"),
        (
            ["train", "--config=HOME/c.yaml", "--set=run.name=x", "--set=corruption.textures=HOME/dtd"],
            "corruption.textures",
        ),
        (["train", "--config=HOME/c.yaml", *FAST, "--set=run.name=x", "--set=data.categories=[cupp]"], "cup"),
        (
            ["train", "--config=HOME/c.yaml", *FAST, "--set=run.name=x", "--set=teacher.image_size=64"],
            "teacher.image_size: 64",
        ),
        (
            ["train", "--config=HOME/c.yaml", *FAST, "--set=run.name=x", "--set=cache.store=HOME/no.zarr"],
            "no.zarr",
        ),
        (["eval", "HOME/data"], "not a run"),
        (["eval", "HOME/runs/tiny/mug"], "holds bolt, cup"),
        (["eval", "HOME/runs/tiny", "--export=HOME/t.xls"], ".tex, .pkl"),
        (
            ["eval", "HOME/runs/tiny", "--set=eval.threshold=false-positive-rate", "--set=train.holdout=0"],
            "train.holdout",
        ),
        (["sweep", "missing-views", "HOME/runs/tiny", "--subsets=some"], "subsets"),
        (
            ["eval", "HOME/runs/tiny", "--set=eval.calibrate=per-view", "--set=train.holdout=0"],
            "train.holdout",
        ),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_mistakes_cost_one_sentence_and_exit_code_2(
    world: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    given = [argument.replace("HOME", str(world)) for argument in arguments]
    assert run([*given, "--json"]) == 2
    captured = capsys.readouterr()
    message = json.loads(captured.out)["error"]
    assert expected in message
    assert "Traceback" not in captured.err
    assert "\n" not in message
    assert not (world / "runs" / "x").exists()


def test_a_store_of_other_data_is_refused(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same names, another label: seen without reading an image."""
    other = world / "other"
    shutil.copytree(world / "data", other)
    path = other / "realiad_jsons" / "cup.json"
    annotations = json.loads(path.read_text())
    for entry in annotations["test"]:
        if entry["anomaly_class"] != "OK":
            entry["anomaly_class"] = "dent"
            break
    path.write_text(json.dumps(annotations))
    train = ["train", f"--config={world / 'c.yaml'}", *FAST, "--set=run.name=y", f"--set=data.root={other}"]
    assert run(train) == 2, "the store's splits that are not learned from are compared, too"
    assert "dent" in capsys.readouterr().err
    assert run(["eval", str(world / "runs" / "tiny"), f"--set=data.root={other}"]) == 2
    assert "dent" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["data", "synth"],
        ["data", "import", "mvtec3d"],
        ["data", "import", "folder"],
        ["data", "import", "eyecandies"],
        ["data", "check", "realiad"],
        ["cache", "build", "realiad"],
        ["cache", "verify"],
        ["cache", "info"],
        ["train"],
        ["eval"],
        ["fuse"],
        ["sweep", "missing-views"],
        ["report"],
        ["demo"],
    ):
        assert run([*command, "--help"]) == 0
        text = capsys.readouterr().out
        assert "Example" in text, command
        assert "--json" in text, command
