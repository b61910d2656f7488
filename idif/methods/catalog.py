"""`METHODS`: every method that a config can name."""

from collections.abc import Callable

from idif.config.sections import Config
from idif.data.features import FeatureSpec
from idif.methods.idif.build import build_idif
from idif.methods.protocol import Method

METHODS: dict[str, Callable[[Config, FeatureSpec, tuple[int, ...]], Method]] = {
    "idif": build_idif,
}
"""Name in the config -> builder(config, feature spec, view numbers)."""
