"""The benchmark on rendered parts, in its smallest form."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "rendered.py"


@pytest.mark.long
def test_it_goes_on_where_it_stopped_and_prints_one_table(tmp_path: Path) -> None:
    size = ["--categories=1", "--train=3", "--test=4", "--size=64", "--levels=easy", "--weights=untrained"]
    steps = ["--steps=1", "--head-steps=1", "--batch-size=2", "--holdout=0.34", "--smallest"]
    line = [sys.executable, str(SCRIPT), f"--work={tmp_path / 'work'}", f"--out={tmp_path / 'out.json'}"]
    first = subprocess.run([*line, *size, *steps, "--methods", "padim"], capture_output=True, check=False)
    assert first.returncode == 0, first.stderr.decode()
    again = subprocess.run(
        [*line, *size, *steps, "--methods", "padim", "dkd-ivc"], capture_output=True, check=False
    )
    assert again.returncode == 0, again.stderr.decode()
    found = json.loads(again.stdout)
    assert [row["method"] for row in found["rows"]] == ["padim", "dkd-ivc"]
    assert found["rows"][0] == json.loads(first.stdout)["rows"][0], "not repeated"
    assert found["table"][-1].startswith("| dkd-ivc | ")
    assert found["runs_left"] == 0
    other = subprocess.run([*line, *size, "--steps=2"], capture_output=True, check=False)
    assert other.returncode == 2
    assert b"holds results of other settings" in other.stderr
