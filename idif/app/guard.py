"""Refuses requests before Gradio sees them: other hosts and origins, guessed passwords, too large bodies.

Every refusal is a status and one sentence as JSON, ``{"detail": ...}``. A client that is still sending its
body when the connection closes sees a broken connection and no sentence, so the rest of a refused body is
read and discarded before the answer, within `DISCARD_MB` and `DISCARD_SECONDS`; this also holds for requests
that Gradio itself refuses.
"""

import asyncio
import contextlib
import ipaddress
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from idif.app.uploads import UNPACKED_MB

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_JSON_BYTES = 2**20
"""Largest body of a request that is no upload."""
MAX_TRIES = 5
"""Wrong passwords of one address, and"""
MAX_TRIES_OF_ALL = 50
"""of all addresses, until the next try has to wait for the"""
TRIES_SECONDS = 60.0
"""seconds after which a wrong password is forgotten."""
TOTAL_MB = 5000
"""Most megabytes of photographs kept for all visits together."""
DISCARD_MB = 500
"""Largest body of a refused request that is read to its end; the answer to a larger one comes at once."""
DISCARD_SECONDS = 20.0
"""Longest time that the rest of a refused body may take; the answer comes then."""
_MB = 1_000_000


@dataclass
class Tries:
    """Wrong passwords of the last `TRIES_SECONDS`."""

    clock: Callable[[], float] = time.monotonic
    _failed: deque[tuple[float, str]] = field(default_factory=deque)

    def wait(self, address: str) -> float:
        """Seconds until ``address`` may try again; 0 where it may now."""
        now = self.clock()
        while self._failed and now - self._failed[0][0] > TRIES_SECONDS:
            self._failed.popleft()
        own = [moment for moment, other in self._failed if other == address]
        waits = [
            times[-limit] + TRIES_SECONDS - now
            for times, limit in ((own, MAX_TRIES), ([m for m, _ in self._failed], MAX_TRIES_OF_ALL))
            if len(times) >= limit
        ]
        return max(waits, default=0.0)

    def failed(self, address: str) -> None:
        """Count a try; `succeeded` takes it back."""
        self._failed.append((self.clock(), address))

    def succeeded(self, address: str) -> None:
        """Forget the tries of an address."""
        self._failed = deque(entry for entry in self._failed if entry[1] != address)


class Refused(Exception):
    """A request that is refused, with status and sentence."""

    def __init__(self, status: int, sentence: str, wait: float = 0.0) -> None:
        super().__init__(sentence)
        self.status, self.wait = status, wait


class Guard:
    """ASGI middleware in front of Gradio."""

    def __init__(
        self, app: App, *, host: str, uploads: Path, has_password: bool, tries: Tries | None = None
    ) -> None:
        """A guard.

        Args:
            app: the guarded application.
            host: address that the server listens on.
            uploads: folder of all visits' photographs.
            has_password: whether visitors sign in. A page of another name in the visitor's browser has no
                cookie of this one then, so that any host name is safe, that of a proxy included.
            tries: the wrong passwords so far.
        """
        self._app, self._uploads, self._tries = app, uploads, tries or Tries()
        self._hosts = None if has_password else LOCAL | {host.strip("[]").lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a refusal."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        body = _Body(receive, headers)
        client = (scope.get("client") or ("unknown",))[0]
        login = scope["type"] == "http" and scope["method"] == "POST" and _is_path(scope, "/login")
        try:
            self._check_host(headers)
            if scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD", "OPTIONS"):
                _check_origin(headers)
                self._check_size(scope, headers)
            if login:
                self._check_tries(client)
        except Refused as refused:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": str(refused)})
                return
            await body.discard()
            await _answer(refused, send)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        if login:
            self._tries.failed(client)  # before the answer, so that tries at the same time count

        async def watch(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                if message["status"] >= 400:
                    await body.discard()
                elif login:
                    self._tries.succeeded(client)
            await send(message)

        await self._app(scope, body.receive, watch)

    def _check_host(self, headers: Mapping[str, str]) -> None:
        if self._hosts is not None and _host_name(headers.get("host", "")) not in self._hosts:
            raise Refused(421, "This page is served to this machine only, under its own name.")

    def _check_size(self, scope: Scope, headers: Mapping[str, str]) -> None:
        length = headers.get("content-length", "")
        if not length.isdecimal():
            raise Refused(411, "The request does not say how long it is.")
        if not _is_path(scope, "/upload"):
            if int(length) > MAX_JSON_BYTES:
                raise Refused(413, f"The request is larger than {MAX_JSON_BYTES:,} bytes.")
        elif int(length) > UNPACKED_MB * _MB:
            raise Refused(
                413, f"The upload has {int(length) / _MB:.0f} MB; at most {UNPACKED_MB} MB at once."
            )
        elif folder_bytes(self._uploads) + int(length) > TOTAL_MB * _MB:
            raise Refused(507, f"All visits together may upload {TOTAL_MB} MB; try again later.")

    def _check_tries(self, client: str) -> None:
        wait = self._tries.wait(client)
        if wait > 0:
            raise Refused(429, f"Too many wrong passwords; try again in {wait:.0f} seconds.", wait)


class _Body:
    """The body of one request, of which the rest can be discarded."""

    def __init__(self, receive: Receive, headers: Mapping[str, str]) -> None:
        self._receive = receive
        length = headers.get("content-length", "")
        self._length = int(length) if length.isdecimal() else None
        self._ended = self._length == 0 or (self._length is None and "transfer-encoding" not in headers)

    async def receive(self) -> dict[str, Any]:
        """The next message of the client."""
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._ended = True
        return message

    async def discard(self) -> None:
        """Read the body to its end, within the limits of size and time."""
        if self._length is not None and self._length > DISCARD_MB * _MB:
            return
        read = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while not self._ended and read <= DISCARD_MB * _MB:
                    read += len((await self.receive()).get("body", b""))


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile do not count."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def _is_path(scope: Scope, ending: str) -> bool:
    return str(scope["path"]).rstrip("/").endswith(ending)


def _host_name(host: str) -> str:
    """The name in a ``Host`` header, in lower case, without port and brackets; empty where it is none."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        return str(ipaddress.ip_address(name)) if name[:1].isdecimal() or ":" in name else name
    except ValueError:
        return ""


def _check_origin(headers: Mapping[str, str]) -> None:
    """Refuse what another page in the visitor's browser sends."""
    origin = headers.get("origin")
    names = {headers.get("host", "").lower(), headers.get("x-forwarded-host", "").lower()} - {""}
    foreign = origin is not None and urlsplit(origin).netloc.lower() not in names
    if foreign or headers.get("sec-fetch-site") == "cross-site":
        raise Refused(403, "This request comes from another page.")


async def _answer(refused: Refused, send: Send) -> None:
    body = json.dumps({"detail": str(refused), "error": str(refused)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close")]
    if refused.wait:
        headers.append((b"retry-after", str(int(refused.wait) + 1).encode()))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
