"""Anomalous samples among those that a model trains on: how many, in words.

They are used like all others: a method that learns without labels may not know them. Their number is said
wherever training samples are taken for normal.
"""

from collections.abc import Iterable

from idif.data.index import Sample


def contamination(samples: Iterable[Sample]) -> str | None:
    """``3 of 40 training samples are labelled anomalous (bolt 2 of 20, cup 1 of 20)``; None where none are.

    Args:
        samples: training samples of any categories; other splits' are passed over.
    """
    counts: dict[str, list[int]] = {}
    for sample in samples:
        if sample.split == "train":
            of = counts.setdefault(sample.category, [0, 0])
            of[0] += sample.label
            of[1] += 1
    bad, total = (sum(of[place] for of in counts.values()) for place in (0, 1))
    if not bad:
        return None
    listed = ", ".join(f"{name} {b:,} of {n:,}" for name, (b, n) in counts.items() if b)
    which = f" ({listed})" if len(counts) > 1 else ""
    return f"{bad:,} of {total:,} training samples are labelled anomalous{which}"
