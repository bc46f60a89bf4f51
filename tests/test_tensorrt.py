"""Building and running engines with a TensorRT and a CUDA in memory: what is done, and what goes wrong."""

import ctypes
import json
import logging
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from edgefuse import Fuser
from edgefuse.cli import app
from edgefuse.errors import BackendError, GateError, InputError, ModelError
from edgefuse.export.config import Gates
from edgefuse.export.pipeline import export_engine
from edgefuse.export.report import inspect_file
from edgefuse.export.verify import simulated_pairs
from edgefuse.images import write_image
from edgefuse.runtime.engines import open_engine
from edgefuse.runtime.engines.base import DeviceArray
from edgefuse.runtime.engines.engine_cache import BuildOptions, SizeRange, read_sidecar
from edgefuse.runtime.engines.tensorrt import TensorRtEngine
from edgefuse.runtime.engines.tensorrt_build import build_engine, layer_share, precision_doubt
from edgefuse.spec import ModelSpec, read_spec
from edgefuse.weights import checkpoint_file, model_file
from tests.support.fake_tensorrt import FakeCuda, fake_tensorrt

CNN = model_file("cnn")


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Puts fakes where TensorRT and cuda-python would be; returns a function of what is broken."""
    monkeypatch.setenv("EDGEFUSE_CACHE", str(tmp_path / "cache"))

    def put(cuda=None, version="10.3.0", **broken):
        cuda = cuda or FakeCuda()
        trt = fake_tensorrt(version, cuda, **broken)
        bindings = ModuleType("cuda.bindings")
        bindings.runtime = cuda  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
        monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
        return trt, cuda

    return put


@pytest.fixture
def engine(install, tmp_path):
    """An engine file that fits the fakes."""
    install()
    build_engine(CNN, tmp_path / "nano.engine")
    return tmp_path / "nano.engine"


def test_a_build_asks_for_what_it_should(install, tmp_path):
    trt, _ = install()
    options = BuildOptions(SizeRange((64, 64), (640, 480), (1280, 1024)), workspace_mb=256, level=5)
    sidecar = build_engine(CNN, tmp_path / "nano.engine", options)
    assert trt.seen["flags"] == 1 << 1
    assert trt.seen["workspace"] == 256 << 20
    assert trt.seen["cleared"] == "TF32"
    assert trt.seen["profile"] == ("sources", (1, 2, 64, 64), (1, 2, 480, 640), (1, 2, 1024, 1280))
    assert trt.seen["config"].profiling_verbosity == "detailed"
    assert trt.seen["config"].builder_optimization_level == 5
    assert (tmp_path / "nano.engine").read_bytes() == b"engine"
    assert read_sidecar(tmp_path / "nano.engine") == sidecar
    assert sidecar.machine.driver == "13.0"
    assert sidecar.machine.cuda == "12.6"
    assert sidecar.machine.sm == "8.7"
    assert sidecar.onnx == str(CNN.resolve())


def test_timings_are_kept_and_dropped_where_they_do_not_fit(install, tmp_path, caplog):
    trt, _ = install()
    build_engine(CNN, tmp_path / "a.engine")
    build_engine(CNN, tmp_path / "a.engine")
    assert trt.seen["timing_caches"] == [b"", b"timings"]
    (file,) = (tmp_path / "cache").rglob("timing.cache")
    assert file.parent.name == "trt10.3.0-orin-sm87"
    trt, _ = install(timings="mismatch")
    build_engine(CNN, tmp_path / "a.engine")
    assert trt.seen["timing_caches"] == [b"timings", b""]
    assert "does not fit this GPU, or is damaged, and is replaced" in caplog.text
    trt, _ = install()
    file.write_bytes(b"damaged")
    build_engine(CNN, tmp_path / "a.engine")
    assert trt.seen["timing_caches"] == [b"damaged", b""]
    assert file.read_bytes() == b"timings", "and the next build has it"
    file.unlink()
    file.mkdir()
    trt, _ = install()
    build_engine(CNN, tmp_path / "a.engine")
    assert trt.seen["timing_caches"] == [b""]
    assert "timing.cache cannot be read (Is a directory) and is replaced" in caplog.text
    assert "the next build will take as long: cannot write" in caplog.text


def test_progress_is_told_and_ctrl_c_ends_the_build(install, tmp_path):
    trt, _ = install()
    steps = []
    build_engine(CNN, tmp_path / "a.engine", progress=lambda *step: steps.append(step))
    assert steps == [("Timing", 0, 2), ("Timing", 1, 2), ("Timing", 2, 2)]
    assert trt.seen["went_on"]

    def interrupt(*step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(CNN, tmp_path / "b.engine", progress=interrupt)
    assert not trt.seen["went_on"]
    assert not list(tmp_path.glob("b.engine*"))


@pytest.mark.parametrize(
    ("broken", "kind", "sentence"),
    [
        ({"builder": True}, BackendError, "TensorRT cannot start: no device was found$"),
        (
            {"parse": False},
            ModelError,
            r"TensorRT 10\.3\.0 cannot parse .*cnn\.onnx: unknown operator .*--for-tensorrt\)$",
        ),
        ({"profile": -1}, InputError, "TensorRT refuses the size range 64x64,640x480,1920x1088: "),
        ({"build": None}, BackendError, "found no engine for .* within 1024 MB"),
        ({"deserialize": None}, BackendError, "cannot load the engine that it built"),
    ],
)
def test_a_build_that_fails_is_one_sentence_and_leaves_nothing(install, tmp_path, broken, kind, sentence):
    install(**broken)
    with pytest.raises(kind, match=sentence):
        build_engine(CNN, tmp_path / "nano.engine")
    assert not list(tmp_path.glob("nano.engine*"))


def test_what_cannot_be_built_is_one_sentence(install, tmp_path):
    install()
    (tmp_path / "cut.onnx").write_bytes(CNN.read_bytes()[:-9])
    (tmp_path / "other.onnx").write_bytes(b"")
    for name, sentence in (("cut", "or is cut off"), ("other", "does not say what"), ("no", "cannot read")):
        with pytest.raises((ModelError, InputError), match=rf"{name}\.onnx|{sentence}"):
            build_engine(tmp_path / f"{name}.onnx", tmp_path / "x.engine")
    with pytest.raises(InputError, match="there is no folder"):
        build_engine(CNN, tmp_path / "no" / "x.engine")


def test_a_frame_goes_through_and_buffers_are_kept(install, engine):
    _, cuda = install()
    backend = TensorRtEngine(engine, rebuild=False)
    assert backend.device == "TensorRT 10.3.0 on Orin"
    assert backend.spec.model == "cnn"
    x = np.random.default_rng(1).random((1, 2, 48, 64), np.float32)
    first = backend.run({"sources": x})
    np.testing.assert_allclose(first, x.mean(1, keepdims=True), atol=1e-6)
    second = backend.run({"sources": x * 0})
    assert cuda.allocations == 4, "two buffers, each on both sides, once"
    assert first.any()
    assert not second.any(), "an answer is not overwritten by the next"
    with pytest.raises(ModelError, match=r"takes \['sources'\], not \['ir', 'vis'\]"):
        backend.run({"ir": np.zeros((1, 8, 8, 1), np.uint8), "vis": np.zeros((1, 8, 8, 3), np.uint8)})
    backend.run({"sources": np.zeros((1, 2, 32, 32), np.float32)})
    assert cuda.allocations == 4
    backend.run({"sources": np.zeros((1, 2, 480, 640), np.float32)})
    assert cuda.allocations == 8
    backend.close()
    assert not cuda.memory
    assert cuda.streams == 0
    with pytest.raises(BackendError, match="the engine is closed: open it again"):
        backend.run({"sources": x})
    backend.close()


@pytest.mark.parametrize(
    ("broken", "kind", "sentence"),
    [
        ({"shape": False}, InputError, r"sources \[1, 2, 48, 64\] does not fit .* to \[1, 2, 1088, 1920\]"),
        ({"shape": False, "static": (1, 2, 8, 8)}, InputError, r"built for \[1, 2, 8, 8\] alone.*--size"),
        ({"address": False}, BackendError, "refuses the buffer of sources"),
        ({"execute": False}, BackendError, "failed on a frame"),
        ({"runtime": True}, BackendError, "cannot start: no device was found"),
        ({"deserialize": None}, BackendError, r"cannot load .*nano\.engine"),
        ({"context": None}, BackendError, r"cannot load .*nano\.engine"),
    ],
)
def test_a_run_that_fails_is_one_sentence(install, engine, broken, kind, sentence):
    _, cuda = install(**broken)
    with pytest.raises(kind, match=sentence):
        TensorRtEngine(engine, rebuild=False).run({"sources": np.zeros((1, 2, 48, 64), np.float32)})
    assert not cuda.memory
    assert cuda.streams == 0


@pytest.mark.parametrize(
    ("function", "at"),
    [("cudaMalloc", 2), ("cudaHostAlloc", 2), ("cudaMemcpyAsync", 1), ("cudaGetDevice", 1)],
)
def test_a_cuda_that_fails_is_one_sentence_and_loses_no_memory(install, engine, function, at):
    _, cuda = install(FakeCuda(function, at))
    with pytest.raises(BackendError, match=r"CUDA failed: no CUDA-capable device .*nvidia-smi"):
        TensorRtEngine(engine).run({"sources": np.zeros((1, 2, 48, 64), np.float32)})
    assert not cuda.memory
    assert cuda.streams == 0


def test_engine_files_are_opened_with_tensorrt(install, engine, pair):
    install()
    assert open_engine(engine).device == "TensorRT 10.3.0 on Orin"
    assert Fuser(engine)(*pair).shape == pair[1].shape
    install(version="11.4.0.106")
    with pytest.raises(ModelError, match="no-rebuild"):
        Fuser(engine, rebuild=False)


def test_an_onnx_file_is_built_into_the_cache_once(install, tmp_path, caplog):
    install()
    for _ in range(2):
        assert TensorRtEngine(CNN).sidecar.onnx_sha256
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    (file,) = (tmp_path / "cache").rglob("*.engine")
    install(version="11.4.0.106")
    with pytest.raises(ModelError, match="no-rebuild"):
        TensorRtEngine(file, rebuild=False)


def test_an_engine_that_tensorrt_refuses_is_built_again(install, engine, tmp_path, caplog, pair):
    working = install()[0].Runtime(None).deserialize_cuda_engine(b"")
    install(deserialize=[None, working, working])
    opened = TensorRtEngine(engine)
    assert "TensorRT refuses the engine" in caplog.text
    (built,) = (tmp_path / "cache").rglob("*.engine")
    assert opened.sidecar == read_sidecar(built)
    install(deserialize=[None, working, working])
    TensorRtEngine(CNN)
    assert caplog.text.count("building a TensorRT engine") == 2, "one in the cache, too"
    install(deserialize=[None, None, working, working])
    TensorRtEngine(engine)
    assert caplog.text.count("building a TensorRT engine") == 3, "or that, and the one that was given"
    install(deserialize=[None] * 4)
    with pytest.raises(BackendError, match="TensorRT cannot load the engine that it built"):
        TensorRtEngine(engine)
    caplog.clear()
    install(deserialize=[None, None, working, None])
    with pytest.raises(BackendError, match=r"TensorRT cannot load .*\.engine: "):
        TensorRtEngine(engine)
    assert caplog.text.count("building a TensorRT engine") == 1, "what was just built is not built again"
    install(deserialize=[None])
    with pytest.raises(BackendError, match="TensorRT cannot load"):
        TensorRtEngine(engine, rebuild=False)


def test_missing_and_old_packages_are_one_sentence(install, engine, monkeypatch):
    for old in ("8.6.1", "10.0.1"):
        install(version=old)
        with pytest.raises(BackendError, match=rf"TensorRT {old} is too old: 10\.3 or later"):
            TensorRtEngine(engine)
    install()
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(BackendError, match=r"cuda-python is not installed: pip install"):
        TensorRtEngine(engine)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match=r"TensorRT cannot be loaded .*pip install tensorrt"):
        TensorRtEngine(engine)


def test_layers_that_do_not_look_like_the_precision_are_named():
    assert precision_doubt({"fp32": 9}, "fp32") is None
    assert precision_doubt({}, "fp32") is None
    assert precision_doubt({"fp16": 5, "fp32": 5, "other": 90}, "fp16") is None
    assert precision_doubt({"int8": 3, "fp32": 9}, "int8") is None
    doubt = precision_doubt({"int8": 2, "fp32": 8, "fp16": 0}, "int8") or ""
    assert "shows 20% of its layers in int8, usual are at least 25% (layers: 2 int8, 8 fp32)" in doubt
    assert layer_share({"fp16": 3, "fp32": 5, "other": 90}, "fp16") == 3 / 8
    assert "shows 0% of its layers in fp16" in (precision_doubt({"other": 4}, "fp16") or "")
    assert "does not say whether it computes in fp16" in (precision_doubt({}, "fp16") or "")


@pytest.fixture
def export(install, tmp_path):
    """Exports an engine beside the checkpoint, with gates that the fake one, a mean, passes or not."""
    described, pairs = simulated_pairs((64, 64), 2)

    def run(out, limit=1.0, onnx=CNN, gates=None, options=None):
        gates = gates or Gates(max_difference=limit, min_psnr=0, min_extreme_psnr=0)
        return export_engine(
            onnx, out, checkpoint_file("cnn"), pairs, described, gates=gates, options=options
        )

    return run


def test_an_engine_is_compared_and_gets_its_name_when_it_passes(install, export, tmp_path):
    install()
    out = tmp_path / "nano.engine"
    spec = export(out)
    report = spec.verification
    assert report.passed
    assert report.layers == read_spec(CNN).verification.layers, "as the graph's types are"
    assert read_sidecar(out).layers["fp16"] == 1, "as the inspector says"
    assert (report.run_on, report.of) == ("TensorRT 10.3.0 on Orin", "")
    assert read_sidecar(out).spec == spec
    assert inspect_file(out) == (spec, read_sidecar(out).layers)
    assert TensorRtEngine(out, rebuild=False).spec == spec
    with pytest.raises(InputError, match=r"the suffix must be \.engine"):
        export(tmp_path / "nano.trt")
    before = {file.name: file.read_bytes() for file in tmp_path.glob("nano*")}
    assert set(before) == {"nano.engine", "nano.engine.json"}
    assert not export(out, limit=1e-4).verification.passed, "the fake engine answers the mean of both images"
    after = {file.name: file.read_bytes() for file in tmp_path.glob("nano*")}
    assert set(after) - set(before) == {"nano.failed.engine", "nano.failed.engine.json"}
    assert before.items() <= after.items(), "what passed earlier is as it was"


INT8 = {"LayerType": "gemm", "Inputs": [], "Outputs": [{"Format/Datatype": "Int8"}]}


@pytest.mark.parametrize(
    ("precision", "layers", "more"),
    [("fp16", {}, []), ("int8", {"layers": [INT8]}, ["EN", "MI", "VIF", "Qabf", "SSIM"])],
)
def test_an_engine_is_held_to_every_gate_of_its_precision(install, export, tmp_path, precision, layers, more):
    install(**layers)
    spec = export(tmp_path / "nano.engine", onnx=relabelled(tmp_path / "nano.onnx", precision))
    report = spec.verification
    names = [gate.name for gate in report.gates]
    assert names == ["PSNR", "PSNR at extremes", f"layers in {precision}", *more]
    assert all(gate.value is not None for gate in report.gates), "each was measured"
    assert (report.kept, report.calibration) == (("conv",), "two pairs"), "of the graph"
    strict = Gates(min_psnr=0, min_extreme_psnr=90, max_worse=9)
    failed = export(tmp_path / "strict.engine", onnx=tmp_path / "nano.onnx", gates=strict)
    assert [g.name for g in failed.verification.gates if not g.passed] == ["PSNR at extremes"]


def relabelled(path, precision):
    """The shipped graph with another precision in its spec."""
    graph = onnx.load(CNN)
    spec = ModelSpec.from_metadata({p.key: p.value for p in graph.metadata_props})
    assert spec.verification is not None
    layers = {precision: 9}
    report = replace(spec.verification, kept=("conv",), calibration="two pairs", layers=layers)
    onnx.helper.set_model_props(graph, replace(spec, precision=precision, verification=report).to_metadata())
    onnx.save(graph, path)
    return path


FUSED = {"LayerType": "kgen", "Inputs": [], "Outputs": [{"Format/Datatype": "Float"}]}
SPELT_OTHERWISE = {"Type": "kgen", "Inputs": [], "Outputs": [{"Format": "Half"}]}


@pytest.mark.parametrize(
    ("layers", "warning"),
    [
        ([FUSED] * 9, "inspector shows 0% of its layers in fp16, usual are at least 50% (layers: 9 fp32)"),
        ([SPELT_OTHERWISE], "inspector does not say whether it computes in fp16"),
        (["conv"], "inspector does not say whether it computes in fp16"),
    ],
)
def test_what_the_inspector_says_is_a_warning(install, export, tmp_path, caplog, layers, warning):
    """An fp16 region that is fused into one layer has floats at its ends, and keys may be spelt otherwise."""
    install(layers=layers)
    half = relabelled(tmp_path / "half.onnx", "fp16")
    assert export(tmp_path / "half.engine", onnx=half).verification.passed
    assert f"half.failed.engine: TensorRT's {warning}" in caplog.text
    assert TensorRtEngine(half).sidecar.spec.precision == "fp16"
    caplog.clear()
    assert export(tmp_path / "single.engine").verification.passed
    assert "inspector" not in caplog.text, "of a graph in fp32 nothing is asked"


@pytest.mark.parametrize(
    ("package", "sentence"),
    [
        ("tensorrt", "TensorRT cannot be loaded"),
        ("onnxruntime", "onnxruntime is not installed: pip install onnxruntime"),
    ],
)
def test_the_command_says_what_is_missing_before_it_works(tmp_path, monkeypatch, package, sentence):
    monkeypatch.setitem(sys.modules, package, None)
    out = tmp_path / "nano.onnx"
    done = CliRunner().invoke(app, ["export", "cnn", "--tensorrt", "--out", str(out)])
    assert isinstance(done.exception, BackendError)
    assert sentence in str(done.exception)
    assert not out.exists()


@pytest.mark.usefixtures("traced_once")
def test_the_command_builds_and_judges_an_engine(install, tmp_path):
    trt, _ = install()
    out = tmp_path / "nano.onnx"
    sizes = [
        f"--set={text}" for text in ("tensorrt_sizes=32x32,64x48,96x64", "tensorrt_batch=2", "workspace=256")
    ]
    done = CliRunner().invoke(app, ["export", "cnn", "--tensorrt", "--out", str(out), *sizes])
    assert isinstance(done.exception, GateError), done.output
    assert "nano.failed.engine is too far" in str(done.exception)
    assert trt.seen["workspace"] == 256 << 20
    assert trt.seen["profile"] == ("sources", (1, 2, 32, 32), (1, 2, 48, 64), (2, 2, 64, 96))
    sidecar = read_sidecar(tmp_path / "nano.failed.engine")
    assert sidecar.onnx == "nano.onnx"
    assert sidecar.options.sizes.batch == 2
    assert sidecar.spec.verification.sizes == ("64x48",), "640x480 is not in the engine's range"


def test_pairs_that_an_engine_does_not_serve_are_named_before_the_work(install, export, tmp_path):
    install()
    (tmp_path / "ir").mkdir()
    (tmp_path / "vis").mkdir()
    for side in ("ir", "vis"):
        write_image(tmp_path / side / "a.png", np.zeros((64, 80), np.uint8))
    folders = [f"--pairs-{side}={tmp_path / side}" for side in ("ir", "vis")]
    out = f"--out={tmp_path / 'nano.onnx'}"
    done = CliRunner().invoke(
        app, ["export", "cnn", "--tensorrt", "--tensorrt-sizes=32x32,48x48,64x64", out, *folders]
    )
    assert isinstance(done.exception, InputError)
    words = "the pair 'a' to compare on is 80x64, which an engine for 32x32,48x48,64x64 does not serve: widen"
    assert str(done.exception).startswith(words)
    for option in ("--tensorrt-sizes=64x64", "--tensorrt-batch=2"):
        done = CliRunner().invoke(app, ["export", "cnn", "--tensorrt", option, "--size=64x48", out])
        name = option[2:].partition("=")[0].replace("-", "_")
        assert f"{name} and --size exclude each other" in str(done.exception)
    with pytest.raises(InputError, match="'frame 0' to compare on is 64x64"):
        export(tmp_path / "nano.engine", options=BuildOptions(SizeRange.parse("32x32")))
    assert not list(tmp_path.glob("nano*"))


def test_fuse_runs_an_engine_or_refuses_it(install, engine, tmp_path, pair):
    for name, image in zip(("ir", "vis"), pair, strict=True):
        write_image(tmp_path / f"{name}.png", image)
    files = [f"--{name}={tmp_path / name}.png" for name in ("ir", "vis", "out")]
    install()
    done = CliRunner().invoke(app, ["fuse", *files, "--model", str(engine), "--no-rebuild"])
    assert done.exception is None, done.output
    assert (tmp_path / "out.png").exists()
    install(version="11.4.0.106")
    done = CliRunner().invoke(app, ["fuse", *files, "--model", str(engine), "--no-rebuild"])
    assert "TensorRT 10.3.0, here 11.4.0.106" in str(done.exception)


def test_the_sidecar_is_plain_json(engine):
    values = json.loads(engine.with_name("nano.engine.json").read_text())
    assert values["machine"]["gpu"] == "Orin"
    assert values["layers"]["fp16"] == 1


def test_an_engine_can_be_inspected(engine, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(app, ["inspect", str(engine)]).output
    for words in (
        "Orin (compute capability 8.7), TensorRT 10.3.0, CUDA 12.6 (driver 13.0)",
        "sources: [1, 2, 64, 64], [1, 2, 480, 640], [1, 2, 1088, 1920]",
        "1024 MB workspace, optimisation level 3",
        "1 fp16",
        "of the ONNX file cnn.onnx; this engine was not compared",
    ):
        assert words in shown
    values = json.loads(CliRunner().invoke(app, ["inspect", "--json", str(engine)]).output)
    assert values["machine"]["gpu"] == "Orin"
    assert values["spec"]["model"] == "cnn"
    engine.with_name("nano.engine.json").unlink()
    assert isinstance(CliRunner().invoke(app, ["inspect", str(engine)]).exception, ModelError)


def test_an_end_to_end_graph_for_an_engine_elsewhere(tmp_path):
    out = tmp_path / "nano.onnx"
    wishes = ["--graph", "deploy", "--for-tensorrt", "--size", "61x47", "--out", str(out)]
    done = CliRunner().invoke(app, ["export", "cnn", *wishes])
    assert done.exception is None, done.output
    assert_no_bytes_inside(onnx.load(out))
    spec, _ = inspect_file(out)
    assert spec.verification.passed


def assert_no_bytes_inside(graph):
    typed = onnx.shape_inference.infer_shapes(graph).graph
    inside = {v.name for v in typed.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
    assert not inside
    images = [i.name for i in graph.graph.input if i.type.tensor_type.elem_type == onnx.TensorProto.UINT8]
    takers = [n.op_type for n in graph.graph.node for name in images if name in n.input]
    assert set(takers) == {"Cast"}


def test_a_larger_frame_gets_an_engine_that_serves_it(install, caplog):
    trt, _ = install(shape=[True, False, True, True])
    running = TensorRtEngine(CNN)
    running.run({"sources": np.zeros((1, 2, 64, 80), np.float32)})
    sources = np.random.default_rng(3).random((1, 2, 2160, 3840), np.float32)
    answer = running.run({"sources": sources})
    np.testing.assert_allclose(answer[:, 0], sources.mean(1), rtol=1e-6)
    assert trt.seen["profile"] == ("sources", (1, 2, 64, 64), (1, 2, 480, 640), (1, 2, 2160, 3840))
    assert running.sidecar.options.sizes == SizeRange((64, 64), (640, 480), (3840, 2160))
    assert caplog.text.count("building a TensorRT engine") == 2
    running.run({"sources": sources[:, :, :64, :80]})
    assert caplog.text.count("building a TensorRT engine") == 2
    install(shape=[False])
    with pytest.raises(InputError, match="does not fit the engine"):
        TensorRtEngine(CNN, rebuild=False).run({"sources": sources})


# --- arrays of the GPU


def test_it_computes_on_the_memory_that_it_is_given(install, engine):
    _, cuda = install()
    running = TensorRtEngine(engine)
    rng = np.random.default_rng(2)
    sources = rng.random((1, 2, 64, 80), np.float32)

    def put(array):
        _, address = cuda.cudaMalloc(array.nbytes)
        ctypes.memmove(address, array.ctypes.data, array.nbytes)
        return DeviceArray(address, array.shape, array.dtype, "cuda")

    def get(array):
        values = (ctypes.c_float * int(np.prod(array.shape))).from_address(array.pointer)
        return np.ctypeslib.as_array(values).reshape(array.shape).copy()

    given, before = put(sources), cuda.allocations
    answer = running.run_on_device({"sources": given})
    assert cuda.allocations == before + 1, "the answer's memory, and none on the host"
    assert cuda.owner(answer.pointer) == "device"
    np.testing.assert_allclose(get(answer)[:, 0], sources.mean(1), rtol=1e-6)
    out = put(np.zeros((1, 1, 64, 80), np.float32))
    assert running.run_on_device({"sources": given}, out) is out
    np.testing.assert_array_equal(get(out), get(answer))
    # Then from the host again, which has addresses of its own.
    np.testing.assert_allclose(running.run({"sources": sources + 1})[:, 0], sources.mean(1) + 1, rtol=1e-6)
    np.testing.assert_array_equal(get(out), get(answer))
    freed = answer.pointer
    del answer
    assert freed not in cuda.memory
    with pytest.raises(InputError, match=r"sources is float32 in the memory of cpu, .*float32 of cuda"):
        running.run_on_device({"sources": DeviceArray(0, (1, 2, 64, 80), np.dtype(np.float32), "cpu")})
    with pytest.raises(InputError, match=r"out is \[1, 1, 8, 8\], and the answer is \[1, 1, 64, 80\]"):
        running.run_on_device({"sources": given}, DeviceArray(9, (1, 1, 8, 8), np.dtype(np.float32), "cuda"))
    running.close()
    with pytest.raises(BackendError, match="the engine is closed"):
        running.run_on_device({"sources": given})
