"""A store in an object store: the same bytes and checks as on disk, also cut short, damaged or refused."""

import http.server
import json
import logging
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext as does_not_raise
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
import yaml
from botocore.exceptions import IncompleteReadError
from moto.server import ThreadedMotoServer

import cache.format.object_store
from cache import FeatureStore
from cache.building.build import BuildReport
from cache.checking.verify import verify_store
from cache.format.object_store import ObjectPath, store_path
from cache.format.sealed_files import seal
from cache.reading.placement import place
from cache.remote.upload import build_remote
from cli.__main__ import run
from idif.config.loader import resolve
from idif.data.index import Index
from idif.errors import CannotFinish, StoreDamaged, StoreError, StoreIncomplete, StoreMismatch
from tests.feature_source_contract import assert_same
from tests.helpers.tiny_data import tiny_index, tree, two_cameras, write_annotations
from tests.helpers.tiny_run import FAST
from tests.helpers.tiny_store import build_tiny, tiny_request

INDEX = tiny_index(train=3, test=2)
CUP = tiny_index(["cup"], train=3, test=0)


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
    build_tiny(data, INDEX, store)
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
    return build_remote(tiny_request(data, index, store, **options), staging=staging)


def test_what_is_published_is_what_a_folder_holds(
    server: Any, data: Path, reference: Path, tmp_path: Path
) -> None:
    url, shards = "s3://bucket/some/prefix", 6
    first = build(
        data, url, tmp_path / "a", INDEX.take([i for i, s in enumerate(INDEX.samples) if s.category == "cup"])
    )
    assert first.shards_encoded == shards // 2
    # another machine, which has nothing of it, adds the rest
    second = build(data, url, tmp_path / "b")
    assert (second.shards_encoded, second.shards_kept) == (shards // 2, shards // 2)
    assert objects(server, "some/prefix") == tree(reference)
    assert not list((tmp_path / "a").iterdir())
    assert not list((tmp_path / "b").iterdir())
    third = build(data, url, tmp_path / "a")
    assert (third.shards_encoded, third.shards_kept) == (0, shards)
    assert third.groups == second.groups == ("bolt/train", "bolt/test", "cup/train", "cup/test")
    with pytest.raises(StoreMismatch, match="storage: 'float16', not 'uint8'"):
        build(data, url, tmp_path / "a", storage="uint8")
    assert objects(server, "some/prefix") == tree(reference)


def test_a_category_of_fewer_cameras_is_added_and_known_again(
    server: Any, data: Path, tmp_path: Path
) -> None:
    whole = two_cameras(INDEX, "cup")
    bolt, cup = (whole.take(whole.rows(lambda s: s.category == name)) for name in ("bolt", "cup"))  # noqa: B023
    url, staging = "s3://bucket/cameras", tmp_path / "staging"
    build(data, url, staging, bolt)
    assert build(data, url, staging, cup.with_views((1, 2))).shards_encoded > 0
    assert build(data, url, staging, cup.with_views((1, 2))).shards_encoded == 0
    build_tiny(data, whole, tmp_path / "whole")
    assert objects(server, "cameras") == tree(tmp_path / "whole")


@pytest.mark.parametrize("storage", ["float16", "uint8"])
def test_reading_is_the_same(
    server: Any, data: Path, kept: str, reference: Path, tmp_path: Path, storage: Any
) -> None:
    if storage == "uint8":
        reference = tmp_path / "uint8"
        build_tiny(data, INDEX, reference, shard_rows=4, storage="uint8")
        kept = upload(server, reference, "uint8")
    local, remote = FeatureStore.open(reference), FeatureStore.open(kept)
    assert remote.fingerprint == local.fingerprint
    assert remote.index == local.index
    assert remote.encoder_set().encoders[0].sha256 == local.encoder_set().encoders[0].sha256
    order = [9, 0, 5, 5, 1, 3, 7]
    for source in (remote, pickle.loads(pickle.dumps(remote)), place(remote, "memory", torch.device("cpu"))):
        for mine, theirs in zip(source.batches(order, 3), local.batches(order, 3), strict=True):
            assert_same(mine, theirs)
    one = FeatureStore.open(kept, ["cup"], "test")
    assert [sample.category for sample in one.index.samples] == ["cup"] * 2


class Stopped(BaseException):
    """After it nothing more is done, as after a kill."""


def test_a_publication_cut_short_goes_on(
    server: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "s3://bucket/cut"
    build_tiny(data, CUP, tmp_path / "whole")
    wanted = tree(tmp_path / "whole")
    put, unlink = cache.format.object_store._Bucket.put, ObjectPath.unlink
    order: list[str] = []
    left = 0

    def put_some(bucket: Any, key: str, content: bytes, **conditions: str) -> None:
        nonlocal left
        if key != "build.lock":
            if not left:
                raise Stopped
            left -= 1
            order.append(key)
        put(bucket, key, content, **conditions)

    def stop(path: ObjectPath, missing_ok: bool) -> None:
        raise Stopped

    monkeypatch.setattr("cache.remote.upload.SENDERS", 1)
    monkeypatch.setattr(cache.format.object_store._Bucket, "put", put_some)
    monkeypatch.setattr(ObjectPath, "unlink", stop)
    shard = "cup/train/layer1/c/1/0/0/0/0"
    last = ["cup/train/manifest.json", "manifest.json"]  # which lists the group
    while order[-2:] != last:
        left = 1 if len(order) < 6 else 7
        if len(order) == 5:  # of the right size, and not of these bytes
            server.put_object(Bucket="bucket", Key=f"cut/{shard}", Body=bytes(len(wanted[shard])))
        with pytest.raises(Stopped):
            build(data, url, tmp_path / "staging", CUP)
        with pytest.raises(StoreIncomplete) if order[-2:] != last else does_not_raise():
            FeatureStore.open(url, ["cup"])
    assert order[0] == "building.json"
    assert sorted(order[1:]) == sorted([*wanted, "manifest.json"])  # each once, the root's twice
    server.delete_object(Bucket="bucket", Key=f"cut/{shard}")
    server.delete_object(Bucket="bucket", Key="cut/cup/train/manifest.json")
    (staged,) = (tmp_path / "staging").glob(f"*/store/{shard}")
    staged.write_bytes(bytes(len(wanted[shard])))
    left = 99
    monkeypatch.setattr(ObjectPath, "unlink", lambda path, missing_ok: None)
    with pytest.raises(StoreDamaged, match="not the bytes that were built"):
        build(data, url, tmp_path / "staging", CUP)
    staged.write_bytes(wanted[shard])
    with pytest.raises(StoreError, match=r"publishing here.*or remove s3://bucket/cut/build.lock"):
        build(data, url, tmp_path / "elsewhere", CUP)
    monkeypatch.setattr(ObjectPath, "unlink", unlink)
    assert build(data, url, tmp_path / "staging", CUP).shards_encoded == 0
    assert objects(server, "cut") == wanted
    assert not list((tmp_path / "staging").iterdir())


KILLED_BUILD = """
import os, sys
import cache.format.object_store
from cli.__main__ import run

put, arrived = cache.format.object_store._Bucket.put, []


def count(bucket, key, *arguments, **conditions):
    put(bucket, key, *arguments, **conditions)
    arrived.append(key)
    if len(arrived) == 8:
        os._exit(9)  # what a kill does: nothing is given back


cache.format.object_store._Bucket.put = count
run(sys.argv[1:])
"""


@pytest.mark.long
def test_a_killed_build_is_continued_by_the_same_command(
    server: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_annotations(data, INDEX)
    command = ["cache", "build", "realiad", f"--root={data}", "--category=cup", "--split=train", "--json"]
    command += ["--image-size=32", "--teacher-weights=untrained"]
    assert run([*command, f"--store={tmp_path / 'whole'}"]) == 0
    command += ["--store=s3://bucket/killed", f"--staging={tmp_path}"]
    assert subprocess.run([sys.executable, "-c", KILLED_BUILD, *command], check=False).returncode == 9
    there = objects(server, "killed")
    assert "build.lock" in there
    assert "cup/train/manifest.json" not in there
    assert run(["cache", "info", "s3://bucket/killed"]) == 1
    assert run([*command, f"--staging={tmp_path / 'other'}"]) == 2
    assert run(command) == 0
    assert objects(server, "killed") == tree(tmp_path / "whole")
    capsys.readouterr()
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out)["shards_encoded"] == 0


def test_verify_finds_and_mends_damage(
    server: Any, data: Path, reference: Path, kept: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_annotations(data, INDEX)
    assert run(["cache", "verify", kept, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    local = verify_store(reference)
    assert (read["files"], read["bytes"]) == (local.files, local.bytes)
    url = upload(server, reference, "damaged")

    def damage(name: str, content: bytes | None) -> None:
        key = {"Bucket": "bucket", "Key": f"damaged/{name}"}
        server.delete_object(**key) if content is None else server.put_object(**key, Body=content)

    content = tree(reference)
    flipped = bytearray(content["cup/train/layer1/c/1/0/0/0/0"])
    flipped[100] ^= 1
    damage("cup/train/layer1/c/1/0/0/0/0", bytes(flipped))
    damage("cup/train/masks/c/0/0/0/0", None)
    assert run(["cache", "verify", url, "--json"]) == 1
    captured = capsys.readouterr()
    found = {problem["file"]: problem["rows"] for problem in json.loads(captured.out)["problems"]}
    assert found == {"cup/train/layer1/c/1/0/0/0/0": [2], "cup/train/masks/c/0/0/0/0": [0, 1]}
    assert "row 2 of cup/train" in captured.err
    assert "rows 0-1 of cup/train" in captured.err
    with pytest.raises(StoreDamaged, match="damaged/cup/train/masks/c/0/0/0/0: missing"):
        FeatureStore.open(url)

    damage("cup/train/masks/c/0/0/0/0", content["cup/train/masks/c/0/0/0/0"][:-1] + b"!")
    store = FeatureStore.open(url, ["cup"], "train")
    with pytest.raises(StoreDamaged, match=r"layer1/c/1.*row 2 "):
        store.read([2])
    with pytest.raises(StoreDamaged, match="masks/c/0"):
        store.read([0])
    server.delete_object(Bucket="bucket", Key="damaged/cup/train/layer2/c/0/0/0/0/0")
    with pytest.raises(StoreDamaged, match=r"layer2/c/0.*row 1 "):
        store.read([1])
    assert run(["cache", "verify", url, f"--root={data}", "--repair"]) == 0
    assert objects(server, "damaged") == content


def test_what_is_no_whole_store_is_refused(server: Any, reference: Path) -> None:
    with pytest.raises(StoreError, match="no bucket 'nowhere'"):
        FeatureStore.open("s3://nowhere/store")
    with pytest.raises(StoreError, match="no such store"):
        FeatureStore.open("s3://bucket/nothing")
    server.put_object(Bucket="bucket", Key="other/readme.txt", Body=b"")
    with pytest.raises(StoreError, match="not a store"):
        FeatureStore.open("s3://bucket/other")
    with pytest.raises(StoreError, match=r"not a store and not empty \(it holds readme.txt\)"):
        build(reference, "s3://bucket/other", reference.parent)
    url = upload(server, reference, "partial")
    server.put_object(Bucket="bucket", Key="partial/building.json", Body=seal({"groups": [["zip", "train"]]}))
    assert len(FeatureStore.open(url, ["cup"]).index) == 5
    with pytest.raises(StoreIncomplete, match="zip/train"):
        FeatureStore.open(url)


@pytest.mark.parametrize(
    "address",
    [
        "s3://",
        "s3://a",
        "s3://bucket//x",
        "s3://bucket/../x",
        "s3://key:hidden@bucket/x",
        "s3://bucket/x?hidden=1",
    ],
)
def test_an_address_that_cannot_be_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(StoreError, match="expected s3://BUCKET/PREFIX") as told:
        store_path(address)
    assert "hidden" not in str(told.value)


def test_addresses_and_paths_are_told_apart(kept: str, tmp_path: Path) -> None:
    assert str(store_path(f"{kept}/")) == kept
    assert store_path(tmp_path) == store_path(str(tmp_path)) == tmp_path
    assert store_path("C:/stores/x") == Path("C:/stores/x")
    with pytest.raises(StoreError, match="gs://: expected a folder or s3://"):
        FeatureStore.open("gs://bucket/x")
    with pytest.raises(StoreError, match="given as text"):
        FeatureStore.open(Path(kept))
    for value in (kept, "stores/x"):
        (config,) = resolve({}, [f"cache.store={value}"], source="test")
        assert str(config.cache.store) == value
        (again,) = resolve(yaml.safe_load(config.to_yaml()), source="test")
        assert again == config
    assert isinstance(config.cache.store, Path)


class Refusing(http.server.BaseHTTPRequestHandler):
    """An object store that refuses everybody and repeats what it was told."""

    def do_GET(self) -> None:
        body = b"<Error><Code>SignatureDoesNotMatch</Code><Message>a-secret</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def test_no_access_is_told_in_one_sentence_without_secrets(
    kept: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cache.format.object_store, "ATTEMPTS", 1)

    def message(code: int) -> str:
        assert run(["cache", "verify", kept]) == code
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "secret" not in said.replace("AWS_SECRET_ACCESS_KEY", "")
        return said

    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as refusing:
        thread = threading.Thread(target=refusing.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:a-secret@127.0.0.1:{refusing.server_port}")
        assert "refused access (SignatureDoesNotMatch)" in message(2)
        refusing.shutdown()
        thread.join()
    assert "cannot be reached" in message(3)  # nobody listens there any more
    monkeypatch.setenv("AWS_ENDPOINT_URL", "a-secret")
    assert "AWS_ENDPOINT_URL: expected http(s)://HOST" in message(2)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which keeps credentials once found
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert "no usable credentials (NoCredentialsError)" in message(2)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "no usable credentials (ProfileNotFound)" in message(2)
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert "pip install 'idif[s3]'" in message(2)


def test_a_transfer_that_breaks_off_is_repeated(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_path(kept)
    assert isinstance(store, ObjectPath)
    client, failures = store.bucket.client, 0

    class Breaking:
        def read(self) -> bytes:
            nonlocal failures
            failures += 1
            raise IncompleteReadError(actual_bytes=1, expected_bytes=2)

    get = client.get_object
    monkeypatch.setattr(
        client, "get_object", lambda **part: get(**part) if failures == 2 else {"Body": Breaking()}
    )
    assert (store / "zarr.json").read_bytes()
    assert failures == 2
    failures = -9
    with pytest.raises(CannotFinish, match="cannot be reached"):
        (store / "zarr.json").read_bytes()


def test_training_from_an_object_store_is_training_from_disk(
    server: Any, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = upload(server, world / "store.zarr", "world")
    places = [f"--set=cache.store={url}", f"--set=run.dir={tmp_path.as_posix()}"]
    assert run(["train", f"--config={world / 'c.yaml'}", *FAST, *places, "--set=cache.placement=disk"]) == 0
    for category in ("cup", "bolt"):
        weights = f"{category}/checkpoint/model.safetensors"
        assert (tmp_path / "tiny" / weights).read_bytes() == (world / "runs/tiny" / weights).read_bytes()
    assert run(["cache", "export", url, str(tmp_path / "s.h5")]) == 0
    assert run(["cache", "import", str(tmp_path / "s.h5"), str(tmp_path / "back")]) == 0
    assert tree(tmp_path / "back") == tree(world / "store.zarr")
    assert run(["cache", "import", str(tmp_path / "s.h5"), url]) == 2
    assert run(["cache", "plan", "realiad", f"--root={world / 'data'}", f"--store={url}"]) == 2
    assert "this machine" in capsys.readouterr().err
