import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
import torch
from edgefuse.machine import keep_heap
if sys.argv[1] == "keep":
    assert keep_heap()
torch.empty(2**24).fill_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.empty(2**24).fill_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_not_faulted_in_again():
    faults = {}
    for mode in ("keep", "return"):
        result = subprocess.run(
            [sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True
        )
        faults[mode] = int(result.stdout)
    # Not 0: glibc does not reuse every aligned block at once.
    assert faults["keep"] < 0.5 * faults["return"]
