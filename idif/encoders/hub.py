"""Files in the cache of the Hugging Face hub."""

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies


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
