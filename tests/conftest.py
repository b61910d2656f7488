"""Fixtures that more than one file uses."""

from pathlib import Path

import pytest

from tests.tiny_run import make_tiny_run


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, its store, a config, and a trained run; tests that change one of them copy it first."""
    home = tmp_path_factory.mktemp("world")
    make_tiny_run(home)
    return home
