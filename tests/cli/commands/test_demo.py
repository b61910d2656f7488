"""`idif demo` goes on where an earlier one was stopped."""

from pathlib import Path

import pytest

from cache import FeatureStore
from cli.commands.demo import _teacher
from idif.encoders.frozen import hash_weights
from idif.errors import StoreDamaged, StoreIncomplete
from tests.helpers.tiny_data import tiny_index, untrained
from tests.helpers.tiny_store import build_tiny

INDEX = tiny_index()


def test_the_store_of_an_interrupted_demo_says_its_teacher(data: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, what: str = "") -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_tiny(data, INDEX, tmp_path / "s", progress=interrupt)
    with pytest.raises(StoreIncomplete):
        FeatureStore.open(tmp_path / "s")
    teacher = _teacher(tmp_path / "s")
    assert hash_weights(teacher.module.state_dict()) == hash_weights(untrained().module.state_dict())
    assert build_tiny(data, INDEX, tmp_path / "s", teacher).groups
    (weights,) = (tmp_path / "s").glob("*.safetensors")
    weights.write_bytes(b"")
    with pytest.raises(StoreDamaged, match=weights.name):
        _teacher(tmp_path / "s")
