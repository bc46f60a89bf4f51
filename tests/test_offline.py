"""Nothing is reported to anybody: the engines' telemetry is off, unless the user wants it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgefuse

RUN = """
import socket, sys, time
import numpy as np

def refuse(*address):
    print("REACHED", address[:2])
    raise OSError("no network in this test")

socket.getaddrinfo = refuse
from edgefuse import Fuser
fuser = Fuser(engine=sys.argv[1])
fuser(np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3), np.uint8))
time.sleep(1)
print("done")
"""
ENGINES = {"cpu": "onnxruntime", "openvino": "openvino"}


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_stay_offline(engine, tmp_path):
    pytest.importorskip(ENGINES[engine])
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", RUN, engine],
        capture_output=True,
        text=True,
        env={**{k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}, **home},
    )
    assert done.stdout == "done\n", done.stderr
    # ONNX Runtime keeps a device id, OpenVINO a client id, where they report.
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_every_import_of_an_engine_says_so_before():
    engine = re.compile(r"^ +import (onnxruntime|openvino)\b", re.MULTILINE)
    for path in Path(edgefuse.__file__).parent.rglob("*.py"):
        text = path.read_text()
        for found in engine.finditer(text):
            assert text[: found.start()].rstrip().endswith("stay_offline()"), f"{path}: {found[0]}"
