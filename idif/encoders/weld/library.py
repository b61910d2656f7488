"""The library transformers, imported when first needed."""

from typing import Any

from idif.errors import ConfigError


def transformers(encoder: str) -> Any:
    """The library.

    Args:
        encoder: name of the encoder that needs it, for the message.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import transformers as library
    except ImportError:
        raise ConfigError(f"encoder: {encoder} needs transformers; install `idif[weld]`") from None
    return library
