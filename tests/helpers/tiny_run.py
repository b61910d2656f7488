"""A tiny run, trained once by the command line as a user would, for every test that needs one."""

from pathlib import Path

import torch

from cli.__main__ import run
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations

SIZE = "48"
FAST = [
    "--set=method.voxel={depth: 2, height: 2, width: 2, channels: 16}",
    "--set=method.attention_heads=2",
    "--set=method.blocks=1",
    "--set=train.epochs=1",
    "--set=train.holdout=0.5",
    "--set=corruption.textures=procedural",
]


def make_tiny_run(home: Path) -> None:
    """Below ``home``: a dataset, its store, a config ``c.yaml``, and the run ``runs/tiny`` of it."""
    torch.set_num_threads(1)
    index = tiny_index(categories=("cup", "bolt"), train=6, test=4)
    make_tiny_realiad(home / "data", index)
    write_annotations(home / "data", index)
    build = ["cache", "build", "realiad", f"--root={home / 'data'}", f"--store={home / 'store.zarr'}"]
    assert run([*build, f"--image-size={SIZE}", "--teacher-weights=untrained"]) == 0
    (home / "c.yaml").write_text(
        f"cache: {{store: '{(home / 'store.zarr').as_posix()}'}}\n"
        f"run: {{name: tiny, dir: '{(home / 'runs').as_posix()}'}}\n",
        encoding="utf-8",
    )
    assert run(["train", f"--config={home / 'c.yaml'}", *FAST]) == 0
