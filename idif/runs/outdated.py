"""Results of earlier weights: results record the digests of the weights that gave them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from idif.errors import RunError
from idif.runs.files import EVALUATE_AGAIN
from idif.training.checkpoint_files import MODEL, find_checkpoint, read_note

MODELS = "models"
"""Key of a result's protocol: model -> SHA-256 of the weights that gave it."""


def model_digests(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """{model: SHA-256 of its weights} of those models of a run that have a checkpoint.

    Raises:
        RunError: a checkpoint's note is damaged.
    """
    found = {name: find_checkpoint(folder / name) for name in names}
    return {name: read_note(path)[1][MODEL] for name, path in found.items() if path is not None}


def outdated_models(protocol: Mapping[str, Any], folder: Path) -> list[str]:
    """The models whose weights are no longer those that gave a result.

    Args:
        protocol: the result's; without the key `MODELS`, as before version 0.2, nothing is compared.
        folder: the run's folder.
    """
    recorded: Mapping[str, str] = protocol.get(MODELS, {})
    now = model_digests(folder, list(recorded))
    return [name for name, sha256 in recorded.items() if now.get(name, sha256) != sha256]


def check_results(path: Path, protocol: Mapping[str, Any], folder: Path) -> None:
    """Refuse results of an earlier training.

    Raises:
        RunError: ``path``, with this protocol, is not of the run's present weights.
    """
    if old := outdated_models(protocol, folder):
        raise RunError(f"{path}: of an earlier training of {', '.join(old)}; {EVALUATE_AGAIN}")
