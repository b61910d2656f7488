"""Anomalous samples in a training split, described in words.

They are used like all others, since a method that learns without labels does not know them. The message is
shown wherever training samples are assumed to be normal.
"""

from collections.abc import Iterable

from idif.data.index import Sample


def contamination(samples: Iterable[Sample]) -> str | None:
    """``3 of 40 training samples are labelled anomalous (bolt 2 of 20, cup 1 of 20)``; None where none is.

    Args:
        samples: of any category; samples of other splits are ignored.
    """
    counts: dict[str, list[int]] = {}
    for sample in samples:
        if sample.split == "train":
            count = counts.setdefault(sample.category, [0, 0])
            count[0] += sample.label
            count[1] += 1
    anomalous, total = (sum(count[column] for count in counts.values()) for column in (0, 1))
    if not anomalous:
        return None
    listed = ", ".join(f"{name} {bad:,} of {n:,}" for name, (bad, n) in counts.items() if bad)
    by_category = f" ({listed})" if len(counts) > 1 else ""
    return f"{anomalous:,} of {total:,} training samples are labelled anomalous{by_category}"
