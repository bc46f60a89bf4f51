"""ONNX Runtime's providers: with the real CPU build, and with one that behaves like the GPU build.

What the GPU build answers on a machine without CUDA was taken down from onnxruntime-gpu 1.31.
"""

import ctypes
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from edgefuse.errors import BackendError, InputError, ModelError
from edgefuse.runtime import providers
from edgefuse.runtime.backends import OnnxRuntimeBackend, load_backend
from edgefuse.runtime.onnx_metadata import read_metadata
from edgefuse.runtime.profiles import SizeRange
from edgefuse.runtime.providers import PROVIDERS, open_session, provider_in_use, tensorrt_options
from edgefuse.runtime.sidecar import BuildOptions
from edgefuse.spec import ModelSpec
from edgefuse.weights import model_file

NANO = model_file("nano")
CPU, CUDA, TENSORRT = (PROVIDERS[name].name for name in ("cpu", "cuda", "tensorrt"))
NO_CPU = (
    "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default CPU "
    "EP, but fallback to CPU EP has been explicitly disabled by the user."
)


class Options:
    """Session options that remember."""

    def __init__(self):
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, key, value):
        self.entries[key] = value


@pytest.fixture
def gpu_build(monkeypatch, tmp_path):
    """Puts a GPU build of ONNX Runtime in the place of the real one.

    `running`: the providers of a session, or what creating one raises; `missing`: what the loader says.
    """
    monkeypatch.setenv("EDGEFUSE_CACHE", str(tmp_path / "cache"))

    def put(running, missing=None):
        seen: dict = {"severity": []}

        def session(path, options, providers, enable_fallback):
            seen.update(providers=providers, entries=options.entries, enable_fallback=enable_fallback)
            if isinstance(running, Exception):
                raise running
            metadata = SimpleNamespace(custom_metadata_map=read_metadata(NANO))
            return SimpleNamespace(
                get_providers=lambda: running,
                get_modelmeta=lambda: metadata,
                get_inputs=lambda: [SimpleNamespace(name="sources")],
            )

        def preload():
            print("Failed to load libcublasLt.so.13: cannot open shared object file")
            seen["preloaded"] = True

        def load(path):
            if missing:
                raise OSError(missing)

        fake = SimpleNamespace(
            __version__="1.31.1",
            __file__=str(tmp_path / "onnxruntime" / "__init__.py"),
            get_available_providers=lambda: [TENSORRT, CUDA, CPU],
            preload_dlls=preload,
            InferenceSession=session,
            SessionOptions=Options,
            set_default_logger_severity=seen["severity"].append,
        )
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)
        monkeypatch.setattr(ctypes, "CDLL", load)
        return seen

    return put


def test_cpu_runs_and_says_so():
    session = open_session(NANO, "cpu", onnxruntime.SessionOptions())
    assert provider_in_use(session) == "cpu"
    fused = session.run(None, {"sources": np.zeros((1, 2, 32, 32), np.float32)})[0]
    assert fused.shape == (1, 1, 32, 32)


def test_unknown_and_not_built_providers_are_one_sentence():
    with pytest.raises(BackendError, match=r"unknown provider 'cdua'.*known are cpu, cuda, tensorrt"):
        open_session(NANO, "cdua", onnxruntime.SessionOptions())
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this is the GPU build of ONNX Runtime")
    for name in ("cuda", "tensorrt"):
        with pytest.raises(BackendError, match=rf"without the provider {name}: .*edgefuse\[gpu\]"):
            open_session(NANO, name, onnxruntime.SessionOptions())


def test_a_damaged_file_is_one_sentence(tmp_path):
    (tmp_path / "cut.onnx").write_bytes(NANO.read_bytes()[:-9])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with pytest.raises(ModelError, match=r"cut\.onnx is not a model that ONNX Runtime can load"):
        open_session(tmp_path / "cut.onnx", "cpu", options)


def test_a_gpu_that_was_asked_for_runs_alone(gpu_build, capsys):
    seen = gpu_build([CUDA, CPU])
    session = open_session(NANO, "cuda", Options())
    assert provider_in_use(session) == "cuda"
    assert seen["providers"] == [(CUDA, {"use_tf32": "0"})]
    assert seen["entries"] == {"session.disable_cpu_ep_fallback": "1"}
    assert seen["enable_fallback"] == 0
    assert seen["preloaded"]
    assert seen["severity"] == [4, 2]
    assert capsys.readouterr().out == "", "what preloading prints is noise"


def test_tensorrt_gets_its_options_and_cuda_for_the_rest(gpu_build):
    seen = gpu_build([TENSORRT, CUDA, CPU])
    assert provider_in_use(open_session(NANO, "tensorrt", Options())) == "tensorrt, then cuda"
    (name, options), rest = seen["providers"]
    assert (name, rest) == (TENSORRT, (CUDA, {"use_tf32": "0"}))
    assert options == tensorrt_options(NANO)


@pytest.mark.parametrize(
    ("provider", "missing", "sentence"),
    [
        (
            "cuda",
            "libcublasLt.so.13: cannot open shared object file",
            r"libcublasLt\.so\.13 .*\[cuda,cudnn\]",
        ),
        ("cuda", "libcudnn.so.9", r"libcudnn\.so\.9 is missing.*\[cudnn\]"),
        (
            "cuda",
            "libcuda.so.1: cannot open shared object file",
            r"libcuda\.so\.1 is missing.*NVIDIA's driver",
        ),
        ("tensorrt", "libnvinfer.so.10", r"libnvinfer\.so\.10 is missing.*'tensorrt==10\.\*'"),
        ("cuda", "libz.so.1", r"libz\.so\.1 is missing: install the package"),
        ("cuda", None, r"has no kernel|have no kernel"),
    ],
)
def test_what_is_missing_is_named_with_its_mend(gpu_build, provider, missing, sentence):
    for running in ([CPU], RuntimeError(NO_CPU)):
        if missing is None and running == [CPU]:
            continue
        gpu_build(running, missing and f"{missing}: cannot open shared object file")
        with pytest.raises(BackendError, match=rf"provider {provider} cannot run .*nano\.onnx: .*{sentence}"):
            open_session(NANO, provider, Options())


def test_a_gpu_that_fails_otherwise_keeps_its_own_words(gpu_build):
    gpu_build(RuntimeError("CUDA failure 2:\nout of memory"))
    with pytest.raises(BackendError, match=r"CUDA failure 2: out of memory: see whether nvidia-smi"):
        open_session(NANO, "cuda", Options())


def test_tensorrts_cache_is_named_by_file_versions_and_options(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEFUSE_CACHE", str(tmp_path))
    first = tensorrt_options(NANO)
    assert first["trt_engine_cache_path"] == first["trt_timing_cache_path"]
    assert first["trt_engine_cache_path"].startswith(str(tmp_path / "onnxruntime"))
    assert first["trt_profile_max_shapes"] == "sources:1x2x1088x1920"
    assert first["trt_fp16_enable"] == first["trt_int8_enable"] == "0"
    other = tensorrt_options(NANO, BuildOptions(SizeRange(max=(1280, 1024)), workspace_mb=64))
    assert other["trt_engine_cache_path"] != first["trt_engine_cache_path"]
    assert other["trt_max_workspace_size"] == str(64 << 20)
    assert other["trt_profile_max_shapes"] == "sources:1x2x1024x1280"
    monkeypatch.setattr(providers, "_version", lambda package: "11.4")
    assert "tensorrt11.4" in tensorrt_options(NANO)["trt_engine_cache_path"]
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEFUSE_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot write the cache"):
        tensorrt_options(NANO)


@pytest.mark.parametrize(
    ("precision", "half", "int8"), [("fp32", "0", "0"), ("fp16", "1", "0"), ("int8", "0", "1")]
)
def test_tensorrt_may_use_the_files_precision_alone(monkeypatch, tmp_path, precision, half, int8):
    monkeypatch.setenv("EDGEFUSE_CACHE", str(tmp_path))
    spec = replace(ModelSpec.from_metadata(read_metadata(NANO)), precision=precision)
    monkeypatch.setattr(providers, "read_metadata", lambda path: spec.to_metadata())
    options = tensorrt_options(NANO)
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == (half, int8)


def test_a_backend_says_where_it_runs_and_falls_back_aloud_alone(gpu_build, caplog):
    assert load_backend(NANO, provider="cpu").device == "ONNX Runtime on cpu"
    seen = gpu_build([CUDA, CPU])
    assert OnnxRuntimeBackend(NANO, threads=2).device == "ONNX Runtime on cuda"
    assert seen["entries"]["session.disable_cpu_ep_fallback"] == "1"
    assert not caplog.records
    seen = gpu_build([CPU], "libcudart.so.13: cannot open shared object file")
    assert OnnxRuntimeBackend(NANO).device == "ONNX Runtime on cpu"
    assert "session.disable_cpu_ep_fallback" not in seen["entries"]
    assert "running on the CPU: the provider cuda cannot run" in caplog.text
    assert "libcudart.so.13 is missing" in caplog.text
    with pytest.raises(BackendError, match=r"libcudart\.so\.13 is missing"):
        OnnxRuntimeBackend(NANO, provider="cuda")
