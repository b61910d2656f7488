"""Files of the Hugging Face hub: from its cache on this machine, else downloaded."""

import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from torch import Tensor

from idif.encoders.weights_file import read_weights_file
from idif.errors import WeightsError


def cached_file(repository: str, file: str) -> str | None:
    """A repository's file in the hub's cache, found without the network; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return found if isinstance(found, str) else None


def require_network() -> None:
    """Raise OSError if the hub's address is unknown here; behind a proxy that says nothing."""
    if not getproxies():
        from huggingface_hub.constants import ENDPOINT

        socket.getaddrinfo(urlsplit(ENDPOINT).hostname, 443)


def hub_weights(encoder: str, repository: str, file: str = "model.safetensors") -> Mapping[str, Tensor]:
    """The weights in a repository of the hub, by their names there.

    Args:
        encoder: name of the encoder, for messages.

    Raises:
        WeightsError: they are neither in the hub's cache nor can be downloaded.
    """
    try:
        from huggingface_hub import hf_hub_download

        # a file in the cache is found without asking the network, which would be tried for a minute
        path = cached_file(repository, file)
        if path is None:
            require_network()
            path = hf_hub_download(repository, file)
    except Exception as error:  # the hub's client raises its HTTP library's exceptions too
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"pretrained weights of {encoder} are not in the cache of the Hugging Face hub and cannot be "
            f"downloaded ({reason}); get https://huggingface.co/{repository}/resolve/main/{file} and give "
            "that file or its folder, or ask for untrained weights"
        ) from None
    return read_weights_file(Path(path))
