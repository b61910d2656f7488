"""Fixtures that more than one file uses."""

from pathlib import Path

import pytest
import torch

import cache.files
from tests.tiny_data import make_tiny_realiad
from tests.tiny_run import make_tiny_run


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, its store, a config, and a trained run; tests that change one of them copy it first."""
    home = tmp_path_factory.mktemp("world")
    make_tiny_run(home)
    return home


@pytest.fixture(scope="module")
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images of the test module's own ``INDEX``."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("data")
    make_tiny_realiad(root, request.module.INDEX)
    return root


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.files.os, "fsync", lambda descriptor: None)
