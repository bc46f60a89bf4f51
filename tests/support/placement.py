"""Opens files with the CUDA engine and prints, as JSON, on which processor their nodes are, or the error."""

import json
import sys
from collections import Counter
from pathlib import Path

from edgefuse.errors import BackendError
from edgefuse.runtime.engines.onnxruntime import CudaEngine


def placed(file: str) -> dict[str, dict[str, int]] | str:
    """Return how many nodes of each type are on each provider, or the engine's error."""
    try:
        engine = CudaEngine(Path(file))
    except BackendError as error:
        return str(error)
    parts = engine._session.get_provider_graph_assignment_info()
    found = {name: Counter[str]() for name in ("CUDAExecutionProvider", "CPUExecutionProvider")}
    for part in parts:
        found[part.ep_name].update(node.op_type for node in part.get_nodes())
    return {name: dict(counts) for name, counts in found.items()}


if __name__ == "__main__":
    print(json.dumps({file: placed(file) for file in sys.argv[1:]}))
