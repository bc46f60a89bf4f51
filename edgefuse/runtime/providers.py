"""ONNX Runtime's execution providers by name: what is asked for runs, or an error says what is missing.

Left to itself ONNX Runtime runs on the CPU whenever a GPU provider cannot load, and says so only in its
log. Here a provider that was asked for is the one that runs. The errors of a machine without CUDA,
cuDNN, TensorRT or a GPU are tested; that the GPU providers run has not been tried.
"""

import contextlib
import ctypes
import hashlib
import io
import json
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgefuse.errors import BackendError, ModelError, unknown_name
from edgefuse.runtime.engine_cache import cache_folder, writable_folder
from edgefuse.runtime.onnx_metadata import read_metadata
from edgefuse.runtime.profiles import Shape, make_profiles, provider_options
from edgefuse.runtime.sidecar import BuildOptions, file_hash
from edgefuse.spec import ModelSpec

__all__ = ["PROVIDERS", "open_session", "provider_in_use", "tensorrt_options"]


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime."""

    name: str
    """ONNX Runtime's own name."""
    plugin: str
    """The file beside ONNX Runtime that holds it, without prefix and suffix; empty: built in."""


PROVIDERS = {
    "cpu": Provider("CPUExecutionProvider", ""),
    "cuda": Provider("CUDAExecutionProvider", "onnxruntime_providers_cuda"),
    "tensorrt": Provider("TensorrtExecutionProvider", "onnxruntime_providers_tensorrt"),
}

CUDA_OPTIONS = {"use_tf32": "0"}
"""float32 in the graph means float32: TF32, which is on by default, has half's ten bits."""

MENDS = {
    r"libcuda\.": "install NVIDIA's driver, until nvidia-smi shows the GPU",
    r"libnv(infer|onnxparser)": "pip install 'tensorrt=={major}.*' of the same CUDA version",
    r"libcudnn": "pip install 'onnxruntime-gpu[cudnn]'",
    r"libcu|libnv": "pip install 'onnxruntime-gpu[cuda,cudnn]'",
}
"""What brings a missing library, by the beginning of its name."""


def open_session(path: Path, provider: str, session_options: Any, options: BuildOptions | None = None) -> Any:
    """Open an ONNX file with one provider and no other.

    Args:
        path: file written by `edgefuse export`.
        provider: `cpu`, `cuda` or `tensorrt` (whose unsupported operators run on CUDA, never on the CPU).
        session_options: ONNX Runtime's; a GPU provider forbids the CPU in them.
        options: of the engines that `tensorrt` builds.

    Raises:
        BackendError: an unknown provider, or one that cannot load, naming what is missing and the mend.
        ModelError: not a model that ONNX Runtime can load.
    """
    import onnxruntime as ort

    if provider not in PROVIDERS:
        raise BackendError(unknown_name("provider", provider, PROVIDERS))
    wanted = PROVIDERS[provider]
    if wanted.name not in ort.get_available_providers():
        raise BackendError(
            f"this ONNX Runtime {ort.__version__} is built without the provider {provider}: "
            "pip uninstall onnxruntime, then pip install 'edgefuse[gpu]' "
            "(on a Jetson NVIDIA's own build of onnxruntime-gpu)"
        )
    providers: list[Any] = [(wanted.name, CUDA_OPTIONS) if provider == "cuda" else wanted.name]
    if provider != "cpu":
        session_options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        _preload(ort, provider)
    if provider == "tensorrt":
        providers = [(wanted.name, tensorrt_options(path, options)), (PROVIDERS["cuda"].name, CUDA_OPTIONS)]
    failure = None
    try:
        with _quiet(ort):
            session = ort.InferenceSession(str(path), session_options, providers=providers, enable_fallback=0)
    except Exception as error:  # ORT's exceptions share no base class but Exception
        failure = " ".join(str(error).split()) or type(error).__name__
    if failure is None and session.get_providers()[0] == wanted.name:
        return session
    if provider == "cpu":
        raise ModelError(f"{path} is not a model that ONNX Runtime can load: {_short(failure)}")
    raise BackendError(f"the provider {provider} cannot run {path}: {_reason(ort, wanted, failure)}")


def provider_in_use(session: Any) -> str:
    """Return what a session of `open_session` runs on: `cuda`, or `tensorrt, then cuda` for what is left.

    ONNX Runtime lists the CPU last, always; behind a GPU it is forbidden.
    """
    first, *others = session.get_providers()
    names = [first, *(name for name in others if name != PROVIDERS["cpu"].name)]
    short = {provider.name: short for short, provider in PROVIDERS.items()}
    return ", then ".join(short.get(name, name) for name in names)


def tensorrt_options(path: Path, options: BuildOptions | None = None) -> dict[str, str]:
    """Return the options of ONNX Runtime's TensorRT provider for a file of ours.

    Engines and timings are cached in a folder that is named by the versions, the file and the options,
    because the provider itself takes a cached engine for good when one of them changes. The precision
    is the file's own; unlike our own engines, the provider's networks are not strongly typed, so that in
    an fp16 file it may choose half for layers that the graph keeps in float. It has no option against TF32
    (microsoft/onnxruntime issue 26029), only the variable `NVIDIA_TF32_OVERRIDE=0`.

    Raises:
        InputError: the cache cannot be written, or sizes that do not fit.
        ModelError: the file is not ours.
    """
    options = options or BuildOptions()
    spec = ModelSpec.from_metadata(read_metadata(path), path)
    multiple = spec.multiple if spec.graph == "core" else 1
    versions = [f"{package}{_version(package)}" for package in ("onnxruntime-gpu", "tensorrt")]
    key = json.dumps([file_hash(path), repr(options)])
    name = "-".join((*versions, hashlib.sha256(key.encode()).hexdigest()[:16]))
    cache = str(writable_folder(cache_folder() / "onnxruntime" / name))
    return {
        "trt_max_workspace_size": str(options.workspace_mb << 20),
        "trt_builder_optimization_level": str(options.level),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": cache,
        "trt_fp16_enable": str(int(spec.precision == "fp16")),
        "trt_int8_enable": str(int(spec.precision == "int8")),
        **provider_options(make_profiles(_inputs(spec), options.sizes, multiple)),
    }


def _inputs(spec: ModelSpec) -> dict[str, Shape]:
    """The shapes of a graph's inputs, -1 where they are open."""
    width, height = spec.size or (-1, -1)
    batch = 1 if spec.size else -1
    if spec.graph == "deploy":
        return {"ir": (batch, height, width, 1), "vis": (batch, height, width, 3)}
    return {"sources": (batch, 2, height, width)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-system"


def _preload(ort: Any, provider: str) -> None:
    """Load the libraries that pip put where the loader does not look; whatever fails is found out later."""
    with contextlib.redirect_stdout(io.StringIO()):
        if hasattr(ort, "preload_dlls"):  # since 1.21
            ort.preload_dlls()
        if provider == "tensorrt":
            with contextlib.suppress(ImportError, OSError):
                import tensorrt_libs  # noqa: F401


def _reason(ort: Any, wanted: Provider, failure: str | None) -> str:
    """Find out why a provider did not load: ONNX Runtime only logs it, but the loader says it again."""
    library = Path(ort.__file__).parent / "capi" / f"lib{wanted.plugin}.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        missing = str(error).partition(":")[0].strip()
        if missing != str(library):
            return f"the library {missing} is missing: {_mend(missing)}"
        return f"{_short(str(error))}: install onnxruntime-gpu again"
    if failure and "fallback to CPU EP" in failure:
        return "some of its operators have no kernel there: export it with --size, or use another provider"
    return f"{_short(failure)}: see whether nvidia-smi shows the GPU and enough memory"


def _mend(library: str) -> str:
    major = library.rpartition(".")[2]
    for beginning, mend in MENDS.items():
        if re.match(beginning, library):
            return mend.format(major=major)
    return "install the package of your system that has it"


def _short(text: str | None) -> str:
    return " ".join((text or "ONNX Runtime gave no reason").split())[:200]


@contextlib.contextmanager
def _quiet(ort: Any):  # type: ignore[no-untyped-def]
    """Keep ONNX Runtime's own account of a failure off the screen; ours follows."""
    ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        ort.set_default_logger_severity(2)
