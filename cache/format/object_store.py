"""Paths in an object store, ``s3://BUCKET/PREFIX``, with the subset of `pathlib.Path` that stores use."""

import base64
import contextlib
import errno
import hashlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeAlias

from idif.errors import CannotFinish, StoreError

REQUESTS = 16
"""Maximum number of concurrent requests."""
ATTEMPTS = 4
"""Maximum attempts of a request, and of an interrupted transfer."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PART = re.compile(r"[A-Za-z0-9!_.*'() =+@,:-]+")
_REFUSED = {401, 403}
_BAD_KEYS = {"InvalidAccessKeyId", "ExpiredToken", "InvalidToken", "SignatureDoesNotMatch", "AccessDenied"}


class _Stat(NamedTuple):
    st_size: int


class _Bucket:
    """The objects below one prefix: listing, and complete or partial transfers."""

    def __init__(self, url: str, bucket: str, prefix: str, client: Any = None) -> None:
        self.url, self.bucket, self.prefix = url, bucket, prefix
        self.client = client or self._client()

    def name(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{key}".lstrip("/")}

    def _client(self) -> Any:
        try:
            import boto3
            from botocore.config import Config
        except ModuleNotFoundError:
            raise StoreError(
                f"{self.url}: an object store needs boto3; install it with pip install 'idif[s3]'"
            ) from None
        retries = {"mode": "standard", "max_attempts": ATTEMPTS}
        config = Config(retries=retries, connect_timeout=10, max_pool_connections=2 * REQUESTS)
        with self.translate_errors(self.url):
            try:
                return boto3.client("s3", config=config)
            except ValueError:  # boto3's error for an invalid endpoint
                raise StoreError(f"{self.url}: AWS_ENDPOINT_URL: expected http(s)://HOST") from None

    @cached_property
    def sizes(self) -> dict[str, int]:
        """{key relative to the prefix: size in bytes}, listed once on first use."""
        start = len(self.prefix) + 1 if self.prefix else 0
        sizes: dict[str, int] = {}
        pages = self.client.get_paginator("list_objects_v2")
        with self.translate_errors(self.url):
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix and f"{self.prefix}/"):
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):  # marker of an empty folder, created by web consoles
                        sizes[entry["Key"][start:]] = entry["Size"]
        return sizes

    @cached_property
    def folders(self) -> dict[str, set[str]]:
        """{folder: names in it}."""
        folders: dict[str, set[str]] = {}
        for key in self.sizes:
            while key:
                key, _, name = key.rpartition("/")
                folders.setdefault(key, set()).add(name)
        return folders

    def get(self, key: str, span: tuple[int, int] | None = None) -> bytes:
        """An object's bytes, or those from ``span[0]`` to ``span[1]`` (exclusive)."""
        from botocore import exceptions

        part = {} if span is None else {"Range": f"bytes={span[0]}-{span[1] - 1}"}
        with self.translate_errors(f"{self.url}/{key}"):
            for attempt in range(ATTEMPTS):
                try:
                    data: bytes = self.client.get_object(**self.name(key), **part)["Body"].read()
                    return data
                except (exceptions.IncompleteReadError, exceptions.HTTPClientError):
                    # botocore repeats requests, but not interrupted transfers
                    if attempt + 1 == ATTEMPTS:
                        raise
        raise AssertionError

    def put(self, key: str, data: bytes, **conditions: str) -> None:
        sha256 = hashlib.sha256(data)
        with self.translate_errors(f"{self.url}/{key}"):
            self.client.put_object(
                **self.name(key),
                Body=data,
                ChecksumSHA256=base64.b64encode(sha256.digest()).decode(),
                Metadata={"sha256": sha256.hexdigest()},
                **conditions,
            )

    @contextlib.contextmanager
    def translate_errors(self, where: str) -> Iterator[None]:
        """Translate boto3's exceptions. Omits the server's own text, which may contain keys.

        Raises:
            FileNotFoundError, OSError: no such object; range beyond its end. StoreError: no bucket, no
            credentials, or not allowed. CannotFinish: no answer, or a server error.
        """
        from botocore import exceptions

        try:
            yield
        except exceptions.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if code == "NoSuchBucket":
                raise StoreError(f"{where}: there is no bucket {self.bucket!r}") from None
            if status == 404:
                raise FileNotFoundError(errno.ENOENT, "no such object", where) from None
            if status == 412:
                raise FileExistsError(errno.EEXIST, "is there already", where) from None
            if status == 416:
                raise OSError(errno.EIO, "shorter than expected", where) from None
            if status in _REFUSED or code in _BAD_KEYS:
                raise StoreError(
                    f"{where}: the object store refused access ({code}); check the credentials in use and "
                    f"what they allow"
                ) from None
            raise CannotFinish(f"{where}: the object store answered {code} (HTTP {status})") from None
        except (
            exceptions.NoCredentialsError,
            exceptions.PartialCredentialsError,
            exceptions.CredentialRetrievalError,
            exceptions.ProfileNotFound,
            exceptions.TokenRetrievalError,
            exceptions.SSOError,
        ) as error:
            raise StoreError(
                f"{where}: no usable credentials ({type(error).__name__}); set AWS_ACCESS_KEY_ID and "
                f"AWS_SECRET_ACCESS_KEY, or a profile"
            ) from None
        except (exceptions.HTTPClientError, exceptions.BotoCoreError) as error:
            raise CannotFinish(
                f"{where}: the object store cannot be reached ({type(error).__name__}); "
                f"check the network and AWS_ENDPOINT_URL"
            ) from None


@dataclass(frozen=True)
class ObjectPath:
    """An object or a folder of objects, with the methods of `pathlib.Path` that a store uses.

    Names and sizes come from one listing, made on first use and shared by all paths below one root.
    """

    bucket: _Bucket
    key: str = ""
    """Key relative to the store; empty for the store itself."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """The root of a store.

        Raises:
            StoreError: not ``s3://BUCKET`` or ``s3://BUCKET/PREFIX`` in plain characters. The message does
                not repeat the address: it may hold a password.
        """
        rest = url.partition("://")[2].rstrip("/")
        name, *parts = rest.split("/")
        if not _BUCKET.fullmatch(name) or not all(map(_PART.fullmatch, parts)) or {".", ".."} & {*parts}:
            raise StoreError(
                "the store's address: expected s3://BUCKET/PREFIX in plain characters, no keys, no query; "
                "credentials come from the environment or a profile"
            )
        return cls(_Bucket(f"s3://{rest}", name, "/".join(parts)))

    def __str__(self) -> str:
        return f"{self.bucket.url}/{self.key}".rstrip("/")

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(self.bucket, f"{self.key}/{name}".lstrip("/"))

    @property
    def name(self) -> str:
        """The last component of the path."""
        return self.key.rpartition("/")[2]

    def is_file(self) -> bool:
        """Whether the object exists."""
        return self.key in self.bucket.sizes

    def is_dir(self) -> bool:
        """Whether there are objects below this path."""
        return self.key in self.bucket.folders

    def exists(self) -> bool:
        """Whether it is an object or a folder."""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator["ObjectPath"]:
        """The objects and folders directly below this path, sorted by name."""
        return iter([self / name for name in sorted(self.bucket.folders.get(self.key, ()))])

    def stat(self) -> _Stat:
        """The object's size; raises FileNotFoundError."""
        if not self.is_file():
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self))
        return _Stat(self.bucket.sizes[self.key])

    def read_bytes(self) -> bytes:
        """The whole object; raises FileNotFoundError, and as `_Bucket.translate_errors`."""
        self.stat()
        return self.bucket.get(self.key)

    def open(self, mode: Literal["rb"], buffering: Literal[0]) -> "ObjectFile":
        """Open the object as a file whose every read is a request; raises FileNotFoundError."""
        return ObjectFile(self, self.stat().st_size)

    def sha256(self) -> str | None:
        """The hash (hex) that `write_bytes` stored with the object; None for objects of other programs."""
        with self.bucket.translate_errors(str(self)):
            answer = self.bucket.client.head_object(**self.bucket.name(self.key))
            digest: str | None = answer["Metadata"].get("sha256")
            return digest

    def write_bytes(self, data: bytes) -> None:
        """Write the object atomically, with its SHA-256, which the server checks."""
        self.bucket.put(self.key, data)

    def write_new(self, data: bytes) -> bool:
        """As `write_bytes`, but if the object exists, write nothing and return False."""
        try:
            self.bucket.put(self.key, data, IfNoneMatch="*")
        except FileExistsError:
            return False
        return True

    def unlink(self, missing_ok: Literal[True]) -> None:
        """Remove the object."""
        with self.bucket.translate_errors(str(self)):
            self.bucket.client.delete_object(**self.bucket.name(self.key))

    def refreshed(self) -> "ObjectPath":
        """The same path with a new listing."""
        bucket = self.bucket
        return ObjectPath(_Bucket(bucket.url, bucket.bucket, bucket.prefix, bucket.client), self.key)


class ObjectFile(io.RawIOBase):
    """An object opened for reading; every read is a request."""

    def __init__(self, path: ObjectPath, size: int) -> None:
        """For `ObjectPath.open`."""
        self._path, self._size, self._at = path, size, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, without a request; raises OSError for a negative position."""
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at < 0:
            raise OSError(errno.EINVAL, "before the beginning", str(self._path))
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        """Read into ``buffer`` up to the end of the object, in one request."""
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self._size)
        if stop <= self._at:
            return 0
        data = self._path.bucket.get(self._path.key, (self._at, stop))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


StorePath: TypeAlias = Path | ObjectPath
"""The location of a store: a folder, or a path in an object store."""


def store_path(place: str | StorePath) -> StorePath:
    """Parse the location of a store: a folder or ``s3://BUCKET/PREFIX``.

    Raises:
        StoreError: another kind of address, or one that was converted to a `Path`.
    """
    if isinstance(place, ObjectPath):
        return place
    if isinstance(place, Path):
        if place.parts[:1] == ("s3:",):
            raise StoreError(f"{place}: an address is given as text, since a path takes one of its slashes")
        return place
    address = _SCHEME.fullmatch(place)
    if address is None:
        return Path(place)
    if address[1].lower() != "s3":
        raise StoreError(f"{address[1]}://: expected a folder or s3://BUCKET/PREFIX")
    return ObjectPath.parse(place)
