"""Tables of missing views: S-AUROC by number of missing views, by strategy, and the value of each camera."""

from collections.abc import Mapping, Sequence

from idif.data.index import camera_name
from idif.report.run_data import Json, missing_counts
from idif.report.sweep_figures import ANY_VIEW, VISIBLE_VIEW
from idif.report.tables import Cell, Table
from idif.visualization.text import percent

ONE_CLASS = "undefined: samples of one class only"
FEWER_CAMERAS = "the run has no more cameras"


def camera_names(sweep: Json) -> Mapping[str, str]:
    """Camera number -> its name, as a sweep records them; empty for older sweeps and unnamed cameras."""
    names: Mapping[str, str] = sweep.get("protocol", {}).get("cameras", {})
    return names


def missing_views(sweep: Json) -> Table:
    """S- and P-AUROC by number of missing views."""
    intervals = {"s_auroc_ci": "95 % interval", "loss_ci": "loss, 95 % interval"}
    # with several categories there are none: an interval of a mean is not the mean of the intervals
    defined = [key for key in intervals if any(found.get(key) for found in sweep["by_missing"].values())]
    columns = [f"S-AUROC, {ANY_VIEW}", *(intervals[key] for key in defined)]
    columns += [f"S-AUROC, {VISIBLE_VIEW}", "P-AUROC", "samples not scored"]
    table = Table(
        "By number of missing views: mean over categories and subsets of views, in percent; "
        "a sample without any of a subset's views is not scored",
        columns,
    )
    for missing, found in sweep["by_missing"].items():
        any_view, visible_view, pixels = (
            table.percent_cell(found[key], "undefined: samples of one class only, or no masks")
            for key in ("s_auroc", "s_auroc_visible", "p_auroc")
        )
        ends = [
            Cell("" if found[key] is None else f"{percent(found[key][0])} to {percent(found[key][1])}")
            for key in defined
        ]
        table.rows.append((missing, [any_view, *ends, visible_view, pixels, Cell(str(found["unscorable"]))]))
    return table


def cameras(sweep: Json) -> Table:
    """The value of each camera by three measures."""
    columns = ["Shapley value", "loss without it", "S-AUROC alone"]
    table = Table(
        "Value of each camera: Shapley value and loss in points of S-AUROC; "
        "S-AUROC of the camera alone in percent",
        columns,
    )
    alone = {str(s["views"][0]): s["s_auroc"] for s in sweep["subsets"] if len(s["views"]) == 1}
    values = sweep["view_value"] or {}
    undefined = "undefined: some subset has samples of one class only"
    names = camera_names(sweep)
    for camera, loss in sweep["leave_one_out"].items():
        cells = [
            table.percent_cell(None, undefined) if value is None else Cell(f"{100 * value:+.1f}")
            for value in (values.get(camera), loss)
        ]
        reason = undefined if camera in alone else "this camera alone is not among the sampled subsets"
        cells.append(table.percent_cell(alone.get(camera), reason))
        table.rows.append((camera_name(names, camera), cells))
    return table


def best_subsets(sweep: Json) -> Table:
    """The subset of cameras with the highest S-AUROC for each number of cameras."""
    table = Table(
        "Best subset of each number of cameras, selected on the evaluated samples, in percent",
        ["cameras", "S-AUROC"],
    )
    for size, found in sweep["best_subsets"].items():
        table.rows.append((size, [Cell(subset_text(sweep, found["views"])), Cell(percent(found["s_auroc"]))]))
    return table


def subset_text(sweep: Json, numbers: Sequence[int]) -> str:
    """The cameras of a subset by name; names are separated by commas, bare numbers by spaces."""
    names = camera_names(sweep)
    return (", " if names else " ").join(camera_name(names, number) for number in numbers)


def strategies(results: Json) -> Table:
    """S-AUROC by strategy and number of missing views."""
    numbers = missing_counts(results)
    table = Table("Strategies for missing views: S-AUROC in percent", [f"{m} missing" for m in numbers])
    for curve in results["curves"]:
        found = curve["by_missing"]
        cells = [
            table.percent_cell(found.get(m, {}).get("s_auroc"), ONE_CLASS if m in found else FEWER_CAMERAS)
            for m in numbers
        ]
        table.rows.append((f"{curve['run']}: {curve['strategy']}", cells))
    return table


def missing_by_category(sweep: Json) -> Table:
    """S-AUROC by category and number of missing views, with the label from all views."""
    numbers = list(sweep["by_missing"])
    columns = [f"{number} missing" for number in numbers]
    table = Table("S-AUROC by category and number of missing views, in percent", columns)
    for name, found in sweep["categories"].items():
        cells = [table.percent_cell(found["by_missing"][m]["s_auroc"], ONE_CLASS) for m in numbers]
        table.rows.append((name, cells))
    return table


def inputs(sweep: Json) -> Table:
    """The value of each input by three measures."""
    table = Table(
        "Value of each input: Shapley value and loss in points of S-AUROC; "
        "S-AUROC of the input alone in percent",
        ["Shapley value", "loss without it", "S-AUROC alone"],
    )
    alone = {s["inputs"][0]: s["s_auroc"] for s in sweep["subsets"] if len(s["inputs"]) == 1}
    values = sweep["value"] or {}
    for name, loss in sweep["leave_one_out"].items():
        cells = [
            table.percent_cell(None, ONE_CLASS) if value is None else Cell(f"{100 * value:+.1f}")
            for value in (values.get(name), loss)
        ]
        table.rows.append((name, [*cells, table.percent_cell(alone.get(name), ONE_CLASS)]))
    return table


def input_subsets(sweep: Json) -> Table:
    """S-AUROC of every subset of the inputs, the best first."""
    table = Table("Every subset of the inputs, in percent", ["S-AUROC", "samples", "not scored"])
    ordered = sorted(sweep["subsets"], key=lambda found: -(found["s_auroc"] or 0.0))
    for found in ordered:
        counts = [Cell(str(found[key])) for key in ("samples", "unscorable")]
        table.rows.append(
            (", ".join(found["inputs"]), [table.percent_cell(found["s_auroc"], ONE_CLASS), *counts])
        )
    return table
