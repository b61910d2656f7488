"""Which tables a report shows of missing views: how much they cost, what helps, what each camera is worth."""

from idif.report.run_data import Json
from idif.report.tables import Cell, Table, percent


def missing_views(sweep: Json) -> Table:
    """S- and P-AUROC by number of missing views."""
    intervals = {"s_auroc_ci": "95 % interval", "loss_ci": "lost, 95 % interval"}
    # of several categories there are none: an interval of a mean is not the mean of the intervals
    known = [key for key in intervals if any(found.get(key) for found in sweep["by_missing"].values())]
    columns = ["S-AUROC, any view labelled", *(intervals[key] for key in known)]
    columns += ["S-AUROC, a visible view labelled", "P-AUROC", "left out"]
    table = Table(
        "By number of missing views, mean over categories, in percent; "
        "left out: samples that had none of the views, over all subsets",
        columns,
    )
    for missing, found in sweep["by_missing"].items():
        cells = [
            table.figure(found[key], "undefined: one class only, or no masks")
            for key in ("s_auroc", "s_auroc_visible", "p_auroc")
        ]
        ends = [
            Cell("" if found[key] is None else f"{percent(found[key][0])} to {percent(found[key][1])}")
            for key in known
        ]
        table.rows.append((missing, [cells[0], *ends, *cells[1:], Cell(str(found["unscorable"]))]))
    return table


def cameras(sweep: Json) -> Table:
    """What each camera is worth, three ways."""
    columns = ["value (Shapley)", "lost when it alone fails", "S-AUROC alone"]
    table = Table(
        "Worth of each camera, in points of S-AUROC, and what it reaches alone, in percent", columns
    )
    alone = {str(s["views"][0]): s["s_auroc"] for s in sweep["subsets"] if len(s["views"]) == 1}
    values = sweep["view_value"] or {}
    why = "undefined: one class only in some subset"
    for camera, lost in sweep["leave_one_out"].items():
        points = [
            table.figure(None, why) if value is None else Cell(f"{100 * value:+.1f}")
            for value in (values.get(camera), lost)
        ]
        if camera in alone:
            points.append(table.figure(alone[camera], why))
        else:
            points.append(table.figure(None, "not among the subsets that were sampled"))
        table.rows.append((f"C{camera}", points))
    return table


def best_subsets(sweep: Json) -> Table:
    """The best choice of each number of cameras."""
    table = Table(
        "The best cameras of each number, picked on these very data, in percent", ["cameras", "S-AUROC"]
    )
    for size, found in sweep["best_subsets"].items():
        names = " ".join(f"C{number}" for number in found["views"])
        table.rows.append((size, [Cell(names), Cell(percent(found["s_auroc"]))]))
    return table


def strategies(found: Json) -> Table:
    """S-AUROC by strategy and number of missing views."""
    missing = list(found["curves"][0]["by_missing"])
    table = Table("What to do about missing views: S-AUROC in percent", [f"{m} missing" for m in missing])
    for curve in found["curves"]:
        values = [curve["by_missing"][m]["s_auroc"] for m in missing]
        cells = [table.figure(value, "undefined: one class only") for value in values]
        table.rows.append((f"{curve['run']}: {curve['strategy']}", cells))
    return table


def missing_by_category(sweep: Json) -> Table:
    """S-AUROC by category and number of missing views (any view labelled)."""
    numbers = list(sweep["by_missing"])
    columns = [f"{number} missing" for number in numbers]
    table = Table("S-AUROC by category and number of missing views, in percent", columns)
    for name, found in sweep["categories"].items():
        cells = [table.figure(found["by_missing"][n]["s_auroc"], "one class only") for n in numbers]
        table.rows.append((name, cells))
    return table
