"""The paper's Table 3: its four configs, and one command that trains, evaluates and compares them."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from cli.__main__ import run
from idif.config.loader import load_configs
from idif.methods.idif.ablations import table_3_row
from idif.methods.idif.config import IDIFConfig
from idif.report.reference_results import ablation_reference, published_results
from tests.helpers.tiny_run import FAST

FOLDER = Path(__file__).parents[3] / "configs" / "ablations"


def test_the_configs_are_the_rows_of_table_3() -> None:
    rows = ablation_reference("idif")
    assert rows == {"dkd": 0.94, "dkd+3dconv": 0.958, "dkd+ivc": 0.961, "dkd+ivc+cb": 0.97}
    together = load_configs(FOLDER / "table3.yaml")
    for name, one in zip(rows, together, strict=True):
        (alone,) = load_configs(FOLDER / f"{name}.yaml")
        assert isinstance(alone.method, IDIFConfig)
        assert isinstance(one.method, IDIFConfig)
        assert table_3_row(alone.method) == table_3_row(one.method) == name
        assert alone.model_copy(update={"run": one.run}) == one
    assert published_results(["dkd"]) == {}, "a row of Table 3 is no category"


def test_a_dkd_with_another_student_is_not_the_papers_row() -> None:
    parts = IDIFConfig(fusion="none", bottleneck=False, encoder="per-view")
    for stages, blocks in ((3, 1), (3, 2), (4, 1)):
        method = parts.model_copy(update={"encoder_stages": stages, "decoder_blocks": blocks})
        label = table_3_row(method)
        assert label == f"dkd (encoder_stages {stages}, decoder_blocks {blocks})"
        assert label not in ablation_reference("idif"), "no published figure stands beside it"
    papers = parts.model_copy(update={"encoder_stages": 4, "decoder_blocks": 2})
    assert table_3_row(papers) == "dkd"


def test_one_command_trains_evaluates_and_compares(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "two.yaml"
    config.write_text(
        f"cache: {{store: '{(world / 'store.zarr').as_posix()}'}}\n"
        f"run: {{name: two, dir: '{(tmp_path / 'runs').as_posix()}'}}\n"
        "data: {categories: [cup]}\n"
        "matrix:\n"
        "  - {name: dkd, method: {fusion: none, bottleneck: false, encoder: per-view}}\n"
        "  - {name: other, method: {fusion: none}}\n",
        encoding="utf-8",
    )
    capsys.readouterr()
    assert run(["train", f"--config={config}", *FAST, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["compared"]
    smaller = "dkd (encoder_stages 3, decoder_blocks 1)"
    assert (first["variant"], first["published_s_auroc"], first["head"]) == (smaller, None, "cosine")
    assert (second["variant"], second["published_s_auroc"]) == (None, None)
    for row in (first, second):
        metrics = json.loads((Path(row["run"]) / "metrics.json").read_text())
        assert row["s_auroc"] == metrics["mean"]["s_auroc"] is not None
    predictions = tmp_path / "runs" / "two-dkd" / "predictions.h5"
    predictions.unlink()
    table = tmp_path / "runs.csv"
    assert run(["train", f"--config={config}", *FAST, "--resume", f"--export={table}"]) == 0
    told, noted = capsys.readouterr()
    assert f"wrote {table}: table by run (2 rows" in " ".join(noted.split())
    assert table.read_text().startswith("run,variant,method,head,categories,s_auroc,")
    assert "94.0" not in told, "published for all categories of another dataset"
    assert not predictions.exists(), "a finished run was evaluated again"


def test_a_dry_run_says_what_training_takes_and_writes_no_run(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*FAST, f"--set=run.dir={tmp_path.as_posix()}", "--set=data.categories=[cup]", "--dry-run"]
    capsys.readouterr()
    assert run(["train", f"--config={world / 'c.yaml'}", *given, "--set=train.batch_size=2", "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["runs"][0]["models"]
    found, trained = model["estimate"], world / "runs" / "tiny" / "cup" / "checkpoint" / "model.safetensors"
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    weights = {name: x for name, x in load_file(trained).items() if not name.endswith(buffers)}
    assert found["parameters"] == sum(x.numel() for x in weights.values())
    assert found["steps"] == 2  # three of six samples are held out
    assert found["activation_bytes"] > 2 * 3 * 64 * 24 * 24 * 4, "the first convolution's output alone"
    assert found["seconds_per_epoch"] == pytest.approx(2 * found["seconds_per_step"])
    assert list(tmp_path.iterdir()) == []
