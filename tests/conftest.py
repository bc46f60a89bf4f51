# ruff: noqa: E402
import hashlib
import os
import sys
from pathlib import Path

# The workers fill the cores, and on images as small as a test's, threads only wait for one another. Read when
# OpenBLAS and torch are loaded, by programs that tests start, too.
for library in ("OMP", "OPENBLAS"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

from edgefuse.cli import main
from edgefuse.files import replace_file
from tests.support.command_line import same_logger

# The same examples on every run, and no clock: the machine may be busy.
settings.register_profile("project", derandomize=True, deadline=None, database=None)
settings.load_profile("project")

SHARED = Path(__file__).parents[2] / "shared"


# What trains, exports, measures time or starts programs; and what a test takes that does.
SLOW_FIXTURES = {"traced_once", "weights", "servers"}
# fmt: off
SLOW_FILES = (
    "batch", "calibrate", "calibrate_drift", "camera", "cli_record", "cli_stream", "console", "engines",
    "evaluate_cli",
    "experiments", "export", "export_cli", "export_end_to_end", "export_folding", "export_forms",
    "export_int8", "extending", "faults", "heap", "iterate", "live", "nano", "network", "offline",
    "quality", "recording", "recording_parts", "serve", "shipped", "sink_series", "snapshot", "soak",
    "supervise", "tensorrt", "tensorrt_cache", "tensorrt_contract", "train", "train_processes",
    "video_meaning"
)
# fmt: on
SLOW_TESTS = {
    "test_8k_is_fused",
    "test_intervals_of_a_video_resample_blocks_of_frames",
    "test_interval_covers_the_truth_about_as_often_as_it_says[50]",
    "test_a_file_of_settings_reproduces_a_run_and_options_come_before_it",
    "test_training_exporting_and_fusing_from_one_folder_to_the_next",
    "test_debug_shows_the_traceback",
    "test_command_uses_the_board",
    "test_where_no_map_is_found_the_window_begins_with_both_laid_on_each_other",
    "test_old_options_work_with_a_hint",
    "test_a_password_is_never_printed",
    "test_library_code_never_loads_typer",
    "test_golden_values_of_real_images",
    "test_perceptual_golden_values_of_real_images",
    "test_times_of_their_own_cost_no_quality[h265]",
    "test_same_bytes_in_any_order_and_any_process",
    *(f"test_shipped_models_fuse_any_size[size3-{name}]" for name in ("cnn", "gan", "transformer")),
}
NETWORK_FILES = {"faults", "network"}
LONGEST = {"test_train_processes", "test_docs", "test_calibrate", "test_faults", "test_cluster", "test_wheel"}


def pytest_collection_modifyitems(items):
    """Mark tests by what they take: time, servers, reference data; sort their files by time."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        name = item.path.stem.removeprefix("test_")
        marks = {
            "golden": "shared" in fixtures,
            "slow": bool(
                name in SLOW_FILES
                or {item.name, getattr(item, "originalname", None)} & SLOW_TESTS
                or fixtures & SLOW_FIXTURES
            ),
            "network": name in NETWORK_FILES,
        }
        for mark, holds in marks.items():
            if holds:
                item.add_marker(mark)
    # The files that take the longest come first, so that both workers end at about the same time.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.stem not in LONGEST, item.path not in slow))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Escape file names that are not UTF-8 in captured output: workers cannot send them."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def logger_as_before():
    """Undo what the command line does to the logger."""
    with same_logger():
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real pairs and reference values, which are not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference data in {SHARED}")
    return SHARED


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """An infrared and a colour image of odd size, with edges, flat ground and noise."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:75, 0:101]
    ir = (60 + 120 * ((x - 50) ** 2 + (y - 30) ** 2 < 200) + rng.normal(0, 3, x.shape)).clip(0, 255)
    base = 90 + 60 * ((x // 9 + y // 11) % 2) + rng.normal(0, 4, x.shape)
    vis = np.stack((base * 0.7, base, base * 1.1), -1).clip(0, 255)
    return ir.astype(np.uint8), vis.astype(np.uint8)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command line in an empty folder; return its exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["edgefuse", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            main()
        output = capsys.readouterr()
        return caught.value.code or 0, output.out, output.err

    return call


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A checkpoint of each network: as shipped, as published, or random where there is no reference data."""
    import torch

    from edgefuse.train.checkpoint import Checkpoint, import_released, load_checkpoint, save_weights
    from edgefuse.train.models import build_model
    from edgefuse.weights import checkpoint_file

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(2)
    for name, published in (("nano", ""), ("cnn", "CNN"), ("transformer", "Trans"), ("gan", "GAN")):
        if not published:
            state = load_checkpoint(checkpoint_file(name)).weights
        elif SHARED.is_dir():
            state = import_released(SHARED / f"paper/checkpoints/{published}.model", name).weights
        else:
            state = build_model(name).state_dict()
        config = {"paradigm": "aptp", "seed": 2, "unrelated": 1}
        save_weights(folder / f"{name}.safetensors", Checkpoint(name, state, 7, config))
    return folder


@pytest.fixture(scope="session")
def between_workers(tmp_path_factory) -> Path:
    """A folder that all workers of this run of the tests share."""
    root = tmp_path_factory.getbasetemp()
    return root.parent if "PYTEST_XDIST_WORKER" in os.environ else root


@pytest.fixture(scope="session")
def traced_once(between_workers):
    """Trace the same network in the same form once for all tests: it takes nearly all of an export's time."""
    import onnx

    from edgefuse.export import graph, pipeline

    def trace(model, spec):
        size = spec.size and tuple(side + -side % spec.size_divisor for side in spec.size)
        state = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
        form = f"{spec.model} {size} {spec.precision == 'fp16'}".encode()
        file = between_workers / f"{hashlib.sha256(form + state).hexdigest()}.onnx"
        if not file.exists():
            traced = graph.trace(model, spec).SerializeToString()
            replace_file(file, lambda partial: partial.write_bytes(traced))
        return onnx.load(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "trace", trace)
        yield trace
