"""Fusing runs: the scale is that of training normals, fusing changes what it should and nothing else."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cli.__main__ import run
from idif.config.loader import resolve
from idif.config.sections import Config, EvalConfig
from idif.data.index import Index, Sample
from idif.errors import ConfigError, RunError
from idif.evaluation.late_fusion import Member, caveats, fuse, open_members, protocol
from idif.evaluation.normal_scores import NormalScores, Scale, normal_scores
from idif.evaluation.predictions import Predictions
from idif.evaluation.predictions_writer import PredictionsWriter
from idif.evaluation.test_pass import CategoryTask, metrics_of, write_predictions
from idif.runs.fusion import write_fusion
from tests.helpers.stubs import SIZE, BrightestIsWorst, InMemory, scorer

RANKED = (
    "s_auroc",
    "s_ap",
    "s_f1_max",
    "i_auroc",
    "i_ap",
    "i_f1_max",
    "p_auroc",
    "p_ap",
    "p_f1_max",
    "aupro",
)


def data(category: str = "cup", seed: int = 0) -> InMemory:
    torch.manual_seed(3)
    present = torch.rand(20, 3) < 0.9
    present[:, 0] |= ~present.any(dim=1)
    labels = (torch.rand(20, 3) < 0.6) & (torch.arange(20) % 2 == 0)[:, None]
    return InMemory(present, labels, seed, category)


def scale(mean: float, spread: float, held_out: bool = True, anomalous: int = 0) -> NormalScores:
    return NormalScores(
        held_out, 10, anomalous, Scale(mean, spread), Scale(mean / 2, spread * 2), Scale(mean / 4, spread * 3)
    )


def write(
    folder: Path,
    seed: int,
    normals: NormalScores | None,
    categories: Sequence[str] = ("cup", "nut"),
    *,
    maps: bool = True,
    **changes: Any,
) -> Path:
    """A run's predictions of made-up images; samples, labels and masks are those of every seed."""
    config = changes.pop("config", Config())
    used = scorer(config.eval)
    tasks = [CategoryTask(c, used, data(c, seed), normals=normals) for c in categories]
    folder.mkdir()
    write_predictions(config, tasks, folder / "predictions.h5", maps=maps, **changes)
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    return folder


def rewrite(
    folder: Path,
    new: Path,
    *,
    order: Sequence[int] | None = None,
    slots: Sequence[int] = (0, 1, 2),
    change: Any = lambda sample: sample,
    protocol: dict[str, Any] | None = None,
    mask: bool = False,
) -> Path:
    """The predictions of ``folder`` again, in another order, or with one thing changed."""
    old = Predictions.open(folder / "predictions.h5")
    index = Index((1, 2, 3), tuple(s for c in ("cup", "nut") for s in data(c).index.samples))
    new.mkdir()
    numbers = [old.view_numbers[slot] for slot in slots]
    stated = old.protocol | (protocol or {})
    with PredictionsWriter(new / "predictions.h5", numbers, SIZE, True, stated) as writer:
        for row in range(len(old)) if order is None else order:
            (_, maps, masks), *_ = old.iter_maps([row])
            if mask and row == 2:
                masks = masks.copy()
                masks[0, 0, 0, 0] = ~masks[0, 0, 0, 0]
            sample: Sample = change(index.samples[row])
            taken = list(slots)
            shown = replace(sample, views=tuple(sample.views[slot] for slot in taken))
            scores, whole = old.view_scores[[row]][:, taken], old.sample_scores[[row]]
            writer.append([shown], scores, whole, maps[:, taken], masks[:, taken])
    return new


def fused(path: Path, *runs: Path, weights: Sequence[float] = ()) -> Predictions:
    fuse(open_members(runs, weights), path)
    return Predictions.open(path)


def all_maps(p: Predictions) -> np.ndarray[Any, np.dtype[np.float16]]:
    return np.concatenate([maps for _, maps, _ in p.iter_maps(np.arange(len(p)))])


def test_the_scale_is_mean_and_spread_of_the_scores_and_pixels() -> None:
    source, method = data(), BrightestIsWorst()
    rows = [1, 2, 5, 7, 11, 13, 19]
    found = normal_scores(scorer(EvalConfig(batch_size=3), method), source, rows, held_out=True)
    present = source.present[rows]
    with torch.inference_mode():
        maps = method.maps_of(source.images[rows], present)
    views = maps.flatten(2).amax(dim=2).masked_fill(~present, -1)
    for got, wanted in (
        (found.sample, views.amax(dim=1)),
        (found.view, views[present]),
        (found.pixel, maps[present].flatten()),
    ):
        assert got is not None
        assert got.mean == pytest.approx(float(wanted.double().mean()), rel=1e-6)
        assert got.spread == pytest.approx(float(wanted.double().std(correction=0)), rel=1e-6)
    assert (found.held_out, found.samples) == (True, 7)
    assert found.anomalous == int(source.labels[rows].any(dim=1).sum())


def test_normals_without_spread_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"eval.record_normal_scores: .* at least two .* sample scores"):
        normal_scores(scorer(EvalConfig()), data(), [1], held_out=True)


def test_fusing_is_the_weighted_mean_of_standardised_scores(tmp_path: Path) -> None:
    scales = [scale(0.4, 0.05), scale(0.7, 0.2)]
    runs = [write(tmp_path / f"{i}", i, s) for i, s in enumerate(scales)]
    a, b = (Predictions.open(folder / "predictions.h5") for folder in runs)
    got = fused(tmp_path / "f.h5", *runs, weights=(3, 1))
    samples = 0.75 * (a.sample_scores - 0.4) / 0.05 + 0.25 * (b.sample_scores - 0.7) / 0.2
    views = 0.75 * (a.view_scores - 0.2) / 0.1 + 0.25 * (b.view_scores - 0.35) / 0.4
    np.testing.assert_allclose(got.sample_scores, samples, rtol=1e-4)
    np.testing.assert_allclose(got.view_scores, views, rtol=1e-4)
    assert np.array_equal(np.isnan(got.view_scores), ~a.present)
    one, two = 0.75 / 0.15, 0.25 / 0.6
    maps = (one * all_maps(a).astype(float) + two * all_maps(b).astype(float)) / (one + two)
    np.testing.assert_allclose(all_maps(got), maps, rtol=1e-3, atol=1e-6)
    assert (got.sample_id, got.category, got.image_path) == (a.sample_id, a.category, a.image_path)
    assert (got.mask_path, got.anomaly_class) == (a.mask_path, a.anomaly_class)
    for name in ("labels", "present", "has_mask"):
        assert np.array_equal(getattr(got, name), getattr(a, name))
    assert [entry["weight"] for entry in got.protocol["fused"]] == [0.75, 0.25]
    assert got.protocol["fused"][1]["normals"]["nut"]["sample"] == {"mean": 0.7, "spread": 0.2}


def test_a_run_fused_with_itself_ranks_as_before(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", 0, scale(0.41, 0.037))
    before = metrics_of(Predictions.open(folder / "predictions.h5"), EvalConfig())
    got = fused(tmp_path / "f.h5", folder, folder, weights=(2, 1))
    after = metrics_of(got, EvalConfig())
    for name in ("cup", "nut"):
        for key in RANKED:
            assert after["categories"][name][key] == before["categories"][name][key], key
        assert after["categories"][name]["per_view"] == before["categories"][name]["per_view"]
        assert after["categories"][name]["counts"] == before["categories"][name]["counts"]


def test_two_weak_runs_whose_noise_differs_are_better_together(tmp_path: Path) -> None:
    index = data().index
    labels = np.array([sample.label for sample in index.samples])
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (2, len(labels)))
    runs, alone = [], []
    for which, units in ((0, 1.0), (1, 1000.0)):  # the second in a thousandth of the first's unit
        scores = (labels * 1.2 + noise[which]) * units
        folder = tmp_path / str(which)
        folder.mkdir()
        normals: dict[str, dict[str, Any]] = {"cup": {"held_out": True, "samples": 9, "anomalous": 0}}
        normals["cup"] |= {key: {"mean": 0.0, "spread": units} for key in ("sample", "view", "pixel")}
        with PredictionsWriter(
            folder / "predictions.h5", (1, 2, 3), SIZE, False, {"normals": normals}
        ) as writer:
            views = np.repeat(scores[:, None], 3, 1).astype(np.float32)
            writer.append(index.samples, views, scores.astype(np.float32), None, None)
        runs.append(folder)
        alone.append(metrics_of(Predictions.open(folder / "predictions.h5"), EvalConfig())["mean"]["s_auroc"])
    together = metrics_of(fused(tmp_path / "f.h5", *runs), EvalConfig())["mean"]
    assert together["s_auroc"] > max(alone)
    sums = noise[0] + noise[1] + labels * 2.4
    wins = np.mean(sums[labels][:, None] > sums[~labels][None])
    assert together["s_auroc"] == pytest.approx(wins)
    assert together["p_auroc"] is None


def test_order_of_runs_samples_and_views_does_not_matter(tmp_path: Path) -> None:
    scales = [scale(0.4, 0.05), scale(0.7, 0.2), scale(0.1, 0.3)]
    a, b, c = (write(tmp_path / name, i, s) for i, (name, s) in enumerate(zip("abc", scales, strict=True)))
    shuffled = rewrite(
        b, tmp_path / "b2", order=np.random.default_rng(1).permutation(40).tolist(), slots=(2, 0, 1)
    )
    one = fused(tmp_path / "1.h5", a, b, c, weights=(1, 2, 3))
    for got in (
        fused(tmp_path / "2.h5", c, a, b, weights=(3, 1, 2)),
        fused(tmp_path / "3.h5", a, shuffled, c, weights=(1, 2, 3)),
    ):
        assert got.sample_id == one.sample_id
        assert np.array_equal(got.sample_scores, one.sample_scores)
        assert np.array_equal(got.view_scores, one.view_scores, equal_nan=True)
        assert np.array_equal(all_maps(got), all_maps(one))


def test_runs_that_do_not_fit_say_what_differs(tmp_path: Path) -> None:
    a = write(tmp_path / "a", 0, scale(0.4, 0.05))
    b = write(tmp_path / "b", 1, scale(0.7, 0.2))

    def relabelled(sample: Sample) -> Sample:
        if sample.sample_id != "nut/S0003" or sample.views[0] is None:
            return sample
        return replace(sample, views=(replace(sample.views[0], anomaly_class="cut"), *sample.views[1:]))

    def unmasked(sample: Sample) -> Sample:
        views = tuple(v and replace(v, mask=None) for v in sample.views)
        return replace(sample, views=views) if sample.sample_id == "cup/S0002" else sample

    def blind(sample: Sample) -> Sample:
        return replace(sample, views=(None, *sample.views[1:])) if sample.sample_id == "cup/S0005" else sample

    other_views = rewrite(b, tmp_path / "views")
    with PredictionsWriter(
        other_views / "predictions.h5", (6, 7, 8), SIZE, True, Predictions.open(b / "predictions.h5").protocol
    ):
        pass
    large = tmp_path / "large"
    large.mkdir()
    old = Predictions.open(b / "predictions.h5")
    index = [s for c in ("cup", "nut") for s in data(c).index.samples]
    with PredictionsWriter(large / "predictions.h5", (1, 2, 3), 8, True, old.protocol) as writer:
        maps = np.zeros((40, 3, 8, 8))
        writer.append(index, old.view_scores, old.sample_scores, maps, maps.astype(bool))
    without = write(tmp_path / "plain", 1, None)
    itself = tmp_path / "itself"
    itself.mkdir()
    fuse(open_members([a, b], ()), itself / "predictions.h5")
    for other, weights, words in (
        (rewrite(b, tmp_path / "less", order=range(1, 40)), (), "less: has no sample cup/S0000, which"),
        (
            rewrite(b, tmp_path / "label", change=relabelled),
            (),
            "label of nut/S0003, view 1, .*: normal;",
        ),
        (
            rewrite(b, tmp_path / "mask", change=unmasked),
            (),
            "mask of cup/S0002, view .*: given; .*: none",
        ),
        (rewrite(b, tmp_path / "blind", change=blind), (), "presence of cup/S0005, view 1, .* found: absent"),
        (rewrite(b, tmp_path / "pixel", mask=True), (), "mask of cup/S0002, view 1, to be that of .*another"),
        (write(tmp_path / "train", 1, scale(1, 1), split="train"), (), "the test split, .*; found train"),
        (write(tmp_path / "nomaps", 1, scale(1, 1), maps=False), (), "nomaps: expected anomaly maps"),
        (other_views, (), "expected views 1, 2, 3, .*; found 6, 7, 8"),
        (large, (), "large: expected maps of 32 x 32 pixels, .*; found 8 x 8"),
        (
            without,
            (),
            "training normals of cup, found none; run `idif eval .*plain --set eval.record_normal_scores"
            "=true`",
        ),
        (itself, (), "itself a fusion"),
        (tmp_path / "nowhere", (), "nowhere.*expected a predictions file"),
        (b, (1,), "--weights: expected one weight for each of 2 runs, got 1"),
        (b, (1, 0), "--weights: expected numbers above 0, got 0"),
        (b, (1, float("nan")), "--weights: expected numbers above 0, got nan"),
    ):
        with pytest.raises((RunError, ConfigError), match=words):
            fused(tmp_path / "f.h5", a, other, weights=weights)
        assert not (tmp_path / "f.h5").exists()
    more = rewrite(b, tmp_path / "more", order=range(40))
    with pytest.raises(RunError, match=r"less: has no sample cup/S0000, which another run has"):
        fused(tmp_path / "f.h5", tmp_path / "less", more)
    with pytest.raises(ConfigError, match="at least two runs"):
        open_members([a], ())


def test_what_is_doubtful_about_the_scales_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a", 0, scale(1, 1)) / "predictions.h5"
    one = Member("rgb", 0.5, Predictions.open(path), {}, np.arange(1), np.arange(1))

    def told(*scales: NormalScores) -> list[str]:
        return caveats(
            [replace(one, name=n, normals={"cup": s}) for n, s in zip(("rgb", "depth"), scales, strict=True)]
        )

    assert told(scale(1, 1), scale(1, 1)) == []
    both = told(scale(1, 1, held_out=False), scale(1, 1, held_out=False))
    assert both == [
        "the scale of rgb comes from samples that it was trained on",
        "the scale of depth comes from samples that it was trained on",
    ]
    (mixed,) = told(scale(1, 1, held_out=False), scale(1, 1))
    assert "others from samples held out of training" in mixed
    (dirty,) = told(scale(1, 1, anomalous=4), scale(1, 1))
    assert dirty == "4 of the 10 training samples behind the scale of rgb are labelled anomalous"


def test_a_fusion_says_the_epochs_of_its_runs_and_that_they_draw_no_maps(tmp_path: Path) -> None:
    path = write(tmp_path / "a", 0, scale(1, 1)) / "predictions.h5"

    def stated(*own: dict[str, Any]) -> dict[str, Any]:
        opened = [replace(Predictions.open(path), protocol=one) for one in own]
        return protocol([Member("a", 0.5, one, {}, np.arange(1), np.arange(1)) for one in opened])

    assert stated({"epoch": "last"}, {"epoch": "last"})["epoch"] == "last"
    assert stated({"epoch": "3 of 5"}, {"epoch": "last"}, {})["epoch"] == "3 of 5, last"
    assert "epoch" not in stated({}, {}), "fitted in one pass"
    assert stated({"draws_maps": False}, {"draws_maps": False})["draws_maps"] is False
    assert "draws_maps" not in stated({}, {"draws_maps": False})
    assert "validated" not in stated({"validated": {"cup": 1}}, {})["fused"][0]["protocol"]


def test_the_command_writes_what_eval_and_report_read(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / "rgb", tmp_path / "depth"]
    for folder in runs:
        shutil.copytree(world / "runs" / "tiny", folder)
        assert run(["eval", str(folder), "--set=eval.record_normal_scores=true"]) == 0
    recorded = Predictions.open(runs[0] / "predictions.h5").protocol["normals"]
    assert {name: (found["held_out"], found["samples"]) for name, found in recorded.items()} == {
        "bolt": (True, 3),
        "cup": (True, 3),
    }
    out = tmp_path / "both"
    command = ["fuse", *map(str, runs), f"--out={out}", "--json"]
    for _ in range(2):  # again over the first
        capsys.readouterr()
        assert run([*command, "--weights=1,3"]) == 0
        printed = json.loads(capsys.readouterr().out)
    assert write_fusion(runs, out, [1, 3]) == printed
    alone = json.loads((runs[0] / "metrics.json").read_text(encoding="utf-8"))
    for key in RANKED:
        assert printed["mean"][key] == alone["mean"][key], key
    assert run(["eval", str(out), "--from-predictions", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == printed
    facts = json.loads((out / "environment.json").read_text(encoding="utf-8"))
    assert [(entry["run"], entry["weight"]) for entry in facts["fused"]] == [("rgb", 0.25), ("depth", 0.75)]
    assert any("rgb: the teacher is an untrained" in text for text in facts["caveats"])
    assert run(["report", str(out), *map(str, runs)]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "A late fusion of rgb and depth was evaluated on 8" in page
    assert "A late fusion has no model to run with missing views" in page
    assert "shows no photographs" not in capsys.readouterr().err
    for arguments, words in (
        (["eval", str(out)], "is a fusion of runs and has no model"),
        (["sweep", "missing-views", str(out)], "is a fusion of runs and has no model"),
        (["fuse", *map(str, runs), f"--out={runs[0]}"], "expected a new folder or that of a fusion"),
        ([*command, "--weights=a,b"], "--weights a,b: expected numbers"),
        (["fuse", str(runs[0]), str(tmp_path), f"--out={out}"], "not a run"),
        (["fuse", *map(str, runs), f"--out={tmp_path / '-x'}"], "run.name"),
    ):
        assert run(arguments) == 2
        assert words in " ".join(capsys.readouterr().err.split())


def test_a_fusion_drops_settings_of_single_runs(tmp_path: Path) -> None:
    (config,) = resolve(
        {"train": {"holdout": 0.1}, "eval": {"threshold": "false-positive-rate", "sample_score": "mean"}},
        source="test",
    )
    runs = [write(tmp_path / name, i, scale(1, 1), config=config) for i, name in enumerate("ab")]
    assert run(["fuse", *map(str, runs), f"--out={tmp_path / 'f'}"]) == 0
    told = json.loads((tmp_path / "f" / "environment.json").read_text(encoding="utf-8"))["caveats"]
    assert told == [
        "the decision threshold is that of the greatest F1, since the runs' own are on other scales"
    ]
