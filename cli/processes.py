"""Rank of this process among those started by torchrun."""

import os


def first_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun started."""
    return int(os.environ.get("RANK", "0")) == 0
