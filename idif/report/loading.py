"""Loads what a report shows of samples, or says why it is not shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from idif.data.index import Split
from idif.errors import IdifError
from idif.evaluation.predictions import Predictions

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class SampleLoader(Protocol[T_co]):
    """Loads the files of a run's samples."""

    def __call__(self, run: Path, category: str, split: Split, sample_ids: Sequence[str]) -> T_co:
        """The files by sample id.

        Args:
            run: the folder given to `write_report`.
            category: of all the samples.
            split: of all the samples.
            sample_ids: as in the predictions file.

        Raises:
            IdifError: none is available; the report shows the message instead.
        """
        ...


def load_samples(
    loader: SampleLoader[T],
    run: Path,
    split: Split,
    predictions: Predictions,
    rows: Sequence[int],
    shown: str,
) -> tuple[T | None, str | None]:
    """The files of one or more rows of a category; or None, and a sentence about why they are missing.

    Args:
        shown: what the report would show, as the subject of that sentence.
    """
    ids = [predictions.sample_id[row] for row in rows]
    try:
        return loader(run, predictions.category[rows[0]], split, ids), None
    except IdifError as error:
        return None, f"{shown} are not shown: {error}."
