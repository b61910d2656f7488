"""What a step frees stays with the process while it trains, and only then."""

import mmap
import subprocess
import sys

import pytest

from idif.kernels.malloc import keep_freed_memory

PROGRAM = """
import ctypes
import resource
import torch
from idif.kernels.malloc import keep_freed_memory

MB = 2**20
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: small pages, also where large ones are usual

def resident():
    with open('/proc/self/status', encoding='utf-8') as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith('VmRSS'))

def step(size=48, count=3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.empty(size * MB, dtype=torch.uint8).fill_(1) for _ in range(count)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

outside = min(step() for _ in range(4))
with keep_freed_memory() as kept:
    inside = min(step() for _ in range(8))
    held = resident()
left = resident()
# larger than all that was kept, which may serve smaller blocks for good
after = min(step(size=200, count=1) for _ in range(4))
print(int(kept), outside, inside, after, held - left)
"""


def test_a_step_takes_no_new_pages_while_it_is_kept_and_gives_them_back() -> None:
    with keep_freed_memory() as here:
        pass
    if not here:
        pytest.skip("this C library is not GNU's")
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    kept, outside, inside, after, returned = map(int, found.stdout.split())
    blocks = 3 * 48 * 2**20 // mmap.PAGESIZE
    assert kept == 1
    assert outside > 0.9 * blocks
    assert inside < 0.1 * blocks
    assert after > 0.9 * 200 * 2**20 // mmap.PAGESIZE
    assert returned > 100  # MB


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_systems_are_left_as_they_are(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    with keep_freed_memory() as kept:
        assert not kept
