"""Archives: fusing on from where a run ended, and the work spread over a Ray cluster."""

import time
from pathlib import Path

import numpy as np
import pytest

from edgefuse.batch import CHUNK, RECORD
from edgefuse.errors import BackendError, InputError
from edgefuse.images import read_image, write_image
from edgefuse.packages import is_installed
from edgefuse.workers import distribution

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)
COUNT = 3 * CHUNK
BAD = 5


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `ir/` and `vis/`, of which one infrared image is damaged."""
    folder, rng = tmp_path_factory.mktemp("archive"), np.random.default_rng(0)
    for role in ("ir", "vis"):
        (folder / role).mkdir()
        for number in range(COUNT):
            shape = (32, 40) if role == "ir" else (32, 40, 3)
            write_image(folder / role / f"{number}.png", rng.integers(0, 256, shape, np.uint8))
    (folder / "ir" / f"{BAD}.png").write_bytes(b"damaged")
    return folder


def arguments(archive: Path, out: Path, *more: str) -> list[str]:
    sources = ["--ir", str(archive / "ir"), "--vis", str(archive / "vis")]
    return ["fuse", *sources, "--out", str(out), "--threads", "1", *more]


def test_a_run_that_was_broken_off_is_completed(archive, tmp_path, run):
    out = tmp_path / "out"
    status, _, err = run(*arguments(archive, out, "--resume"))
    assert (status, f"Wrote {COUNT - 1} fused images: " in err) == (3, True), err
    whole = {path.name: path.read_bytes() for path in out.glob("*.png")}
    (out / "1.png").unlink()
    (out / "2.png").write_bytes(whole["2.png"][:-100])
    write_image(out / "3.png", np.zeros((16, 16, 3), np.uint8))
    kept = (out / "4.png").stat().st_mtime_ns
    time.sleep(0.02)
    status, _, err = run(*arguments(archive, out, "--resume"))
    assert (status, f"Wrote 3 fused images, kept {COUNT - 4} from before" in err) == (3, True), err
    assert f"{BAD}.png" in err, "what is bad is listed again"
    assert {path.name: path.read_bytes() for path in out.glob("*.png")} == whole
    assert (out / "4.png").stat().st_mtime_ns == kept


def test_a_run_is_not_resumed_in_another_way(archive, tmp_path, run):
    out = tmp_path / "out"
    run(*arguments(archive, out, "--resume"))
    for more in (["--model", "nano-fp32"], ["--polarity", "black"]):
        status, _, err = run(*arguments(archive, out, "--resume", *more))
        assert (status, "another model or other settings" in err) == (1, True), err
    (out / RECORD).unlink()
    status, _, err = run(*arguments(archive, out, "--resume"))
    assert (status, "a run without --resume" in err) == (1, True), err


def test_clusters_are_named():
    assert distribution(None, None) is None
    with pytest.raises(InputError, match="known are ray"):
        distribution("spark", None)
    with pytest.raises(InputError, match="needs --engine-cluster"):
        distribution(None, "10.0.0.1:6379")


@pytest.mark.skipif(is_installed("ray"), reason="Ray is installed")
def test_without_ray_there_is_a_hint():
    with pytest.raises(BackendError, match=r"pip install 'ray\[data\]'"):
        distribution("ray", None)


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_named(archive, tmp_path, run):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    status, _, err = run(
        *arguments(archive, tmp_path / "out", "--engine-cluster", "ray", "--address", "nonsense")
    )
    assert (status, "no Ray cluster at nonsense" in err) == (1, True), err


@pytest.fixture(scope="module")
def cluster():
    """Start a cluster with two workers on this machine."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_cluster_fuses_as_this_machine_does(archive, tmp_path, run):
    local, far = tmp_path / "local", tmp_path / "far"
    assert run(*arguments(archive, local))[0] == 3
    status, _, err = run(*arguments(archive, far, "--engine-cluster", "ray", "--resume", "--jobs", "2"))
    assert status == 3, err
    assert f"Not fused, 1 of {COUNT}" in err
    assert f"{BAD}.png" in err
    fused = {path.name: read_image(path) for path in local.glob("*.png")}
    assert len(fused) == COUNT - 1
    assert fused.keys() == {path.name for path in far.glob("*.png")}
    assert all(np.array_equal(image, read_image(far / name)) for name, image in fused.items())
    (far / "1.png").unlink()
    status, _, err = run(*arguments(archive, far, "--engine-cluster", "ray", "--resume", "--jobs", "2"))
    assert f"Wrote 1 fused image, kept {COUNT - 2} from before" in err


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_cluster_scores_as_this_machine_does(archive, tmp_path, run):
    tables: list[str] = []
    common = ["--metrics", "EN,SSIM", "--no-baselines", "--skip-bad"]
    for more in (["--jobs", "1"], ["--engine-cluster", "ray", "--jobs", "2"]):
        table = tmp_path / f"{len(tables)}.csv"
        sources = ["--ir", str(archive / "ir"), "--vis", str(archive / "vis"), "--limit", "9"]
        status, _, err = run("evaluate", *sources, *common, "--csv", str(table), *more)
        assert status == 0, err
        tables.append(table.read_text())
    assert tables[0] == tables[1]
    assert tables[0].count("\n") > 8
