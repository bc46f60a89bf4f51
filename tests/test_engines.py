"""Inference engines: the real CPU build of ONNX Runtime, and one that behaves like its GPU build.

What the GPU build answers on a machine without CUDA was taken down from onnxruntime-gpu 1.31.
"""

import ctypes
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from edgefuse.errors import BackendError, ModelError
from edgefuse.runtime.engines import ENGINES, OpensFile, file_for, open_engine
from edgefuse.runtime.engines.onnxruntime import (
    CPU,
    CUDA,
    CpuEngine,
    CudaEngine,
    _warn_of_unknown_placement,
    load_library,
)
from edgefuse.spec import read_operators, read_spec
from edgefuse.weights import model_file, shipped

NANO = model_file("nano")


class Options:
    """Session options that remember."""

    def __init__(self):
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, key, value):
        self.entries[key] = value


@pytest.fixture
def gpu_build(monkeypatch, tmp_path):
    """Puts a GPU build of ONNX Runtime in the place of the real one.

    `running`: the providers of a session, or what creating one raises; `missing`: libraries that the loader
    does not find; `placed`: nodes on the CPU by operator.
    """
    folder = tmp_path / "onnxruntime"
    plugin = folder / "capi" / "libonnxruntime_providers_cuda.so"

    def put(running, missing=(), placed=(), tells=True):
        seen: dict = {"loaded": []}
        gone = list(missing)

        def session(path, options, providers, enable_fallback):
            seen.update(providers=providers, entries=options.entries, enable_fallback=enable_fallback)
            if isinstance(running, Exception):
                raise running
            nodes = [SimpleNamespace(op_type=kind, name=f"node {k}") for k, kind in enumerate(placed)]
            parts = [SimpleNamespace(ep_name=CPU, get_nodes=lambda: nodes)]
            placement = {"get_provider_graph_assignment_info": lambda: parts} if tells else {}
            return SimpleNamespace(get_providers=lambda: running, **placement)

        def load(path):
            seen["loaded"].append(path)
            if path != str(plugin):
                gone.remove(path.rpartition("/")[2])
            elif gone:
                raise OSError(f"{gone[0]}: cannot open shared object file")

        fake = SimpleNamespace(
            __version__="1.31.1",
            __spec__=ModuleSpec("onnxruntime", None),
            __file__=str(folder / "__init__.py"),
            get_available_providers=lambda: [CUDA, CPU],
            InferenceSession=session,
            SessionOptions=Options,
        )
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)
        monkeypatch.setattr(ctypes, "CDLL", load)
        return seen

    return put


def test_an_engine_is_one_class_and_one_entry(monkeypatch, pair):
    class Toy(OpensFile):
        package, extra = "numpy", "toy"

        def __init__(self, path, threads=None, *, rebuild=True):
            self.spec, self.device = CpuEngine(path).spec, f"a toy with {threads} threads"

        def run(self, inputs):
            return inputs["sources"][:, :1]

    monkeypatch.setitem(ENGINES, "toy", Toy)
    opened = open_engine(NANO, "toy", 2)
    assert opened.device == "a toy with 2 threads"
    monkeypatch.setattr(Toy, "package", "no_such_package")
    with pytest.raises(BackendError, match=r"engine toy cannot be used: no_such_package .*pip install"):
        open_engine(NANO, "toy")


def test_an_older_onnx_runtime_cannot_tell_the_placement_which_is_said_once(gpu_build, monkeypatch):
    gpu_build([CUDA, CPU], placed=["Conv"], tells=False)
    said: list[str] = []
    monkeypatch.setattr("edgefuse.runtime.engines.onnxruntime.logger.warning", said.append)
    _warn_of_unknown_placement.cache_clear()
    for _ in range(2):
        CudaEngine(NANO)
    assert len(said) == 1
    assert "older than 1.24 and does not tell" in said[0]


@pytest.fixture
def shipped_files(monkeypatch, tmp_path):
    """Two files of one shipped model, the one in 8 bits with a share of them, and for some engines."""
    graph = onnx.load(NANO)
    base, original = CpuEngine(NANO).spec, shipped()["nano"]

    def put(share, engines=("cpu", "cuda", "openvino"), speed=None):
        card = replace(original, int8_speed=speed or {})
        assert base.verification is not None
        report = replace(base.verification, int8_share=share)
        for name, precision in (("nano", "fp32"), ("nano-int8", "int8")):
            spec = replace(base, precision=precision, verification=report, engines=engines, format=1)
            onnx.helper.set_model_props(graph, spec.to_metadata())
            onnx.save(graph, tmp_path / f"{name}.onnx")
        monkeypatch.setattr("edgefuse.weights.FOLDER", tmp_path)
        monkeypatch.setattr("edgefuse.runtime.engines.shipped", lambda: {"nano": card})
        monkeypatch.setattr("edgefuse.weights.shipped", lambda: {"nano": card})

    return put


@pytest.mark.parametrize(
    ("speed", "on_cpu"), [(1.4, "nano-int8.onnx"), (0.9, "nano.onnx"), (None, "nano.onnx")]
)
def test_each_engine_takes_the_file_that_it_runs_the_fastest(shipped_files, speed, on_cpu):
    shipped_files(0.9, (), {"openvino": 1.1} | ({} if speed is None else {"cpu": speed}))
    taken = {engine: file_for("nano", engine).name for engine in ENGINES}
    assert taken == {
        **{"cpu": on_cpu, "openvino": "nano-int8.onnx"},
        **{"cuda": "nano.onnx", "tensorrt": "nano.onnx"},
    }
    assert file_for("nano-fp32", "openvino").name == "nano.onnx"
    assert file_for("nano-int8", "cuda").name == "nano-int8.onnx"
    assert open_engine("nano", "cpu").spec.precision == ("int8" if "int8" in on_cpu else "fp32")


def test_a_file_that_is_not_arranged_for_tensorrt_is_refused_with_the_command(shipped_files):
    shipped_files(0.9)
    words = r"arranged for cpu, cuda, openvino, not for tensorrt: .*export nano --int8 .*--for-tensorrt"
    with pytest.raises(BackendError, match=words):
        file_for("nano-int8", "tensorrt")
    file = model_file("nano")
    graph, spec = onnx.load(file), read_spec(file)
    images = replace(spec, graph="end_to_end", size=(64, 48), colours="rgb", precision="fp16")
    for changed, words in (
        (images, r"export nano --fp16 --size 64x48 --graph end_to_end --rgb --for-tensorrt$"),
        (
            replace(spec, training={}),
            r"not for tensorrt: its network has operators that this engine .*those$",
        ),
    ):
        onnx.helper.set_model_props(graph, changed.to_metadata())
        onnx.save(graph, file)
        with pytest.raises(BackendError, match=words):
            file_for(file, "tensorrt")
    own = file.with_name("own.onnx")
    trained = replace(spec, training={"steps": 7}, precision="fp16", size=(64, 48))
    onnx.helper.set_model_props(graph, trained.to_metadata())
    onnx.save(graph, own)
    shipped_files(0.9)
    words = "with edgefuse export YOUR_CHECKPOINT --fp16 --size 64x48 --graph network --for-tensorrt$"
    with pytest.raises(BackendError, match=words):
        file_for(own, "tensorrt")
    shipped_files(0.9, ("cpu", "tensorrt"))
    assert file_for("nano-int8", "tensorrt").name == "nano-int8.onnx"
    with pytest.raises(BackendError, match="arranged for cpu, tensorrt, not for cuda"):
        file_for("nano-int8", "cuda")
    assert file_for("nano", "openvino").name == "nano.onnx", "not the one in 8 bits"


def test_the_cpu_runs_and_says_so():
    engine = CpuEngine(model_file("cnn"), threads=1)
    assert engine.device == "ONNX Runtime on cpu"
    assert engine.run({"sources": np.zeros((1, 2, 32, 32), np.float32)}).shape == (1, 1, 32, 32)
    with pytest.raises(BackendError, match=r"cnn could not be run on \[1, 3, 8, 8\] by ONNX Runtime on cpu"):
        engine.run({"sources": np.zeros((1, 3, 8, 8), np.float32)})
    engine.close()
    engine.close()


def test_an_engine_that_is_not_built_in_is_named():
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this is the GPU build of ONNX Runtime")
    with pytest.raises(BackendError, match=r"engine cuda cannot be used: .*without CUDA.*onnxruntime-gpu"):
        open_engine(NANO, "cuda")


def test_a_damaged_file_is_one_sentence(tmp_path, capfd):
    whole = NANO.read_bytes()
    (tmp_path / "odd.onnx").write_bytes(whole.replace(b"Conv", b"Cony"))
    with pytest.raises(ModelError, match=r"odd\.onnx is not a model that ONNX Runtime can load"):
        CpuEngine(tmp_path / "odd.onnx")
    assert capfd.readouterr() == ("", ""), "ONNX Runtime's own account stays off the screen"


def test_a_gpu_that_was_asked_for_runs(gpu_build):
    seen = gpu_build([CUDA, CPU], placed=("Shape", "Concat", "Squeeze"))
    assert open_engine(NANO, "cuda").device == "ONNX Runtime on cuda"
    assert seen["providers"] == [(CUDA, {"use_tf32": "0"})]
    assert "session.disable_cpu_ep_fallback" not in seen["entries"], "it refuses every graph of open size"
    assert seen["enable_fallback"] == 0


def test_large_nodes_on_the_cpu_are_an_error(gpu_build):
    gpu_build([CUDA, CPU], placed=("Shape", "Conv", "QLinearConv"))
    with pytest.raises(BackendError, match=r"2 of its large nodes would run on the CPU, such as Conv node 1"):
        CudaEngine(NANO)


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("libcublasLt.so.13", r"libcublasLt\.so\.13 is missing: .*\[cuda,cudnn\]"),
        ("libcudnn.so.9", r"libcudnn\.so\.9 is missing.*\[cudnn\]"),
        ("libcuda.so.1", r"libcuda\.so\.1 is missing.*NVIDIA's driver"),
        ("libz.so.1", r"libz\.so\.1 is missing: install your system's package"),
    ],
)
def test_what_is_missing_is_named_with_a_hint(gpu_build, missing, sentence):
    gpu_build([CPU], [missing])
    with pytest.raises(BackendError, match=rf"cuda cannot run .*nano\.onnx: .*{sentence}"):
        CudaEngine(NANO)


def test_libraries_of_nvidias_packages_are_loaded_first(gpu_build, tmp_path):
    for name in ("libcublas.so.13", "libcudart.so.13"):
        file = tmp_path / "nvidia" / "cu13" / "lib" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    seen = gpu_build([CUDA, CPU], ["libcublas.so.13", "libcudart.so.13"])
    assert CudaEngine(NANO).device == "ONNX Runtime on cuda"
    assert [path.rpartition("/")[2] for path in seen["loaded"]] == [
        *("libonnxruntime_providers_cuda.so", "libcublas.so.13"),
        *("libonnxruntime_providers_cuda.so", "libcudart.so.13"),
        "libonnxruntime_providers_cuda.so",
    ]


def test_a_damaged_library_is_named(tmp_path):
    (tmp_path / "lib.so").write_text("no library")
    reason = load_library(tmp_path / "lib.so", tmp_path)
    assert reason is not None
    assert reason.endswith("install onnxruntime-gpu again")


def test_a_gpu_that_fails_otherwise_keeps_its_own_words(gpu_build):
    gpu_build(RuntimeError("CUDA failure 2: out of memory"))
    with pytest.raises(BackendError, match=r"CUDA failure 2: out of memory: see whether nvidia-smi"):
        CudaEngine(NANO)
    gpu_build([CPU])
    with pytest.raises(BackendError, match=r"ONNX Runtime could not use its CUDA provider"):
        CudaEngine(NANO)


def test_without_a_wish_the_gpu_is_tried_first_and_a_fall_back_is_logged(gpu_build, caplog):
    gpu_build([CUDA, CPU])
    assert open_engine(NANO).device == "ONNX Runtime on cuda"
    assert not caplog.records
    gpu_build([CPU], ["libcudart.so.13"])
    assert open_engine(NANO).device == "ONNX Runtime on cpu"
    assert "running on the CPU: cuda cannot run" in caplog.text
    assert "libcudart.so.13 is missing" in caplog.text


@pytest.mark.parametrize(("operator", "domain"), [("Conv", "odd"), ("Cony", ""), ("Conv", "com.other")])
def test_openvino_does_not_end_the_program_over_an_operator(tmp_path, operator, domain):
    openvino = pytest.importorskip("edgefuse.runtime.engines.openvino")
    pytest.importorskip("openvino")
    graph = onnx.load(NANO)
    node = graph.graph.node[3]
    node.op_type, node.domain = operator, domain
    if domain == "com.other":
        graph.opset_import.add(domain=domain, version=1)
    onnx.save(graph, tmp_path / "odd.onnx")
    assert read_operators((tmp_path / "odd.onnx").read_bytes()) - openvino.TRIED == {
        f"{domain}.{operator}".strip(".")
    }
    with pytest.raises(ModelError, match=r"odd\.onnx is not a model that OpenVINO can load: "):
        openvino.OpenVinoEngine(tmp_path / "odd.onnx")


def test_all_shipped_files_are_of_operators_that_openvino_knows():
    from edgefuse.runtime.engines.openvino import TRIED

    for card in shipped().values():
        for file in filter(None, (card.onnx, card.int8)):
            assert read_operators(file.read_bytes()) <= TRIED
