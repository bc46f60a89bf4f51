"""A TensorRT and a CUDA in memory, whose steps can be made to fail; `contract.py` asks the real ones."""

# ruff: noqa: N802, N815 (the names are NVIDIA's)

import ctypes
import json
from enum import IntEnum
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import Any

import numpy as np

LAYER = {"LayerType": "gemm", "Inputs": [], "Outputs": [{"Format/Datatype": "Half"}]}


class Severity(IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


class Mode(IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class Subclassed:
    """Stands for the classes that C++ calls back."""


Subclassed.Severity = Severity  # type: ignore[attr-defined]


def fake_tensorrt(version: str = "10.3.0", cuda: Any = None, **broken: Any) -> Any:
    """Return a module; `broken` gives what a step answers instead of success.

    `cuda` is the fake whose streams it runs on. Known steps: runtime, builder, parse, profile, timings,
    build, deserialize, context, shape, address, execute, layers. `seen` on the module holds what happened.
    """
    seen: dict[str, Any] = {"timing_caches": []}
    shapes = {"sources": (1, 2, -1, -1), "fused": (1, 1, -1, -1)}
    now: dict[str, Any] = {}

    def start(step):
        def make(logger):
            if broken.get(step):
                logger.log(Severity.ERROR, "no device\nwas found")
                raise TypeError("pybind11::init(): factory function returned nullptr")
            seen["logger"] = logger
            return objects[step]

        return make

    def set_shape(name, shape):
        now["shape"] = tuple(shape)
        answer = broken.get("shape", True)
        return answer.pop(0) if isinstance(answer, list) else answer

    def set_address(name, address):
        now[name] = address
        return broken.get("address", True)

    def shape_of(name):
        return (*shapes[name][:2], *now["shape"][2:])

    def execute(stream):
        """Queue the mean of both channels, on memory of the GPU."""
        size = int(np.prod(now["shape"][2:]))

        def mean():
            x = np.ctypeslib.as_array((ctypes.c_float * (2 * size)).from_address(now["sources"]))
            y = np.ctypeslib.as_array((ctypes.c_float * size).from_address(now["fused"]))
            y[:] = x.reshape(2, size).mean(0)

        for name in shapes:
            assert cuda.owner(now[name]) == "device", f"{name} lies on the host"
        cuda.queues[stream].append(mean)
        return broken.get("execute", True)

    context = SimpleNamespace(
        set_input_shape=set_shape,
        set_tensor_address=set_address,
        get_tensor_shape=shape_of,
        execute_async_v3=execute,
    )
    information = json.dumps({"Layers": broken.get("layers", [LAYER])})
    engine = SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=lambda k: list(shapes)[k],
        get_tensor_mode=lambda name: Mode.INPUT if name == "sources" else Mode.OUTPUT,
        get_tensor_dtype=lambda name: "float32",
        get_tensor_shape=lambda name: broken.get("static", shapes[name]),
        get_tensor_profile_shape=lambda name, k: [(1, 2, 64, 64), (1, 2, 480, 640), (1, 2, 1088, 1920)],
        create_execution_context=lambda: broken.get("context", context),
        create_engine_inspector=lambda: SimpleNamespace(get_engine_information=lambda form: information),
    )

    class Config:
        """Takes whatever is set on it."""

        def create_timing_cache(self, data):
            seen["timing_caches"].append(data)
            return None if data == b"damaged" else SimpleNamespace(data=data)

        def set_timing_cache(self, cache, ignore_mismatch):
            if not isinstance(cache, SimpleNamespace):
                raise TypeError("set_timing_cache(): incompatible function arguments")
            return not (broken.get("timings") and cache.data)

        def get_timing_cache(self):
            return SimpleNamespace(serialize=lambda: b"timings")

        def set_memory_pool_limit(self, pool, size):
            seen["workspace"] = size

        def clear_flag(self, flag):
            seen["cleared"] = flag

        def add_optimization_profile(self, profile):
            return broken.get("profile", 0)

    def build(network, config):
        seen["config"] = config
        monitor = config.progress_monitor
        monitor.phase_start("Timing", None, 2)
        seen["went_on"] = monitor.step_complete("Timing", 0)
        monitor.phase_finish("Timing")
        return broken.get("build", b"engine")

    def deserialize(data):
        answer = broken.get("deserialize", engine)
        return answer.pop(0) if isinstance(answer, list) else answer

    objects = {
        "runtime": SimpleNamespace(deserialize_cuda_engine=deserialize),
        "builder": SimpleNamespace(
            create_network=lambda flags: SimpleNamespace(
                flags=seen.setdefault("flags", flags),
                num_inputs=1,
                get_input=lambda k: SimpleNamespace(name="sources", shape=shapes["sources"]),
            ),
            create_builder_config=Config,
            create_optimization_profile=lambda: SimpleNamespace(
                set_shape=lambda *given: seen.update(profile=given)
            ),
            build_serialized_network=build,
        ),
    }
    parser = SimpleNamespace(
        parse=lambda data: broken.get("parse", True),
        num_errors=1,
        get_error=lambda k: SimpleNamespace(desc=lambda: "unknown\noperator"),
    )
    return SimpleNamespace(
        __version__=version,
        __spec__=ModuleSpec("tensorrt", None),
        seen=seen,
        ILogger=Subclassed,
        IProgressMonitor=Subclassed,
        Builder=start("builder"),
        Runtime=start("runtime"),
        OnnxParser=lambda network, logger: parser,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        BuilderFlag=SimpleNamespace(TF32="TF32"),
        MemoryPoolType=SimpleNamespace(WORKSPACE=0),
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
        LayerInformationFormat=SimpleNamespace(JSON=1),
        TensorIOMode=Mode,
        nptype=np.dtype,
    )


ENDS = {1: ("device", "host"), 2: ("host", "device")}
"""Owner of where a copy goes to and where it comes from, by its direction."""


class FakeCuda:
    """CUDA whose device memory is the host's, but known apart; a stream runs when it is waited for.

    `fails`: a function's name, and at which call it fails.
    """

    cudaError_t = SimpleNamespace(cudaSuccess=0)
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaHostAllocDefault, cudaStreamNonBlocking = 0, 1

    def __init__(self, fails: str = "", at: int = 1) -> None:
        self.fails, self.left = fails, at
        self.memory: dict[int, tuple[str, Any]] = {}
        self.queues: dict[int, list[Any]] = {0: []}  # the default stream
        self.allocations = 0

    def __getattribute__(self, name):
        found = object.__getattribute__(self, name)
        if name == object.__getattribute__(self, "fails"):
            self.left -= 1
            if self.left == 0:
                return lambda *given: (100, None)
        return found

    @property
    def streams(self):
        return len(self.queues) - 1

    def owner(self, address):
        return self.memory[address][0]

    def cudaGetErrorString(self, error):
        return 0, {100: b"no CUDA-capable device is detected", 1: b"invalid argument"}[error]

    def cudaGetDevice(self):
        return 0, 0

    def cudaGetDeviceProperties(self, device):
        return 0, SimpleNamespace(name=b"Orin\0\0", major=8, minor=7, multiProcessorCount=14)

    def cudaRuntimeGetVersion(self):
        return 0, 12060

    def cudaDriverGetVersion(self):
        return 0, 13000

    def cudaStreamCreateWithFlags(self, flags):
        stream = max(self.queues) + 7
        self.queues[stream] = []
        return 0, stream

    def cudaStreamDestroy(self, stream):
        del self.queues[stream]
        return (0,)

    def cudaStreamSynchronize(self, stream):
        while self.queues[stream]:
            self.queues[stream].pop(0)()
        return (0,)

    def allocate(self, size, owner):
        block = ctypes.create_string_buffer(b"\x7f" * size, size)  # no zeros, which would look like an answer
        self.memory[ctypes.addressof(block)] = owner, block
        self.allocations += 1
        return 0, ctypes.addressof(block)

    def cudaMalloc(self, size):
        return self.allocate(size, "device")

    def cudaHostAlloc(self, size, flags):
        return self.allocate(size, "host")

    def cudaFree(self, address):
        assert self.memory.pop(address)[0] == "device"
        return (0,)

    def cudaFreeHost(self, address):
        assert self.memory.pop(address)[0] == "host"
        return (0,)

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        ends = [self.memory[address] for address in (to, source)]
        if tuple(owner for owner, _ in ends) != ENDS[kind] or any(size > len(b) for _, b in ends):
            return (1,)
        self.queues[stream].append(lambda: ctypes.memmove(to, source, size))
        return (0,)
