import platform
import subprocess
import sys

import pytest

# Sixteen threads, each of which needs ten megabytes at one time, and never two of them at once.
CODE = """
import os, sys, threading
if sys.argv[1] == "share":
    from edgefuse.machine import share_arenas
    assert share_arenas()
import numpy as np

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

everybody, one, pins = threading.Barrier(16), threading.Lock(), []

def work():
    mine = [np.ones(64 * 1024, np.uint8)]  # binds the thread to its arena
    everybody.wait()
    with one:
        mine += [np.ones(64 * 1024, np.uint8) for _ in range(160)]
        pins.append(np.ones(64 * 1024, np.uint8))  # above all that: it cannot be given back
        del mine
    everybody.wait()

before = resident()
threads = [threading.Thread(target=work) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print((resident() - before) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_threads_use_the_same_memory_one_after_another() -> None:
    grown = {}
    for mode in ("share", "apart"):
        command = [sys.executable, "-c", CODE, mode]
        grown[mode] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown["share"] < 60, grown
    assert grown["share"] < 0.5 * grown["apart"], grown


GAPS = """
import os
import numpy as np
from edgefuse.machine import return_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

blocks = [np.ones(64 * 1024, np.uint8) for _ in range(320)]
above = np.ones(64 * 1024, np.uint8)
del blocks
before = resident()
return_memory()
print((before - resident()) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_memory_between_blocks_in_use_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", GAPS], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 15
