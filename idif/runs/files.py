"""The small files of a run's folder: config, facts and results, each checked when it is read."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idif.config.loader import load_configs
from idif.config.sections import Config
from idif.errors import RunError
from idif.files import replace_file
from idif.fingerprint import sha256_of_file
from idif.sealed_json import read_sealed, write_sealed

CONFIG_FILE, FACTS_FILE = "config.yaml", "environment.json"
METRICS_FILE, SWEEP_FILE, STRATEGIES_FILE = "metrics.json", "sweep.json", "strategies.json"
INPUT_SWEEP_FILE = "input_sweep.json"
PREDICTIONS_FILE, RECONSTRUCTION_FILE = "predictions.h5", "reconstruction.h5"

CONFIG_DIGESTS = "config_sha256"
"""Key of ``environment.json``: SHA-256 of ``config.yaml``, and of the one it replaced on resuming."""

EVALUATE_AGAIN = "evaluate the run again with `idif eval`"
RESTORE = "restore the file from a copy, or train the run again"


def write_facts(folder: Path, config: Config, facts: dict[str, Any]) -> None:
    """Write ``environment.json``, then ``config.yaml``, whose digest it contains."""
    text = config.to_yaml()
    path = folder / CONFIG_FILE
    # both digests: a stop between the two writes leaves the former config
    before = [sha256_of_file(path)] if path.is_file() else []
    digests = [hashlib.sha256(text.encode()).hexdigest(), *before]
    write_sealed(folder / FACTS_FILE, facts | {CONFIG_DIGESTS: list(dict.fromkeys(digests))})
    replace_file(path, text)


def read_facts(folder: Path) -> dict[str, Any]:
    """Content of a run's ``environment.json``.

    Raises:
        RunError: the file is missing, unreadable or damaged.
    """
    return read_sealed(folder / FACTS_FILE, RESTORE)


def read_config(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """A run's config with some settings overridden.

    Args:
        folder: the folder that contains ``config.yaml``.
        overrides: ``KEY=VALUE`` with a dotted key.

    Raises:
        RunError: the file is not the one that the training wrote. ConfigError: see `load_configs`.
    """
    path = folder / CONFIG_FILE
    # without facts nothing is known about the config; versions before 0.2 recorded no digest
    known = read_facts(folder).get(CONFIG_DIGESTS) if (folder / FACTS_FILE).exists() else None
    if known is not None:
        try:
            now = sha256_of_file(path)
        except OSError as error:
            raise RunError(f"{path}: cannot be read ({error.strerror or error})") from None
        if now not in known:
            raise RunError(
                f"{path}: damaged or edited, it is not the file that the training wrote; {RESTORE}; give "
                "other settings with --set"
            )
    (config,) = load_configs(path)
    # a run records all keys, so that a missing one did not exist yet
    method = config.method
    earlier = [
        f"method.{key}={value}"
        for key, value in method.earlier_values.items()
        if key not in method.model_fields_set
    ]
    changes = [*earlier, *overrides]
    return load_configs(path, changes)[0] if changes else config
