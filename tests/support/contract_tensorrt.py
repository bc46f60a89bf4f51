"""Run in a subprocess of its own: builds and runs an engine against the bindings of one major version.

Prints what happened as JSON. With the name of a probe it does one wrong thing instead, to show that the
harness notices.
"""

import ctypes
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt_bindings as real
from cuda import bindings
from cuda.bindings import runtime as real_cuda

from tests.support.contract import Contract, check_overrides, executed_lines, member_names, uses

LAYER = {
    "LayerType": "kgen",
    "Inputs": [{"Format/Datatype": "Half"}],
    "Outputs": [{"Format/Datatype": "Half"}],
}
SHAPES = {"sources": (1, 2, -1, -1), "fused": (1, 1, -1, -1)}
given: dict[str, tuple] = {}
served = [(1, 2, 64, 64), (1, 2, 480, 640), (1, 2, 1088, 1920)]
"""The profile of the input, of the engine that was built last."""


def build(network, config):
    monitor = config.progress_monitor
    check_overrides(real.IProgressMonitor, type(monitor))
    monitor.phase_start("Building Engine", None, 2)
    assert monitor.step_complete("Building Engine", 0) is True
    monitor.phase_finish("Building Engine")
    return b"an engine"


def set_input_shape(name, shape):
    given[name] = tuple(shape)
    return shape[-1] <= served[-1][-1]


def set_shape(name, *shapes):
    if name == "sources":
        served[:] = shapes


TENSORRT: dict[str, Any] = {
    "Builder.build_serialized_network": build,
    "IBuilderConfig.add_optimization_profile": 0,
    "INetworkDefinition.num_inputs": 1,
    "ITensor.name": "sources",
    "ITensor.shape": SHAPES["sources"],
    "OnnxParser.num_errors": 0,
    "ITimingCache.serialize": b"timings",
    "Runtime.deserialize_cuda_engine": lambda data: contract.instance(real.ICudaEngine),
    "EngineInspector.get_engine_information": json.dumps({"Layers": [LAYER, LAYER]}),
    "ICudaEngine.num_io_tensors": 2,
    "ICudaEngine.get_tensor_name": lambda index: list(SHAPES)[index],
    "ICudaEngine.get_tensor_mode": lambda name: (
        real.TensorIOMode.INPUT if name == "sources" else real.TensorIOMode.OUTPUT
    ),
    "ICudaEngine.get_tensor_dtype": lambda name: real.float32,
    "ICudaEngine.get_tensor_shape": lambda name: SHAPES[name],
    "IOptimizationProfile.set_shape": set_shape,
    "ICudaEngine.get_tensor_profile_shape": lambda name, index: served,
    "IExecutionContext.set_input_shape": set_input_shape,
    "IExecutionContext.get_tensor_shape": lambda name: (1, SHAPES[name][1], *given["sources"][2:]),
}

GPU = {"name": b"Orin\0\0", "major": 8, "minor": 7, "multiProcessorCount": 14}
assert all(hasattr(real_cuda.cudaDeviceProp, name) for name in GPU)
memory: dict[int, ctypes.Array] = {}
OK = real_cuda.cudaError_t.cudaSuccess


def allocate(size, flags=0):
    block = ctypes.create_string_buffer(size)
    memory[ctypes.addressof(block)] = block
    return OK, ctypes.addressof(block)


def free(address):
    del memory[address]
    return (OK,)


def copy(dst, src, count, kind, stream):
    ctypes.memmove(dst, src, count)
    return (OK,)


CUDA = {
    "cudaGetDevice": (OK, 0),
    "cudaGetDeviceProperties": (OK, types.SimpleNamespace(**GPU)),
    "cudaRuntimeGetVersion": (OK, 12090),
    "cudaDriverGetVersion": (OK, 13000),
    "cudaStreamCreateWithFlags": (OK, real_cuda.cudaStream_t(7)),
    "cudaStreamSynchronize": (OK,),
    "cudaStreamDestroy": (OK,),
    "cudaHostAlloc": allocate,
    "cudaMalloc": allocate,
    "cudaFreeHost": free,
    "cudaFree": free,
    "cudaMemcpyAsync": copy,
    "cudaGetErrorString": (OK, b"out of memory"),
}

contract: Contract = Contract(real, TENSORRT, kept=("ILogger", "IProgressMonitor", "nptype"))
cuda_contract = Contract(real_cuda, CUDA, kept=("cudaStream_t", "cudaDeviceProp"))


def on_device(backend) -> list[tuple[int, ...]]:
    """Run on memory of the GPU, new and given, and what does not fit."""
    from edgefuse.errors import InputError
    from edgefuse.runtime.engines.base import DeviceArray

    shape, floats = (1, 2, 64, 96), np.dtype(np.float32)
    sources = DeviceArray(allocate(8 * 64 * 96)[1], shape, floats, "cuda")
    fresh = backend.run_on_device({"sources": sources})
    again = backend.run_on_device({"sources": np.zeros(shape, np.float32)}, fresh)
    for wrong in (sources, DeviceArray(0, (1, 1, 64, 96), floats, "cpu")):
        try:
            backend.run_on_device({"sources": sources}, wrong)
        except InputError:
            continue
        raise AssertionError("an array that does not fit was taken")
    free(sources.pointer)
    return [fresh.shape, again.shape]


def whole_path(onnx: Path, folder: Path) -> dict:
    """Build, inspect, load and run; then all that may go wrong on the way."""
    engines = Path(__file__).parents[2] / "edgefuse" / "runtime" / "engines"
    files = [engines / name for name in ("tensorrt.py", "tensorrt_build.py")]
    phases: list = []
    with executed_lines(files) as lines:
        from edgefuse.runtime.engines import tensorrt as ours
        from edgefuse.runtime.engines import tensorrt_build as build

        sidecar = build.build_engine(onnx, folder / "nano.engine", progress=lambda *step: phases.append(step))
        backend = ours.TensorRtEngine(folder / "nano.engine", rebuild=False)
        fused = backend.run({"sources": np.zeros((1, 2, 64, 96), np.float32)})
        again = backend.run({"sources": np.zeros((1, 2, 480, 640), np.float32)})
        on_gpu = on_device(backend)
        wide = ours.TensorRtEngine(onnx)
        larger = wide.run({"sources": np.zeros((1, 2, 2160, 3840), np.float32)})
        wide.close()
        served[:] = [(1, 2, 64, 64), (1, 2, 480, 640), (1, 2, 1088, 1920)]
        complaints = contract.complaints() + cuda_contract.complaints()
        log = ours.TensorRtLog(sys.modules["tensorrt"]).logger
        check_overrides(real.ILogger, type(log))
        for severity in real.ILogger.Severity.__members__.values():
            log.log(severity, "something")
        errors = go_wrong(onnx, folder, ours, build, backend)
        backend.close()
    names = member_names(real) | member_names(real_cuda)
    used = set().union(*(uses(path, names) for path in files))
    return {
        "layers": sidecar.layers,
        "device": backend.device,
        "shapes": [fused.shape, again.shape, *on_gpu, larger.shape],
        "large": sorted({"torch", "onnx", "onnxruntime"} & sys.modules.keys()),
        "phases": phases,
        "errors": errors,
        "left": len(memory),
        "called": sorted(contract.called | cuda_contract.called),
        "complaints": complaints,
        "used": len(used),
        "untried": sorted(use for use in used if use[:2] not in lines),
    }


def go_wrong(onnx: Path, folder: Path, ours: Any, build: Any, backend: Any) -> dict[str, str]:
    """What is said when each step answers as it does in trouble."""
    from edgefuse.errors import EdgefuseError

    def run(width=128, height=64):
        backend.run({"sources": np.zeros((1, 2, height, width), np.float32)})

    def other_inputs():
        backend.run({"ir": np.zeros((1, 64, 64, 1), np.uint8), "vis": np.zeros((1, 64, 64, 3), np.uint8)})

    def make():
        build.build_engine(onnx, folder / "other.engine")

    def load():
        ours.TensorRtEngine(folder / "nano.engine", rebuild=False)

    def load_again():
        ours.TensorRtEngine(folder / "nano.engine")

    bad_parse = {
        "OnnxParser.parse": False,
        "OnnxParser.num_errors": 1,
        "OnnxParser.get_error": lambda index: contract.instance(real.ParserError),
        "ParserError.desc": "no such operator",
    }
    troubles: dict[str, tuple[Any, dict[str, Any]]] = {
        "inputs": (other_inputs, {}),
        "shape": (lambda: run(4096), {}),
        "static": (lambda: run(4096), {"ICudaEngine.get_tensor_shape": lambda name: (1, 2, 64, 64)}),
        "address": (lambda: run(160), {"IExecutionContext.set_tensor_address": False}),
        "execute": (run, {"IExecutionContext.execute_async_v3": False}),
        "engine": (load, {"Runtime.deserialize_cuda_engine": lambda data: None}),
        "refused": (load_again, {"Runtime.deserialize_cuda_engine": lambda data: None}),
        "context": (load, {"ICudaEngine.create_execution_context": lambda: None}),
        "parse": (make, bad_parse),
        "silent": (make, {**bad_parse, "OnnxParser.num_errors": 0}),
        "profile": (make, {"IBuilderConfig.add_optimization_profile": -1}),
        "build": (make, {"Builder.build_serialized_network": lambda network, config: None}),
        "inspect": (make, {"EngineInspector.get_engine_information": "{}"}),
        "timings": (make, {"IBuilderConfig.set_timing_cache": False}),
        "damaged timings": (make, {"IBuilderConfig.create_timing_cache": None}),
    }
    said = {}
    for name, (step, answers) in troubles.items():
        before = dict(TENSORRT)
        TENSORRT.update(answers)
        try:
            step()
            said[name] = ""
        except EdgefuseError as error:
            said[name] = str(error)
        TENSORRT.clear()
        TENSORRT.update(before)
    CUDA["cudaMalloc"] = (real_cuda.cudaError_t.cudaErrorMemoryAllocation, None)
    try:
        run(1920, 1088)
    except EdgefuseError as error:
        said["memory"] = str(error)
    return said


def read_only(trt):
    trt.Builder(trt.Logger()).create_network(0).num_inputs = 3
    complaints = contract.complaints()
    if complaints:
        raise AttributeError(complaints[0])


def wrong_type(trt):
    trt.Builder(trt.Logger()).create_builder_config().builder_optimization_level = "3"
    if complaints := contract.complaints():
        raise AttributeError(complaints[-1])


PROBES = {
    "a flag": lambda trt: trt.BuilderFlag.FP16,
    "a creation flag": lambda trt: trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH,
    "an attribute": lambda trt: trt.Builder(trt.Logger()).platform_has_fast_fp16,
    "a class": lambda trt: trt.IInt8EntropyCalibrator2,
    "a setting": lambda trt: setattr(
        trt.Builder(trt.Logger()).create_builder_config(), "int8_calibrator", None
    ),
    "a method": lambda trt: trt.Builder(trt.Logger()).build_cuda_engine(None),
    "a count": lambda trt: trt.Builder(trt.Logger()).create_network(1, 2),
    "a name": lambda trt: trt.Builder(trt.Logger()).create_network(flag=1),
    "a type": lambda trt: trt.Builder(trt.Logger()).create_builder_config().clear_flag(3),
    "a missing one": lambda trt: trt.OnnxParser(trt.Builder(trt.Logger()).create_network()),
    "a read-only property": read_only,
    "a property's type": wrong_type,
}
"""Wrong uses; the first five are right in TensorRT 10 and gone in 11."""


def main() -> None:
    sys.modules["tensorrt"] = trt = contract.module()
    bindings.runtime = cuda_contract.module()
    answer: dict = {"version": real.__version__}
    if sys.argv[1] == "probes":
        for name, probe in PROBES.items():
            try:
                probe(trt)
                answer[name] = "accepted"
            except (AttributeError, TypeError) as error:
                answer[name] = str(error)
    else:
        answer |= whole_path(Path(sys.argv[1]), Path(os.environ["EDGEFUSE_CACHE"]))
    print(json.dumps(answer))


main()
