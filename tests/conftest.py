"""Fixtures that more than one file uses."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# A worker of the tests has one core: a second thread waits for those of the others, up to 25 times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from idif.errors import CannotFinish
from tests.helpers.tiny_data import make_tiny_realiad
from tests.helpers.tiny_run import make_tiny_run

if TYPE_CHECKING:
    from idif.datasets.synthetic.sample_renderer import SampleRenderer


LONG_FILES = (
    "tests/cli/test_configs.py",
    "tests/test_golden.py",
    "tests/idif/app/test_app.py",
    "tests/cli/workflow/test_ranks.py",
    "tests/idif/inference/test_export.py",
    "tests/cli/commands/test_memory.py",
    "tests/cache/building/test_kill.py",
    "tests/cli/test_commands.py",
)
"""Files of few tests that take long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: a worker that gets one last leaves the others idle. Needs --no-loadscope-reorder."""
    places = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


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


@pytest.fixture(scope="module")
def renderer() -> "Iterator[SampleRenderer]":
    """Where parts are rendered; the test is skipped where there is no off-screen OpenGL."""
    from idif.datasets.synthetic.sample_renderer import SampleRenderer

    try:
        with SampleRenderer(96) as renderer:
            yield renderer
    except CannotFinish as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """No test cuts the power: what is written is deleted again before a disk would have to take it.

    Tests of the order of writes record calls of ``os.fsync`` themselves.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With ``IDIF_NO_SKIP`` a skipped test is a failure, unless it is for want of the real data."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("IDIF_NO_SKIP") or reporter is None:
        return
    reasons = {str(report.longrepr) for report in reporter.stats.get("skipped", ())}
    missing = sorted(r for r in reasons if "IDIF_DATA" not in r and "has OSMesa" not in r)
    if missing:
        reporter.write_line(f"IDIF_NO_SKIP: a test was skipped: {'; '.join(missing)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
