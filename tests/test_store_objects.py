"""A store in an object store: the same bytes and checks as on disk; cut short, damaged and refused by name."""

import contextlib
import http.server
import json
import logging
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
from botocore.exceptions import IncompleteReadError
from moto.server import ThreadedMotoServer

import cache.objects
from cache import FeatureStore
from cache.build import BuildReport, build_store
from cache.files import seal
from cache.objects import ObjectPath, store_path
from cache.placement import place
from cache.publish import build_remote
from cache.verify import verify_store
from cli.__main__ import run
from idif.config import resolve
from idif.datasets.index import Index
from idif.errors import CannotFinish, StoreDamaged, StoreError, StoreIncomplete, StoreMismatch
from tests.tiny_data import tiny_index, tree, untrained, write_annotations
from tests.tiny_run import FAST

INDEX = tiny_index()
CUP = tiny_index(["cup"], train=3, test=0)
pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A client of an S3 server on this machine, with a bucket; boto3 finds it by the environment."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
            "NO_PROXY": "127.0.0.1",
        }.items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        yield client
        client.close()
    moto.stop()


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store") / "reference"
    build_store(data, INDEX, store, untrained(), image_size=32, shard_rows=2)
    return store


@pytest.fixture(scope="module")
def kept(server: Any, reference: Path) -> str:
    """The address of the reference store, copied as any tool would; no test changes it."""
    return upload(server, reference, "kept")


def upload(server: Any, store: Path, prefix: str) -> str:
    for name, content in tree(store).items():
        server.put_object(Bucket="bucket", Key=f"{prefix}/{name}", Body=content)
    return f"s3://bucket/{prefix}"


def objects(server: Any, prefix: str) -> dict[str, bytes]:
    """Every object below a prefix, by relative key."""
    pages = server.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=f"{prefix}/")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
    return {
        key.removeprefix(f"{prefix}/"): server.get_object(Bucket="bucket", Key=key)["Body"].read()
        for key in keys
    }


def build(data: Path, url: str, staging: Path, index: Index = INDEX, **options: Any) -> BuildReport:
    store = store_path(url)
    assert isinstance(store, ObjectPath)
    options = {"encoder": untrained(), "image_size": 32, "shard_rows": 2, **options}
    return build_remote(data, index, store, staging=staging, **options)


def test_what_is_published_is_what_a_folder_holds(
    server: Any, data: Path, reference: Path, tmp_path: Path
) -> None:
    url, shards = "s3://bucket/some/prefix", 10
    first = build(
        data, url, tmp_path / "a", INDEX.take([i for i, s in enumerate(INDEX.samples) if s.category == "cup"])
    )
    assert first.shards_encoded == shards // 2
    # another machine, which has nothing of it, adds the rest
    second = build(data, url, tmp_path / "b")
    assert (second.shards_encoded, second.shards_kept) == (shards // 2, shards // 2)
    assert objects(server, "some/prefix") == tree(reference)
    assert not list((tmp_path / "a").iterdir()) and not list((tmp_path / "b").iterdir())
    third = build(data, url, tmp_path / "a")
    assert (third.shards_encoded, third.shards_kept) == (0, shards)
    assert third.groups == second.groups == ("bolt/train", "bolt/test", "cup/train", "cup/test")
    with pytest.raises(StoreMismatch, match="storage: 'float16', not 'uint8'"):
        build(data, url, tmp_path / "a", storage="uint8")
    assert objects(server, "some/prefix") == tree(reference)


@pytest.mark.parametrize("storage", ["float16", "uint8"])
def test_reading_is_the_same(
    server: Any, data: Path, kept: str, reference: Path, tmp_path: Path, storage: Any
) -> None:
    if storage == "uint8":
        reference = tmp_path / "uint8"
        build_store(data, INDEX, reference, untrained(), image_size=32, shard_rows=4, storage="uint8")
        kept = upload(server, reference, "uint8")
    local, remote = FeatureStore.open(reference), FeatureStore.open(kept)
    assert remote.fingerprint == local.fingerprint
    assert remote.index == local.index
    assert remote.load_encoder().sha256 == local.load_encoder().sha256
    order = [17, 0, 5, 5, 11, 3, 16, 8]
    for source in (remote, pickle.loads(pickle.dumps(remote)), place(remote, "memory", torch.device("cpu"))):
        for mine, theirs in zip(source.batches(order, 3), local.batches(order, 3), strict=True):
            for name in ("rows", "images", "view_mask", "labels", "masks"):
                assert torch.equal(getattr(mine, name), getattr(theirs, name)), name
            for name, values in theirs.features.items():
                assert torch.equal(mine.features[name], values), name
    one = FeatureStore.open(kept, ["cup"], "test")
    assert [sample.category for sample in one.index.samples] == ["cup"] * 4


class Stopped(BaseException):
    """As little can be done after it as after a kill."""


def test_a_publication_cut_short_after_every_object(
    server: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, prefix = "s3://bucket/cut", "cut"
    build_store(data, CUP, tmp_path / "whole", untrained(), image_size=32, shard_rows=2)
    wanted = tree(tmp_path / "whole")
    put, sent = cache.objects._Bucket.put, []
    monkeypatch.setattr("cache.publish.SENDERS", 1)

    def put_one(bucket: Any, key: str, content: bytes, **conditions: str) -> None:
        if key != "build.lock":
            if sent:
                raise Stopped
            sent.append(key)
        put(bucket, key, content, **conditions)

    # a kill gives no claim back
    monkeypatch.setattr(cache.objects._Bucket, "put", put_one)
    monkeypatch.setattr(ObjectPath, "unlink", lambda path, missing_ok: None)
    order: list[str] = []
    encoded = 0
    while True:
        sent.clear()
        try:
            build(data, url, tmp_path / "staging", CUP)
        except Stopped:
            order += sent
            with pytest.raises(StoreError if len(order) < 1 else StoreIncomplete):
                FeatureStore.open(url)
            encoded += 1
            continue
        order += sent
        break
    assert order[0] == "building.json"
    assert sorted(order[1:]) == sorted(wanted)  # each once
    assert order[-1] == "cup/train/manifest.json"
    with pytest.raises(StoreError, match="publishing here.*remove s3://bucket/cut/build.lock"):
        build(data, url, tmp_path / "elsewhere", CUP)
    monkeypatch.undo()
    monkeypatch.setattr("cache.files.os.fsync", lambda descriptor: None)
