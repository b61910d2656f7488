"""Index of the samples in a dataset or store; all paths are relative to its root."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

Split = Literal["train", "val", "test"]
"""``train`` teaches, ``val`` chooses epochs and thresholds, ``test`` reports; most data has no ``val``."""
LearningSplit = Literal["train", "val"]
"""A split that a method may learn from: never the one that reports."""
SPLITS: tuple[Split, ...] = ("train", "val", "test")
"""All splits, in a store's order."""
TRAIN_AND_TEST: tuple[Split, ...] = ("train", "test")
"""The splits of layouts that have no validation samples."""

NORMAL_CLASS = "OK"
MIXED_CLASS = "MIXED"


def camera_name(names: Mapping[str, str], number: int | str) -> str:
    """Name of a camera for display: its own, see `Index.camera_names`, else ``C`` and its number."""
    return names.get(str(number), f"C{number}")


@dataclass(frozen=True)
class View:
    """One photograph of a sample."""

    number: int
    """Camera number in the dataset, from 1."""
    image: str
    """POSIX path of the image relative to the dataset's root."""
    mask: str | None
    """POSIX path of the defect mask relative to the root; None if the data has none."""
    anomaly_class: str
    """``OK`` or the name of the defect."""
    source: str | None = None
    """Original path of the photograph below the folder it was imported from; None if it was not imported."""
    camera: str | None = None
    """Name of the camera in the source; None if it has only its number."""

    @property
    def label(self) -> bool:
        """Whether the view is anomalous."""
        return self.anomaly_class != NORMAL_CLASS


@dataclass(frozen=True)
class Sample:
    """One object with its views, in the order of the index's view numbers."""

    sample_id: str
    """Unique in the dataset and independent of its location on disk, e.g. ``audiojack/NG/HS/S0036``."""
    category: str
    split: Split
    views: tuple[View | None, ...]
    """One slot per view number of the index; None if the view is absent."""
    inputs: Mapping[str, str | None] = field(default_factory=dict)
    """Per-sample input, e.g. ``audio`` -> POSIX path relative to the dataset's root; None if it is absent."""
    sample_class: str | None = None
    """``OK`` or the name of the defect if the data labels the sample itself; None if it labels the views."""
    origin: str | None = None
    """Kind of source that the sample was imported from, e.g. ``folder``; None if it was not imported."""

    @property
    def present(self) -> tuple[bool, ...]:
        """Per slot, whether the view is present."""
        return tuple(view is not None for view in self.views)

    @property
    def labels(self) -> tuple[bool, ...]:
        """Per slot, whether the view is present and anomalous."""
        return tuple(view is not None and view.label for view in self.views)

    @property
    def label(self) -> bool:
        """Whether the sample itself or any of its views is labeled anomalous."""
        return any(self.labels) or self.sample_class not in (None, NORMAL_CLASS)

    @property
    def has_mask(self) -> tuple[bool, ...]:
        """Per slot, whether the data has a mask of the view."""
        return tuple(view is not None and view.mask is not None for view in self.views)

    @property
    def by_number(self) -> dict[int, View]:
        """View number -> the view, of those present, in the order of the slots."""
        return {view.number: view for view in self.views if view is not None}

    @property
    def anomaly_class(self) -> str:
        """``OK``, the common defect of all anomalous views, or ``MIXED`` if they differ."""
        classes = {view.anomaly_class for view in self.views if view is not None and view.label}
        if not classes and self.sample_class is not None:
            return self.sample_class
        if not classes:
            return NORMAL_CLASS
        return classes.pop() if len(classes) == 1 else MIXED_CLASS


@dataclass(frozen=True)
class Index:
    """The rows of a dataset or store: row number -> sample."""

    view_numbers: tuple[int, ...]
    """Camera number of each view slot, ascending."""
    samples: tuple[Sample, ...]

    def __post_init__(self) -> None:
        assert list(self.view_numbers) == sorted(set(self.view_numbers)), self.view_numbers
        for sample in self.samples:
            assert len(sample.views) == len(self.view_numbers), sample
            for number, view in zip(self.view_numbers, sample.views, strict=True):
                assert view is None or view.number == number, sample

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories in order of first appearance."""
        return tuple(dict.fromkeys(sample.category for sample in self.samples))

    @property
    def camera_names(self) -> dict[str, str]:
        """Camera number, as text -> its name in the source; without cameras that have only a number."""
        views = (view for sample in self.samples for view in sample.views if view is not None)
        return {str(view.number): view.camera for view in views if view.camera is not None}

    def rows(self, wanted: Callable[[Sample], bool]) -> list[int]:
        """The rows of all samples for which ``wanted`` is true, ascending."""
        return [row for row, sample in enumerate(self.samples) if wanted(sample)]

    def take(self, rows: Iterable[int]) -> Self:
        """An index of these rows, renumbered from 0."""
        return replace(self, samples=tuple(self.samples[row] for row in rows))

    def with_views(self, numbers: Sequence[int]) -> Self:
        """The same samples with one slot for each of these view numbers; views of other numbers are dropped.

        Args:
            numbers: ascending.
        """
        if tuple(numbers) == self.view_numbers:
            return self
        samples = []
        for sample in self.samples:
            present = sample.by_number
            samples.append(replace(sample, views=tuple(present.get(number) for number in numbers)))
        return replace(self, view_numbers=tuple(numbers), samples=tuple(samples))

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal index."""
        return {"view_numbers": list(self.view_numbers), "samples": [_sample_json(s) for s in self.samples]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The index that `to_json` wrote."""
        samples = tuple(
            Sample(
                sample_id=s["sample_id"],
                category=s["category"],
                split=s["split"],
                views=tuple(None if v is None else _view(v) for v in s["views"]),
                inputs=s.get("inputs", {}),
                sample_class=s.get("sample_class"),
                origin=s.get("origin"),
            )
            for s in data["samples"]
        )
        return cls(view_numbers=tuple(data["view_numbers"]), samples=samples)


def _sample_json(sample: Sample) -> dict[str, Any]:
    """A sample as JSON; unused fields are omitted, as in stores written before the fields existed."""
    fields = asdict(sample)
    fields["views"] = [view and _without_unused(view, ("source", "camera")) for view in fields["views"]]
    return _without_unused(fields, ("inputs", "sample_class", "origin"))


def _without_unused(fields: dict[str, Any], optional: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in optional or value}


def _view(fields: dict[str, Any]) -> View:
    """``View(**fields)`` without the checks of a frozen dataclass: saves 25 % of opening a large store."""
    view = object.__new__(View)
    view.__dict__.update(fields)
    return view


def concatenate(indexes: Sequence[Index]) -> Index:
    """One index with the rows of all, in order. All must have the same view numbers."""
    numbers = {index.view_numbers for index in indexes}
    assert len(numbers) == 1, numbers
    return Index(view_numbers=numbers.pop(), samples=tuple(s for index in indexes for s in index.samples))


def check_rows(index: Index, rows: Sequence[int]) -> list[int]:
    """The rows as plain integers.

    Raises:
        IndexError: a row is not in the index, e.g. negative.
    """
    plain = [int(row) for row in rows]
    for row in plain:
        if not 0 <= row < len(index):
            raise IndexError(f"row {row} of an index with {len(index)} rows")
    return plain
