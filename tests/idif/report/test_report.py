"""The report: one valid, self-contained page with the values of the run's files, or why they are missing."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.__main__ import run as idif
from idif.config.sections import EvalConfig
from idif.data.index import Index, Sample, View
from idif.errors import RunError, StoreDamaged
from idif.evaluation.predictions import Predictions
from idif.report import page as page_module
from idif.report import write_report
from idif.report.charts import HEIGHT, WIDTH
from idif.report.decisions import Costs
from idif.report.figures import roc, score_histogram, scored_samples
from idif.report.gallery import Images, select_samples
from idif.report.reference_results import (
    MEAN,
    _rows,
    covered_dataset,
    missing_view_reference,
    published_results,
    reference_rows,
)
from idif.report.tables import HEADLINE, label
from tests.helpers.report_runs import VIEWS, images_of, make_run, make_run_without_views
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index
from tests.helpers.tiny_store import build_tiny

VOID = {"meta", "img", "br", "hr", "input", "link"}
NO_PHOTOGRAPHS = "Photographs are not shown"
EVAL = EvalConfig()


class Page(HTMLParser):
    """A parsed page: every tag with its attributes, texts, tables by caption; unbalanced tags raise."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element, near {self.getpos()}"
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.texts.append(data)
        if "caption" in self.open:
            self._caption += data
        elif ("td" in self.open or "th" in self.open) and "sup" not in self.open:
            self._rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def table(self, begins: str) -> tuple[list[str], dict[str, list[str]]]:
        """Columns and rows of the one table whose caption begins so."""
        (rows,) = [rows for caption, rows in self.tables.items() if caption.startswith(begins)]
        return rows[0][1:], {row[0]: row[1:] for row in rows[1:]}

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def page_of(folder: Path, **options: Any) -> Page:
    return Page(write_report([folder], **options).read_text(encoding="utf-8"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values), encoding="utf-8")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three categories, of which ``cap`` has normal samples only."""
    return make_run(tmp_path_factory.mktemp("runs") / "demo", caveats=["the teacher is <untrained>"])


@pytest.fixture(scope="module")
def page(demo: Path) -> Page:
    """Its report, with photographs."""
    return page_of(demo, images=images_of())


def test_nothing_outside_the_file_is_needed(demo: Path, page: Page) -> None:
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base"})
    for address in [*page.attributes("src"), *page.attributes("href"), *page.attributes("xlink:href")]:
        assert address.startswith(("#", "data:image/webp;base64,"))
    text = re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", (demo / "report.html").read_text())
    assert not re.search(r"https?:|url\(|@import|\bon\w+=", text)
    assert "default-src 'none'" in text


def test_the_page_is_valid_and_accessible(page: Page) -> None:
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    named = [f"#{name}" for names in page.attributes("aria-labelledby") for name in names.split()]
    for target in [*page.attributes("href"), *named]:
        if target.startswith("#"):
            assert target[1:] in ids
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")
    assert all(a.get("aria-label") for tag, a in page.tags if a.get("role") == "img")
    assert all(a.get("scope") in ("row", "col") for tag, a in page.tags if tag == "th")
    assert [tag for tag, _ in page.tags].count("table") == [tag for tag, _ in page.tags].count("caption")
    names = [tag for tag, _ in page.tags]
    assert {"header", "nav", "main", "footer", "h1"} <= set(names)
    assert names.count("h1") == names.count("main") == 1
    assert dict(page.tags)["html"]["lang"] == "en"


def test_every_metric_shown_is_that_of_metrics_json(demo: Path, page: Page) -> None:
    metrics = json.loads((demo / "metrics.json").read_text())
    columns, rows = page.table("Metrics by category")
    further, others = page.table("Further metrics")
    found = 0
    for name, values in (*metrics["categories"].items(), ("mean", metrics["mean"])):
        for key, value in values.items():
            if not (value is None or isinstance(value, float)) or key in (
                "p_error_bound",
                "s_auroc_ci",
                "decision",
            ):
                continue
            shown = (
                rows[name][columns.index(label(key))]
                if key in HEADLINE
                else others[name][further.index(label(key))]
            )
            assert shown == ("–" if value is None else f"{100 * value:.1f}")
            found += 1
    assert found == 4 * 13
    low, high = metrics["categories"]["gear"]["s_auroc_ci"]
    assert rows["gear"][columns.index("95 % interval")] == f"{100 * low:.1f} to {100 * high:.1f}"
    tiles = page.text.partition("Metrics by")[0].rpartition("Results")[2]
    assert dict(re.findall(r"(\S+) (\d+\.\d) %", tiles)) == {
        label(key): f"{100 * metrics['mean'][key]:.1f}" for key in HEADLINE
    }


def test_defects_and_cameras_are_those_of_metrics_json(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "one", ("gear",), sweep=False)
    values = json.loads((folder / "metrics.json").read_text())["categories"]["gear"]
    page = page_of(folder)
    _, defects = page.table("By defect")
    assert defects.keys() == values["per_defect"].keys() == {"dent", "scratch"}
    for name, found in values["per_defect"].items():
        percents = [f"{100 * found[key]:.1f}" for key in ("s_auroc", "i_auroc")]
        assert defects[name] == [*percents, str(found["samples"]), str(found["views"])]
    _, cameras = page.table("By camera")
    assert cameras["C1"] == ["–"] * 3  # the first view never shows the defect
    assert cameras["C2"] == [
        f"{100 * values['per_view']['2'][k]:.1f}" for k in ("i_auroc", "i_ap", "i_f1_max")
    ]


def test_an_undefined_metric_is_a_dash_with_its_reason(demo: Path, page: Page) -> None:
    reasons = json.loads((demo / "metrics.json").read_text())["categories"]["cap"]["reasons"]
    for key in (*HEADLINE, "s_ap", "per_view.1.i_auroc"):
        assert reasons[key] in page.text
    assert f"There is no ROC curve: {reasons['s_auroc']}." in page.text
    assert "mean: over 2 of 3 categories" in page.text


def test_caveats_epoch_and_protocol_are_stated(page: Page) -> None:
    assert "The teacher is <untrained>." in page.text
    assert "Trained for 12 epochs; the default is 50." in page.text
    assert "with the weights of the last epoch" in page.text
    assert "Fewer than 20 normal or anomalous test samples in gear, bolt, cap" in page.text
    assert page.table("Protocol")[1]["sample_label"] == ["anomalous when any present view is"]
    assert page.table("Resolved config")[1]["train.epochs"] == ["12"]
    assert "The oracle, 91.7 % at epoch 9, was selected on the test split and is not a result." in page.text


def test_unfinished_training_is_a_caveat(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "half", ("gear",), samples=4, settings={"train": {"epochs": 60}})
    text = page_of(folder).text
    assert "Training of gear is not finished: 12 of 60 epochs." in text
    assert "the default is 50" not in text


def test_names_are_escaped(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "evil", ("a&b'c",), samples=8, sweep=False)
    path = folder / "metrics.json"
    evil = "<script>alert(1)</script>"
    path.write_text(path.read_text().replace("scratch", evil), encoding="utf-8")
    page = page_of(folder)
    assert "script" not in {tag for tag, _ in page.tags}
    assert evil in page.table("By defect")[1]
    assert "a&b'c" in page.text


def test_the_missing_view_curve_is_that_of_sweep_json(demo: Path, page: Page) -> None:
    sweep = json.loads((demo / "sweep.json").read_text())
    _, rows = page.table("By number of missing views")
    for missing, values in sweep["by_missing"].items():
        keys = ("s_auroc", "s_auroc_visible", "p_auroc")
        assert [rows[missing][at] for at in (0, -3, -2)] == [f"{100 * values[key]:.1f}" for key in keys]
    assert "paper, Real-IAD" not in page.text, "published results of other categories were drawn"
    for camera, value in sweep["view_value"].items():
        assert f"C{camera} {100 * value:+.1f}" in " ".join(page.attributes("aria-label"))


def test_cameras_are_valued_three_ways_and_the_best_are_named(demo: Path, page: Page) -> None:
    sweep = json.loads((demo / "sweep.json").read_text())
    _, rows = page.table("Value of each camera")
    for camera, lost in sweep["leave_one_out"].items():
        (alone,) = (s["s_auroc"] for s in sweep["subsets"] if s["views"] == [int(camera)])
        value = sweep["view_value"][camera]
        assert rows[f"C{camera}"] == [f"{100 * value:+.1f}", f"{100 * lost:+.1f}", f"{100 * alone:.1f}"]
    _, rows = page.table("Best subset")
    assert {size: row[0] for size, row in rows.items()} == {
        size: " ".join(f"C{n}" for n in best["views"]) for size, best in sweep["best_subsets"].items()
    }


def test_the_interval_is_drawn_for_one_category_alone(tmp_path: Path, page: Page) -> None:
    assert "95 % interval over samples of the first curve" not in page.text, "a mean of intervals was drawn"
    folder = make_run(tmp_path / "one", ("gear",))
    one = page_of(folder)
    low, high = json.loads((folder / "sweep.json").read_text())["by_missing"]["2"]["s_auroc_ci"]
    assert one.table("By number of missing views")[1]["2"][1] == f"{100 * low:.1f} to {100 * high:.1f}"
    assert "95 % interval over samples of the first curve" in one.text
    assert [style for style in one.attributes("class") if style.startswith("band")] == ["band c1"]


def test_strategies_of_several_runs_share_one_figure(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", ("gear",))
    curves = [
        {
            "run": run,
            "view_dropout": share,
            "strategy": strategy,
            "by_missing": {str(m): {"s_auroc": 0.9 - 0.01 * m * place} for m in range(5)},
            "categories": {},
        }
        for run, share in (("with", 0.2), ("without", 0.0))
        for place, strategy in enumerate(("dropout", "retrieve", "reconstruct"), start=1)
    ]
    found = {"curves": curves, "protocol": {"seed": 0, "score_imputed": False}}
    (folder / "strategies.json").write_text(json.dumps(found))
    page = page_of(folder)
    assert "View dropout in training: with 0.2, without 0." in page.text
    _, rows = page.table("Strategies for missing views")
    assert rows["without: reconstruct"] == ["90.0", "87.0", "84.0", "81.0", "78.0"]
    assert "with: retrieve, 4 missing: 82.0 %" in " ".join(page.attributes("aria-label"))
    assert "line c3 other" in page.attributes("class")


@pytest.mark.parametrize("order", [("many", "few"), ("few", "many")])
def test_strategies_of_runs_with_different_numbers_of_cameras(tmp_path: Path, order: tuple[str, str]) -> None:
    folder, cameras = make_run(tmp_path / "run", ("gear",)), {"many": 4, "few": 2}
    curves = [
        {
            "run": run,
            "view_dropout": 0.0,
            "strategy": "dropout",
            "by_missing": {str(missing): {"s_auroc": 0.9} for missing in range(cameras[run])},
            "categories": {},
        }
        for run in order
    ]
    found = {"curves": curves, "protocol": {"seed": 0, "score_imputed": False}}
    (folder / "strategies.json").write_text(json.dumps(found))
    page = page_of(folder)
    columns, rows = page.table("Strategies for missing views")
    assert columns[-4:] == [f"{number} missing" for number in range(4)]
    assert rows["many: dropout"] == ["90.0"] * 4
    assert [text[:1] for text in rows["few: dropout"]] == ["9", "9", "–", "–"]
    assert "the run has no more cameras" in page.text
    assert "many: dropout, 3 missing: 90.0 %" in " ".join(page.attributes("aria-label"))


def test_a_run_without_a_sweep_says_how_to_make_one(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "plain", ("gear",), sweep=False)
    page = page_of(folder)
    assert "idif sweep missing-views plain" in page.text
    assert not [caption for caption in page.tables if caption.startswith("By number of missing")]


def test_a_sweep_of_the_papers_kind_has_no_camera_values(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "paper", ("gear",))
    change(folder / "sweep.json", subsets=[], view_value=None)
    text = page_of(folder).text
    assert "the missing views were chosen at random" in text
    assert "Shapley value: mean gain" not in text


def test_without_images_the_maps_stand_alone(demo: Path, page: Page) -> None:
    alone = page_of(demo)
    assert NO_PHOTOGRAPHS in alone.text
    assert NO_PHOTOGRAPHS not in page.text
    alts = [a["alt"] for tag, a in alone.tags if tag == "img"]
    assert alts
    assert all("anomaly map" in alt for alt in alts)
    assert len(page.attributes("src")) == 2 * len(alts)


def test_the_reason_is_shown_if_images_cannot_be_loaded(demo: Path) -> None:
    def broken(run: Path, category: str, split: str, sample_ids: Sequence[str]) -> dict[str, Images]:
        raise StoreDamaged(f"the shard of {category} & co is gone")

    text = page_of(demo, images=broken).text
    assert "Photographs are not shown: the shard of gear & co is gone." in text


def test_images_of_some_samples_only(demo: Path) -> None:
    def some(run: Path, category: str, split: str, sample_ids: Sequence[str]) -> dict[str, Images]:
        found: dict[str, Images] = images_of()(run, category, split, sample_ids[:2])
        return found

    text = page_of(demo, images=some).text
    missing = [int(n) for n in re.findall(r"The images of (\d+) of these samples were not found", text)]
    assert len(missing) == 2, "the category of one class shows two samples"
    assert min(missing) >= 6, "all but two of at least eight"


def test_one_camera_has_a_grid_original_names_and_nothing_about_several(tmp_path: Path) -> None:
    def tile(number: int, defect: str) -> Sample:
        view = View(1, f"tile/S{number}/x_C1.png", None, defect, source=f"{defect}/IMG {number}.JPG")
        return Sample(f"tile/S{number}", "tile", "test", (view,), origin="folder")

    index = Index((1,), tuple(tile(n, "crack" if n % 2 else "OK") for n in range(12)))
    folder = make_run(tmp_path / "tiles", index=index, sweep=False)
    page = Page(write_report([folder], images=None, costs=Costs(50, 1)).read_text(encoding="utf-8"))
    decided = json.loads((folder / "metrics.json").read_text())["categories"]["tile"]["decision"]
    misses, alarms = decided["misses"], decided["false_alarms"]
    assert "an oracle that needs their labels): misses" in page.text
    assert f"misses {misses['count']} of 6" in page.text
    assert f"false alarms {alarms['count']} of 6" in page.text
    _, classes = page.table("Decisions by class")
    assert classes["good"][:2] == [str(6 - alarms["count"]), str(alarms["count"])]
    assert classes["crack"][:2] == [str(misses["count"]), str(6 - misses["count"])]
    columns, others = page.table("Other thresholds on these samples")
    own = next(row for row in others.values() if row[-1] == "the run's threshold")
    cost = float(own[columns.index("cost")])
    assert cost == 50 * misses["count"] + alarms["count"]
    assert cost >= min(float(row[columns.index("cost")]) for row in others.values())
    assert "samples grid" in page.attributes("class")
    assert "IMG 1.JPG" in page.text
    for several in ("Missing views", "C1", "By camera", "I-AUROC", "views present"):
        assert several not in page.text.partition("Protocol: how scores")[0].replace("x_C1", "")


def test_several_runs_stand_side_by_side_on_the_same_samples(demo: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "second", seed=5)
    page = Page(write_report([demo, other], images=images_of()).read_text(encoding="utf-8"))
    columns, rows = page.table("S-AUROC of the runs")
    assert columns == ["demo", "second"]
    for place, folder in enumerate((demo, other)):
        metrics = json.loads((folder / "metrics.json").read_text())
        assert rows["gear"][place] == f"{100 * metrics['categories']['gear']['s_auroc']:.1f}"
        assert rows["mean"][place] == f"{100 * metrics['mean']['s_auroc']:.1f}"
    _, paired = page.table("second beside demo")
    assert list(paired) == ["gear", "bolt", "mean"]
    assert "The same samples from each run" in page.text
    beside = [text for text in page.texts if text in ("demo", "second")]
    assert beside.count("second") >= 10


def test_without_maps_and_images_a_note_says_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "bare", ("gear",), maps=False)
    page = page_of(folder)
    assert not page.attributes("src")
    assert "the predictions were written without them (--no-maps)" in page.text
    photos = page_of(folder, images=images_of())
    assert photos.attributes("src")
    assert all("photograph" in a["alt"] for tag, a in photos.tags if tag == "img")


def test_samples_without_views_have_no_view_metrics_and_no_gallery(tmp_path: Path) -> None:
    anomalous = np.arange(20) % 4 == 0
    folder = make_run_without_views(tmp_path / "weld", "weld", anomalous)
    values = json.loads((folder / "metrics.json").read_text())["categories"]["weld"]
    s_auroc = f"{100 * values['s_auroc']:.1f}"
    page = page_of(folder, images=images_of())
    columns, rows = page.table("Metrics by category")
    assert columns == ["S-AUROC", "95 % interval", "normal samples", "anomalous samples"]
    assert (rows["weld"][0], rows["weld"][2:]) == (s_auroc, ["15", "5"])
    assert page.table("By defect") == (["S-AUROC", "samples"], {"crack": [s_auroc, "5"]})
    assert page.table("Further metrics")[0] == ["S-AP", "S-F1max"]
    assert "15 normal (up)" in page.text
    assert f"ROC curve: S-AUROC {s_auroc} %" in page.text
    assert not page.attributes("src")
    for text in ("By camera", "Missing views", "Photographs", "I-AUROC", "P-AUROC"):
        assert text not in page.text.partition("Protocol and settings")[2].partition("Written by")[0]


def test_without_predictions_metrics_are_still_shown(demo: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "lean", ("gear",))
    (folder / "predictions.h5").unlink()
    (folder / "environment.json").unlink()
    page = page_of(folder)
    assert "There is no predictions.h5" in page.text
    assert "There is no environment.json" in page.text
    assert page.table("Metrics by category")[1]["gear"]


def test_a_missing_view_is_an_empty_frame(demo: Path, page: Page) -> None:
    predictions = Predictions.open(demo / "predictions.h5")
    rows = [
        row
        for name in ("gear", "bolt", "cap")
        for row in select_samples(scored_samples(predictions, name, EVAL), 2, 6)
    ]
    absent = int((~predictions.present[rows]).sum())
    assert absent
    assert [text.strip() for text in page.texts].count("missing view") == absent
    assert len(page.attributes("src")) == 2 * (len(rows) * len(VIEWS) - absent)


def test_the_samples_chosen_are_the_extremes(demo: Path) -> None:
    predictions = Predictions.open(demo / "predictions.h5")
    samples = scored_samples(predictions, "gear", EVAL)
    chosen = select_samples(samples, 1)
    score = {int(row): float(predictions.sample_scores[row]) for row in samples.rows}
    bad = [int(row) for row in samples.rows if predictions.labels[row].any()]
    good = [row for row in score if row not in bad]
    kinds = {kind: row for row, kind in chosen.items()}
    assert kinds["Highest-scoring anomaly"] == max(bad, key=score.__getitem__)
    assert kinds["Lowest-scoring anomaly"] == min(bad, key=score.__getitem__)
    assert kinds["Highest-scoring normal"] == max(good, key=score.__getitem__)
    threshold = samples.threshold
    assert threshold is not None
    rest = [row for row in score if row not in chosen or chosen[row] == "Closest to the threshold"]
    assert kinds["Closest to the threshold"] == min(rest, key=lambda row: abs(score[row] - threshold))
    assert set(select_samples(scored_samples(predictions, "cap", EVAL), 2).values()) == {
        "Highest-scoring normal"
    }


def test_the_runs_own_threshold_is_drawn_and_is_what_borderline_means(demo: Path) -> None:
    predictions = Predictions.open(demo / "predictions.h5")
    recorded = json.loads((demo / "metrics.json").read_text())["categories"]["gear"]["thresholds"]["sample"]
    own = scored_samples(predictions, "gear", EVAL, recorded)
    assert own.threshold == recorded["value"]
    high = float(own.scores.max())
    moved = scored_samples(predictions, "gear", EVAL, {"value": high, "rule": "fixed"})
    assert ("mark", f"threshold (fixed) {high:.3g}") in score_histogram(moved).legend
    nearest = [row for row, kind in select_samples(moved, 1).items() if kind == "Closest to the threshold"]
    best = [row for row, kind in select_samples(moved, 1).items() if kind == "Highest-scoring anomaly"]
    rest = sorted((abs(float(s) - high), int(row)) for s, row in zip(moved.scores, moved.rows, strict=True))
    assert nearest == [row for _, row in rest if row not in best][:1]


def test_the_region_overlap_curve_is_shown_where_there_is_one(page: Page, demo: Path) -> None:
    metrics = json.loads((demo / "metrics.json").read_text())["categories"]
    defined = [name for name, values in metrics.items() if values.get("aupro") is not None]
    assert defined
    assert page.text.count("PRO curve: AUPRO@0.3") == len(defined)


@pytest.mark.parametrize("step", [0.0, 0.04, 5.0])
def test_the_roc_curve_drawn_has_the_area_it_names(demo: Path, step: float) -> None:
    """Read back from the drawing, also where scores are rounded so that many tie."""
    samples = scored_samples(Predictions.open(demo / "predictions.h5"), "gear", EVAL)
    if step:
        samples = type(samples)(
            samples.rows, np.round(samples.scores / step).astype(np.float32), samples.anomalous
        )
    wins = samples.scores[samples.anomalous][:, None] - samples.scores[~samples.anomalous][None]
    area = float(((wins > 0) + 0.5 * (wins == 0)).mean())
    drawn = re.search(r'<polyline[^>]* points="([^"]+)"', roc(samples, area).svg)
    assert drawn is not None
    x, y = np.array([point.split(",") for point in drawn[1].split()], float).T
    assert 0 < x.min() < x.max() < WIDTH
    assert 0 < y.min() < y.max() < HEIGHT
    x, y = (x - x[0]) / (x[-1] - x[0]), (y[0] - y) / (y[0] - y[-1])
    assert abs(float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)) - area) < 1e-3


def test_thirty_categories_stay_below_ten_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words and charts of thirty categories fit beside the pictures, whose share is kept to."""
    names = [f"part_{number}" for number in range(30)]
    bare = make_run(tmp_path / "thirty", names, samples=4, maps=False, one_class=())
    assert write_report([bare]).stat().st_size < 9_900_000 - page_module.IMAGE_BYTES
    small = make_run(tmp_path / "two", names[:2], samples=8, one_class=())
    free = sum(len(address) for address in page_of(small, images=images_of()).attributes("src"))
    for share in (0.7, 0.35):
        monkeypatch.setattr(page_module, "IMAGE_BYTES", int(share * free))
        pictures = sum(len(address) for address in page_of(small, images=images_of()).attributes("src"))
        assert 0 < pictures <= share * free
    monkeypatch.setattr(page_module, "IMAGE_BYTES", 100)
    page = page_of(small, images=images_of())
    assert not page.attributes("src")
    assert "omitted to keep the page small" in page.text


def test_published_results_are_those_of_the_method_and_of_a_dataset_with_all_categories() -> None:
    found = reference_rows("idif", ["audiojack", "sim_card_set", "terminalblock"])
    assert (found["audiojack"].s_auroc, found["audiojack"].p_auroc) == (0.961, 0.984)
    assert found["sim_card_set"].s_auroc == 0.996
    assert reference_rows("uniad", ["audiojack"])["audiojack"].s_auroc == 0.912
    scans = reference_rows("idif", ["cable_gland"])["cable_gland"]
    assert scans.s_auroc == 0.961
    assert scans.protocol.endswith("color and depth")
    assert reference_rows("idif", ["CandyCane"])["CandyCane"].p_auroc is None
    assert reference_rows("idif", ["audiojack", "gear"]) == {}  # a coincidence among other data
    assert reference_rows("idif", ["mean"]) == reference_rows("idif", []) == {}
    assert reference_rows("another", ["audiojack"]) == {}
    assert reference_rows("idif", ["audiojack"], ["folder"]) == {}, "own photographs of that name"
    assert reference_rows("idif", ["cable_gland"], ["mvtec3d"])["cable_gland"].s_auroc == 0.961
    assert list(published_results(["audiojack"])) == [
        "PaDiM",
        "PatchCore",
        "RD",
        "UniAD",
        "DeSTSeg",
        "SimpleNet",
        "IDIF",
    ]


def test_published_results_are_shown_beside_the_runs(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "real", ("audiojack", "usb"), samples=8))
    columns, rows = page.table("Metrics by category")
    assert [rows[name][columns.index("paper S-AUROC")] for name in rows] == ["96.1", "98.4", "97.2"]
    assert rows["usb"][columns.index("paper P-AUROC")] == "99.6"
    assert "IDIF on Real-IAD, from IDIF (AAAI 2025); full training sets, segmentation head" in page.text
    published = [row.s_auroc for row in missing_view_reference("idif", "Real-IAD")]
    assert published == [0.964, 0.959, 0.957, 0.951, 0.940]
    assert "paper, Real-IAD" not in page.text, "published for all categories, the run has two"
    every = list(published_results(["audiojack"])["IDIF"])
    assert covered_dataset("idif", every) is None
    names = [row.category for row in _rows("main") if (row.method, row.dataset) == ("IDIF", "Real-IAD")]
    assert covered_dataset("idif", [name for name in names if name != MEAN]) == "Real-IAD"
    assert missing_view_reference("another", "Real-IAD") == []


def test_several_runs_are_compared_first(demo: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", ("gear",), samples=8, settings={"method": {"bottleneck": False}})
    path = write_report([demo, other, demo])
    assert path == demo / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    columns, rows = page.table("Comparison of the runs")
    metrics = json.loads((other / "metrics.json").read_text())
    assert list(rows) == ["demo", "other"]
    assert rows["other"][columns.index("P-AUROC")] == f"{100 * metrics['mean']['p_auroc']:.1f}"
    assert page.table("Settings in which")[1] == {"method.bottleneck": ["yes", "no"]}
    assert "The runs' categories differ" in page.text
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))


def test_one_category_of_a_run_is_a_run_of_one(demo: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "whole", ("gear",))
    for name in ("metrics.json", "predictions.h5"):
        (folder / name).rename(folder / "gear" / name)
    path = write_report([folder / "gear"])
    assert path == folder / "gear" / "report.html"
    text = Page(path.read_text(encoding="utf-8")).text
    assert "whole/gear" in text
    assert "Training loss" in text


def test_a_unified_model_shows_its_training_once(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "unified", samples=8, settings={"train": {"mode": "unified", "epochs": 12}})
    (folder / "gear").rename(folder / "all")
    for name in ("bolt", "cap"):
        (folder / name / "log.jsonl").unlink()
    page = page_of(folder)
    assert page.text.count("Training loss") == 1
    assert list(page.table("Training time")[1]) == ["all"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), "not a run"),
        (lambda run: (run / "metrics.json").unlink(), "metrics.json: there is none yet"),
        (lambda run: (run / "metrics.json").write_text('{"mean": 1'), "metrics.json: damaged, not JSON"),
        (
            lambda run: (run / "metrics.json").write_text('{"mean": {}}'),
            "it lacks categories, protocol; eval",
        ),
        (lambda run: (run / "sweep.json").write_text("[1]"), "sweep.json: damaged, expected a JSON object"),
        (lambda run: (run / "predictions.h5").write_bytes(b"x"), "predictions.h5: expected a complete"),
    ],
)
def test_a_broken_run_is_named_and_an_older_report_stays(tmp_path: Path, harm: Any, message: str) -> None:
    folder = make_run(tmp_path / "run", ("gear",), samples=4)
    (folder / "report.html").write_text("before")
    harm(folder)
    with pytest.raises(RunError, match=message):
        write_report([folder])
    assert (folder / "report.html").read_text() == "before"
    assert not list(folder.glob("*.tmp"))


def test_the_command_takes_its_photographs_from_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tiny_index(test=6)
    make_tiny_realiad(tmp_path / "data", index)
    build_tiny(tmp_path / "data", index, tmp_path / "s.zarr")
    tests = index.take(index.rows(lambda sample: sample.split == "test"))
    settings = {"cache": {"store": str(tmp_path / "s.zarr")}, "data": {"root": str(tmp_path / "gone")}}
    folder = make_run(tmp_path / "runs" / "tiny", index=tests, size=32, sweep=False, settings=settings)
    assert idif(["report", str(folder), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["report"] == str(folder / "report.html")
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert NO_PHOTOGRAPHS not in page.text
    assert sum("photograph" in a["alt"] for tag, a in page.tags if tag == "img") == 2 * (6 * 3 - 1)

    assert idif(["report", str(folder), f"--set=cache.store={tmp_path / 'nowhere.zarr'}"]) == 0
    told = capsys.readouterr()
    assert told.err.count("note: the report shows no photographs") == 1
    assert "nowhere.zarr" in told.err
    assert NO_PHOTOGRAPHS in Page((folder / "report.html").read_text(encoding="utf-8")).text


def test_the_command_refuses_a_folder_that_is_not_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert idif(["report", str(tmp_path)]) == 2
    assert "not a run" in capsys.readouterr().err
    folder = make_run(tmp_path / "run", ("gear",), samples=4, sweep=False)
    assert idif(["report", str(folder), "--set=cache.stor=x"]) == 2
    assert "cache.stor" in capsys.readouterr().err
