"""Fuses arrays of a GPU by ONNX Runtime's CUDA provider and prints what the answer is."""

import ctypes
import json
import sys
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np

from bench.gpu_check import open_on
from edgefuse import Fuser


def on_gpu(array):
    """What says that it is on a GPU: over stubs, whose memory is the host's."""
    data = (array.ctypes.data, False)
    facts = {"shape": array.shape, "typestr": array.dtype.str, "data": data, "version": 3}
    return Namespace(__cuda_array_interface__=facts, array=array)


if __name__ == "__main__":
    rng = np.random.default_rng(3)
    ir, vis = rng.integers(0, 256, (20, 24), np.uint8), rng.integers(0, 256, (20, 24, 3), np.uint8)
    fuser, out = Fuser(sys.argv[1], engine="cuda"), np.zeros_like(vis)
    fuser(on_gpu(ir), on_gpu(vis), out=on_gpu(out))
    answer: Any = fuser(on_gpu(ir), on_gpu(vis))
    facts = answer.__cuda_array_interface__
    values = (ctypes.c_uint8 * answer.nbytes).from_address(facts["data"][0])
    gpu: Any = Namespace(stream=7)
    timed, stream = open_on("cuda", Path(sys.argv[1]), gpu)
    found = {
        "timed": [
            stream,
            timed.run({"ir": ir[None, :, :, None], "vis": vis[None]}).tobytes() == vis.tobytes(),
        ],
        "device": fuser.engine.device,
        "shape": facts["shape"],
        "right": bytes(values) == vis.tobytes(),
        "out": out.tobytes() == vis.tobytes(),
    }
    print(json.dumps(found))
