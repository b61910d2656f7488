"""Several runs on one page: categories side by side, paired differences, and the same samples from each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from idif.errors import RunError
from idif.evaluation.decision import Decisions
from idif.evaluation.paired import compare
from idif.report.figures import scored_samples
from idif.report.gallery import Gallery, ImageLoader, Images, load_images, make_gallery, select_samples
from idif.report.run_data import RunData
from idif.report.tables import DASH, Cell, Table, applicable, label, paired

COMPARED = ("s_auroc", "p_auroc", "aupro")


@dataclass(frozen=True)
class SharedSample:
    """One sample and its gallery entry in each run."""

    sample_id: str
    kind: str
    galleries: tuple[tuple[str, Gallery], ...]
    """(run, its gallery of this sample alone)."""

    @property
    def title(self) -> str:
        """The photograph's original name if samples have only one, else the sample's id."""
        shown = self.galleries[0][1]
        return shown.samples[0].tiles[0].file if shown.one_camera and shown.samples else self.sample_id


@dataclass(frozen=True)
class SideBySide:
    """The page's comparison of several runs."""

    by_category: list[Table]
    paired: list[Table]
    samples: list[tuple[str, list[SharedSample]]]
    """(category, its samples)."""
    notes: list[str]


def side_by_side(runs: Sequence[RunData], images: ImageLoader | None, each: int, budget: int) -> SideBySide:
    """Compare runs category by category and sample by sample; the first run selects the samples.

    Args:
        runs: two or more.
        images: loads photographs, from the first run's data.
        each: samples of each kind and category.
        budget: bytes that the images may take.
    """
    categories = _shared_categories(runs)
    keys = [key for key in COMPARED if any(applicable(run, [key]) for run in runs)]
    tables = [table for key in keys if (table := _by_category(runs, key)) is not None]
    decided = _decisions(runs)
    notes: list[str] = []
    differences = []
    for other in runs[1:]:
        try:
            differences.append(_paired(runs[0], other))
        except RunError as error:
            notes.append(f"{other.name} and {runs[0].name} have no paired difference: {error}.")
    samples, reasons = [], []
    if len(categories) and all(run.predictions is not None and run.has_views for run in runs):
        for category in categories:
            shown, why = _samples(runs, category, images, each, budget // len(categories))
            samples.append((category, shown))
            reasons += [] if why is None else [why]
    shown_samples = [(name, found) for name, found in samples if found]
    return SideBySide(
        [*tables, *([decided] if decided.rows else [])],
        [table for table in differences if table is not None],
        shown_samples,
        notes + list(dict.fromkeys(reasons)),
    )


def _shared_categories(runs: Sequence[RunData]) -> list[str]:
    return [name for name in runs[0].categories if all(name in run.categories for run in runs)]


def _all_categories(runs: Sequence[RunData]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.categories))


def _by_category(runs: Sequence[RunData], key: str) -> Table | None:
    """One metric of every category, one column a run; None where no run has it."""
    table = Table(f"{label(key)} of the runs by category, in percent", [run.name for run in runs])
    for name in _all_categories(runs):
        values = [run.categories.get(name, {}) for run in runs]
        cells = [
            table.percent_cell(of.get(key), of.get("reasons", {}).get(key, "not evaluated"), f"{run.name}: ")
            for run, of in zip(runs, values, strict=True)
        ]
        table.rows.append((name, cells))
    if all(cell.text == DASH for _, cells in table.rows for cell in cells):
        return None
    if len(table.rows) > 1:
        table.rows.append(("mean", [table.percent_cell(run.metrics["mean"].get(key)) for run in runs]))
        table.total = True
    return table


def _decisions(runs: Sequence[RunData]) -> Table:
    """Misses and false alarms of every category, one column a run."""
    table = Table("Decisions by category: misses; false alarms (threshold)", [run.name for run in runs])
    for name in _all_categories(runs):
        cells = []
        for run in runs:
            recorded = run.categories.get(name, {}).get("decision")
            if recorded is None:
                cells.append(Cell(DASH))
                continue
            found = Decisions.from_json(recorded)
            misses, alarms = found.misses, found.false_alarms
            text = f"{misses.count}/{misses.total}; {alarms.count}/{alarms.total} ({found.threshold:.3g})"
            cells.append(Cell(text, table.note(f"{found.origin}")))
        table.rows.append((name, cells))
    if all(cell.text == DASH for _, cells in table.rows for cell in cells):
        table.rows.clear()
    return table


def _paired(first: RunData, other: RunData) -> Table | None:
    """S-AUROC of a run beside the first one's on the same samples; None without predictions.

    Raises:
        RunError: the runs were evaluated on other samples.
    """
    if first.predictions is None or other.predictions is None:
        return None
    found = compare(other.name, other.predictions, first.name, first.predictions, first.config.eval)
    table = paired(found)
    table.caption = (
        f"{other.name} beside {first.name}: S-AUROC in percent; both on the same resampled samples"
    )
    return table if table.rows else None


def _samples(
    runs: Sequence[RunData], category: str, images: ImageLoader | None, each: int, budget: int
) -> tuple[list[SharedSample], str | None]:
    """The samples of a category that the first run selects and all runs scored."""
    first = runs[0]
    assert first.predictions is not None
    recorded = first.categories[category].get("thresholds", {}).get("sample")
    chosen = scored_samples(first.predictions, category, first.config.eval, recorded)
    selected = select_samples(chosen, each, each)
    rows_of: list[Mapping[str, int]] = []
    for run in runs:
        assert run.predictions is not None
        of_category = run.predictions.rows(category)
        rows_of.append({run.predictions.sample_id[row]: int(row) for row in of_category})
    ids = {first.predictions.sample_id[row]: kind for row, kind in selected.items()}
    shared = {name: kind for name, kind in ids.items() if all(name in rows for rows in rows_of)}
    if not shared:
        return [], None
    split = first.protocol.get("split", "test")
    photos, why = load_images(
        images, first.folder, split, first.predictions, [rows_of[0][name] for name in shared]
    )
    if not photos and not all(run.predictions is not None and run.predictions.has_maps for run in runs):
        return [], why
    share = budget // (len(shared) * len(runs))
    found = []
    for name, kind in shared.items():
        entries = []
        for run, rows in zip(runs, rows_of, strict=True):
            assert run.predictions is not None
            of_run = _fitting(photos, name, len(run.predictions.view_numbers))
            gallery = make_gallery(run.predictions, {rows[name]: kind}, of_run, share)
            entries.append((run.name, gallery))
        found.append(SharedSample(name, kind, tuple(entries)))
    return found, why


def _fitting(photos: Mapping[str, Images], name: str, views: int) -> Mapping[str, Images]:
    """The photographs of a sample, if a run has as many views of it."""
    image = photos.get(name)
    return {name: image} if image is not None and np.shape(image)[0] == views else {}
