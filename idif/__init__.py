"""Multi-view anomaly detection: data, frozen encoders, methods, training, evaluation, reports.

For scripts and notebooks: `load_config`, `train` and `load_run`; see ``docs/api.md``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from idif.version import __version__

__all__ = ["TrainedRun", "__version__", "load_config", "load_run", "train"]

if TYPE_CHECKING:
    from idif.config.loader import load_config
    from idif.runs.api import TrainedRun, load_run
    from idif.runs.train import train

_LAZY = {
    "TrainedRun": "idif.runs.api",
    "load_config": "idif.config.loader",
    "load_run": "idif.runs.api",
    "train": "idif.runs.train",
}
"""Public name -> its module, imported on first use, since importing torch takes seconds."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
