"""Fixtures of the tests of commands."""

from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_data import make_tiny_realiad, write_annotations


@pytest.fixture(scope="module")
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with the images and annotations of the test module's own ``INDEX``."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("data")
    make_tiny_realiad(root, request.module.INDEX)
    write_annotations(root, request.module.INDEX)
    return root
