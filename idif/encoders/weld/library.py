"""Models of the library transformers: imported when first needed, their weights from the hub or its cache."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from idif.errors import ConfigError, WeightsError


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


def hub_weights(encoder: str, repository: str) -> Mapping[str, Tensor]:
    """The weights of a repository of the Hugging Face hub, by their names there.

    Raises:
        WeightsError: they are neither in the hub's cache nor can be downloaded.
    """
    file = "model.safetensors"
    try:
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from safetensors.torch import load_file

        cached = try_to_load_from_cache(repository, file)
        weights: Mapping[str, Tensor] = load_file(
            cached if isinstance(cached, str) else hf_hub_download(repository, file)
        )
    except Exception as error:  # the hub's client raises its HTTP library's exceptions too
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"pretrained weights of {encoder} are not in the hub's cache and cannot be downloaded "
            f"({reason}); get https://huggingface.co/{repository}/resolve/main/{file} and give that file or "
            "its folder, or ask for untrained weights"
        ) from None
    return weights
