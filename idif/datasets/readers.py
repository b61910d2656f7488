"""`READERS`: every dataset layout that a config or command can name."""

from collections.abc import Callable
from dataclasses import dataclass

from idif.data.index import Index, Sample, Split
from idif.data.recording import Recording
from idif.datasets.config import DataConfig
from idif.datasets.realiad.files import RealIADLayout, list_categories
from idif.datasets.realiad.reader import read_realiad
from idif.datasets.weld.reader import CATEGORY as WELD
from idif.datasets.weld.reader import read_weld
from idif.errors import ConfigError, DatasetError


@dataclass(frozen=True)
class Reader:
    """One layout of datasets; ``data.root`` is set wherever it is called."""

    read: Callable[[DataConfig, Split | None], Index]
    """The samples of ``data.categories`` (all when empty) and a split (every split when None)."""
    categories: Callable[[DataConfig], list[str]]
    """The categories there are, sorted, without reading any sample."""
    encoder: str = "resnet18"
    """The encoder, or set of encoders, of a store for which none is named."""
    recording: Callable[[DataConfig, Sample], Recording] | None = None
    """Reads a sample's files for people to look at; None where views and maps show all there is."""


def _realiad_layout(data: DataConfig) -> RealIADLayout:
    assert data.root is not None
    return RealIADLayout(data.root, data.images, data.annotations)


def _read_realiad(data: DataConfig, split: Split | None) -> Index:
    return read_realiad(
        _realiad_layout(data),
        categories=data.categories,
        split=split,
        drop_incomplete=data.drop_incomplete,
        views=data.views,
    )


def _read_weld(data: DataConfig, split: Split | None) -> Index:
    assert data.root is not None
    if others := sorted({*data.categories} - {WELD}):
        raise DatasetError(f"data.categories: weld runs are of the category {WELD!r}, got {others[0]!r}")
    return read_weld(data.root, split, views=data.views, drop_incomplete=data.drop_incomplete)


def _read_recording(data: DataConfig, sample: Sample) -> Recording:
    from idif.datasets.weld.recording import read_recording  # OpenCV and torch take seconds to import

    assert data.root is not None
    return read_recording(data.root, sample)


READERS: dict[str, Reader] = {
    "realiad": Reader(_read_realiad, lambda data: list_categories(_realiad_layout(data))),
    "weld": Reader(_read_weld, lambda data: [WELD], encoder="weld", recording=_read_recording),
}
"""``data.reader`` of a config, and sub-command of `idif cache build` and `idif cache plan` -> its reader."""


def reader_of(data: DataConfig) -> Reader:
    """The reader that a config names.

    Raises:
        ConfigError: there is no such reader.
    """
    if data.reader not in READERS:
        raise ConfigError(f"data.reader: there is no {data.reader!r}; known: {', '.join(READERS)}")
    return READERS[data.reader]
