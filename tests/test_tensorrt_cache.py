"""The sidecar of an engine, the cache, profiles and metadata: pure logic, no TensorRT."""

import dataclasses
import json
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefuse.errors import InputError, ModelError
from edgefuse.files import replace_file
from edgefuse.runtime.engines.engine_cache import (
    BuildOptions,
    Machine,
    Profile,
    Sidecar,
    SizeRange,
    cache_folder,
    cached_engine,
    file_hash,
    make_profiles,
    mismatches,
    read_sidecar,
    resolve_engine,
    sidecar_path,
    writable_folder,
    write_sidecar,
)
from edgefuse.runtime.engines.tensorrt_build import count_precisions
from edgefuse.spec import ModelSpec, read_spec
from edgefuse.weights import model_file

ORIN = Machine("10.3.0", "12.6", "12.6", "Orin (nvgpu)", "8.7", "14")


def build(onnx_file: Path, out: Path, options: BuildOptions, machine: Machine = ORIN) -> Sidecar:
    """What a build leaves behind."""
    out.write_bytes(b"engine of " + onnx_file.read_bytes())
    sidecar = Sidecar(
        machine=machine,
        onnx=str(onnx_file) if onnx_file.parent != out.parent else onnx_file.name,
        onnx_sha256=file_hash(onnx_file),
        engine_sha256=file_hash(out),
        profiles={"sources": Profile((1, 2, 64, 64), (1, 2, 480, 640), (1, 2, 1088, 1920))},
        options=options,
        spec=ModelSpec("nano", 4, size=(640, 480), precision="fp16"),
        layers={"fp16": 12, "fp32": 2},
    )
    write_sidecar(out, sidecar)
    return sidecar


class Builder:
    """Counts builds."""

    def __init__(self, machine=ORIN):
        self.machine, self.built = machine, []

    def __call__(self, onnx_file, out, options):
        self.built.append((onnx_file, out, options))
        return build(onnx_file, out, options, self.machine)


@pytest.fixture
def engine(tmp_path):
    """An engine beside its graph, built on an Orin."""
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    build(tmp_path / "model.onnx", tmp_path / "model.engine", BuildOptions(level=4))
    return tmp_path / "model.engine"


def test_a_sidecar_comes_back_as_it_was(engine):
    sidecar = read_sidecar(engine)
    write_sidecar(engine, sidecar)
    assert read_sidecar(engine) == sidecar
    assert sidecar.options.level == 4
    assert sidecar.spec.size == (640, 480)
    assert sidecar.profiles["sources"].max == (1, 2, 1088, 1920)


def test_an_engine_that_fits_is_taken_as_it_is(engine, tmp_path):
    builder = Builder()
    assert resolve_engine(engine, ORIN, builder, cache=tmp_path / "cache") == (engine, read_sidecar(engine))
    assert not builder.built
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("field", ["cuda", "driver"])
def test_an_engine_outlives_another_driver_and_other_bindings(engine, tmp_path, field):
    here = dataclasses.replace(ORIN, **{field: "9.9"})
    assert resolve_engine(engine, here, Builder(), cache=tmp_path / "cache")[0] == engine


@pytest.mark.parametrize("field", ["tensorrt", "gpu", "sm", "multiprocessors"])
def test_any_other_machine_gets_its_own_engine_once(engine, tmp_path, field, caplog):
    here = dataclasses.replace(ORIN, **{field: "9.9"})
    builder = Builder(here)
    file, sidecar = resolve_engine(engine, here, builder, cache=tmp_path / "cache")
    assert builder.built == [(tmp_path / "model.onnx", file, BuildOptions(level=4))]
    assert sidecar.machine == here
    assert "here 9" in caplog.text
    assert resolve_engine(engine, here, builder, cache=tmp_path / "cache") == (file, sidecar)
    assert len(builder.built) == 1
    assert read_sidecar(engine).machine == ORIN, "the engine that was given is left alone"


def test_no_rebuild_refuses_with_the_reason(engine, tmp_path):
    here = dataclasses.replace(ORIN, tensorrt="11.4.0", sm="8.9")
    with pytest.raises(
        ModelError, match=r"TensorRT 10\.3\.0, here 11\.4\.0; .* 8\.7, here 8\.9.*--no-rebuild"
    ):
        resolve_engine(engine, here, Builder(), rebuild=False, cache=tmp_path / "cache")
    with pytest.raises(ModelError, match="no engine for this machine yet"):
        resolve_engine(tmp_path / "model.onnx", here, Builder(), rebuild=False, cache=tmp_path / "cache")


def test_a_changed_graph_and_a_damaged_engine_are_noticed(engine, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"a newer graph")
    builder = Builder()
    file, _ = resolve_engine(engine, ORIN, builder, cache=tmp_path / "cache")
    assert file.read_bytes() == b"engine of a newer graph"
    engine.write_bytes(b"engi")
    assert mismatches(engine, read_sidecar(engine), ORIN) == ["content that differs from its sidecar"]


def test_a_damaged_engine_in_the_cache_is_built_again(engine, tmp_path):
    builder = Builder()
    file, _ = resolve_engine(tmp_path / "model.onnx", ORIN, builder, cache=tmp_path / "cache")
    file.write_bytes(b"half")
    resolve_engine(tmp_path / "model.onnx", ORIN, builder, cache=tmp_path / "cache")
    sidecar_path(file).write_text("{")
    resolve_engine(tmp_path / "model.onnx", ORIN, builder, cache=tmp_path / "cache")
    assert len(builder.built) == 3


def test_only_one_of_two_builds_an_engine_and_the_other_has_it(engine, tmp_path, caplog):
    began, may_end = threading.Event(), threading.Event()
    builder = Builder()

    def slow(*given):
        began.set()
        assert may_end.wait(60)
        return builder(*given)

    def find(build):
        return resolve_engine(tmp_path / "model.onnx", ORIN, build, cache=tmp_path / "cache")

    class Waits(logging.Handler):
        def emit(self, record):
            if "waiting for it" in record.getMessage():
                may_end.set()

    logging.getLogger("edgefuse").addHandler(Waits())
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(find, slow)
        assert began.wait(60)
        second = threads.submit(find, builder)
        assert first.result(60) == second.result(60)
    assert len(builder.built) == 1
    assert "another process builds" in caplog.text


def test_two_threads_may_write_one_file_at_once(tmp_path):
    both_wrote = threading.Barrier(2)

    def write(text):
        def fill(partial):
            partial.write_text(text)
            both_wrote.wait(60)

        replace_file(tmp_path / "timing.cache", fill)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, ("one", "two")))
    assert (tmp_path / "timing.cache").read_text() in ("one", "two")
    assert os.listdir(tmp_path) == ["timing.cache"]


def test_without_its_graph_an_engine_is_served_from_the_cache_or_refused(engine, tmp_path):
    here = dataclasses.replace(ORIN, gpu="another")
    resolve_engine(engine, here, Builder(here), cache=tmp_path / "cache")
    (tmp_path / "model.onnx").unlink()
    builder = Builder(here)
    resolve_engine(engine, here, builder, cache=tmp_path / "cache")
    assert not builder.built
    with pytest.raises(ModelError, match=r"model\.onnx is not there to build it from"):
        resolve_engine(engine, here, builder, cache=tmp_path / "elsewhere")


def test_missing_and_damaged_sidecars_are_one_sentence(engine):
    path = sidecar_path(engine)
    for text in ("", "{", "[]", "{}", json.dumps({**json.loads(path.read_text()), "machine": {"gpu": 1}})):
        path.write_text(text)
        with pytest.raises(ModelError, match=r"model\.engine\.json is damaged.*--tensorrt$"):
            read_sidecar(engine)
    path.unlink()
    with pytest.raises(ModelError, match=r"has no model\.engine\.json beside it.*--tensorrt$"):
        read_sidecar(engine)


def test_the_cache_names_an_engine_by_all_that_it_depends_on(tmp_path):
    base = cached_engine(tmp_path, "a", ORIN, BuildOptions())
    others = [
        cached_engine(tmp_path, "b", ORIN, BuildOptions()),
        cached_engine(tmp_path, "a", dataclasses.replace(ORIN, gpu="Thor"), BuildOptions()),
        cached_engine(tmp_path, "a", ORIN, BuildOptions(level=5)),
        cached_engine(tmp_path, "a", ORIN, BuildOptions(sizes=SizeRange(batch=2))),
    ]
    assert len({base, *others}) == 5
    assert base.parent == tmp_path / "tensorrt" / "trt10.3.0-orin-nvgpu-sm87"


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEFUSE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("EDGEFUSE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "edgefuse"


def test_a_cache_that_cannot_be_written_is_said_before_the_build(engine, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    builder = Builder()
    with pytest.raises(InputError, match=r"cannot write the cache .*EDGEFUSE_CACHE"):
        resolve_engine(tmp_path / "model.onnx", ORIN, builder, cache=tmp_path / "file")
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(InputError, match="Permission denied"):
            writable_folder(tmp_path / "locked")
    assert not builder.built


def test_options_out_of_range_are_one_sentence():
    for workspace_mb, level in ((0, 3), (1, 6), (1, -1)):
        with pytest.raises(InputError, match="it must be"):
            BuildOptions(workspace_mb=workspace_mb, level=level)
    with pytest.raises(InputError, match=r"the heights 480, 100, 1088 .* smallest, usual, largest"):
        SizeRange(min=(64, 480), opt=(640, 100))
    with pytest.raises(InputError, match="batch is 0"):
        SizeRange(batch=0)


def test_a_size_range_is_read_from_text():
    wanted = SizeRange((320, 256), (640, 480), (1280, 1024), batch=2)
    assert SizeRange.parse("320x256,640x480,1280x1024", batch=2) == wanted
    assert SizeRange.parse("640x480") == SizeRange((640, 480), (640, 480), (640, 480))
    for text in ("640x480,1280x1024", "640", "", "640x480,640x480,"):
        with pytest.raises(InputError):
            SizeRange.parse(text)


def test_profiles_fill_open_dimensions_alone():
    sizes = SizeRange(min=(60, 50), opt=(640, 480), max=(1000, 900), batch=4)
    network = make_profiles(ModelSpec("nano", 16, levels=True), sizes)
    assert network == {
        "sources": Profile((1, 2, 64, 64), (1, 2, 480, 640), (4, 2, 912, 1008)),
        "levels": Profile((1, 4), (1, 4), (4, 4)),
    }
    images = make_profiles(ModelSpec("nano", 16, graph="end_to_end"), sizes)
    assert images["ir"] == Profile((1, 50, 60, 1), (1, 480, 640, 1), (4, 900, 1000, 1))
    assert images["vis"].max == (4, 900, 1000, 3)
    assert make_profiles(ModelSpec("nano", 16, size=(640, 480)), sizes) == {}


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=300), max_size=5))
def test_metadata_is_read_without_the_onnx_package(entries):
    spec = ModelSpec("nano", 4)
    model = onnx.ModelProto(ir_version=8, producer_name="someone", model_version=1 << 40)
    for key, value in (entries | spec.to_metadata()).items():
        model.metadata_props.add(key=key, value=value)
    assert read_spec(Path("x.onnx"), model.SerializeToString()) == spec


def test_the_shipped_model_says_what_it_is_and_a_cut_one_does_not(tmp_path):
    assert read_spec(model_file("nano")).model == "nano"
    data = model_file("nano").read_bytes()
    for cut in (data[: len(data) // 2], data[:-3], b"PK\x03\x04 no graph", b"\x07" * 40, b"\xff" * 40):
        (tmp_path / "cut.onnx").write_bytes(cut)
        with pytest.raises(ModelError, match=r"cut\.onnx is not an ONNX file, or is cut off"):
            read_spec(tmp_path / "cut.onnx")
    with pytest.raises(InputError, match="cannot read"):
        read_spec(tmp_path / "none.onnx")


def layer(kind, *formats):
    tensors = [{"Name": "t", "Format/Datatype": f} for f in formats]
    return {"LayerType": kind, "Inputs": tensors[:1], "Outputs": tensors[1:]}


def test_layers_are_counted_by_what_they_read_and_write():
    layers = [
        layer("CaskConvolution", "Half", "Half"),
        layer("CaskConvolution", "Row major linear FP16 format", "Float"),
        layer("kgen", "Thirty-two wide channel vectorized row major Int8 format", "Half"),
        layer("gemm", "BFloat16", "BFloat16"),
        layer("kgen", "UInt8", "Float"),
        layer("Reformat", "Float", "Half"),
        layer("NoOp", "Half", "Half"),
        layer("kgen", "UInt8", "UInt8"),
    ]
    counts = count_precisions(json.dumps({"Layers": layers, "Bindings": []}))
    assert counts == {"int8": 1, "fp16": 2, "bf16": 1, "fp32": 1, "other": 1}


def test_an_inspector_without_details_counts_nothing():
    for said in ("", "null", '{"Layers": ["conv1", "conv2"]}', '{"Bindings": []}'):
        assert count_precisions(said) == {}
