"""Archives: fusing on from where a run ended, and the work spread over a Ray cluster."""

import shutil
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


def scored(archive: Path, run, *more: str) -> tuple[str, str]:
    """Return the table of the scores, and what was said."""
    table = archive / "scores.csv"
    sources = ["--ir", str(archive / "ir"), "--vis", str(archive / "vis")]
    common = ["--metrics", "EN,SSIM", "--no-baselines", "--csv", str(table)]
    status, _, err = run("evaluate", *sources, *common, *more)
    assert status in (0, 3), err
    return table.read_text(), err


def test_scoring_goes_on_from_where_it_was_broken_off(archive, tmp_path, run):
    journal = tmp_path / "scores.jsonl"
    resume = ["--jobs", "1", "--resume", str(journal)]
    whole, _ = scored(archive, run, "--jobs", "1")
    _, err = scored(archive, run, *resume, "--limit", "9")
    assert "from before" not in err
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 9 - (BAD in [i * COUNT // 9 for i in range(9)])
    journal.write_bytes(b"".join(lines[:-2]) + b"not a score\n" + lines[-1][:-30])  # killed while writing
    resumed, err = scored(archive, run, *resume)
    assert f"{len(lines) - 3} pairs of {COUNT - 1} kept from before: {journal}" in err
    assert f"{BAD}.png" in err, "what is bad is listed again"
    assert resumed == whole
    again, err = scored(archive, run, *resume)
    assert (again, f"{COUNT - 1} pairs of {COUNT - 1} kept" in err) == (whole, True)


def test_what_has_changed_is_scored_again(archive, tmp_path, run):
    folder = tmp_path / "copy"
    shutil.copytree(archive, folder)
    resume = ["--jobs", "1", "--fused", f"other={folder / 'vis'}", "--resume", str(tmp_path / "scores.jsonl")]
    scored(folder, run, *resume)
    write_image(folder / "ir" / "3.png", np.zeros((32, 40), np.uint8))
    write_image(folder / "vis" / "4.png", np.zeros((32, 40, 3), np.uint8))
    table, err = scored(folder, run, *resume)
    assert f"{COUNT - 3} pairs of" in err
    assert table == scored(folder, run, *resume[:4])[0]


def test_scores_of_another_evaluation_are_not_taken(archive, tmp_path, run):
    journal = tmp_path / "scores.jsonl"
    sources = ["evaluate", "--ir", str(archive / "ir"), "--vis", str(archive / "vis"), "--limit", "2"]
    common = ["--no-baselines", "--jobs", "1", "--resume", str(journal)]
    assert run(*sources, *common, "--metrics", "EN")[0] == 0
    before = journal.read_bytes()
    for more in (["--metrics", "SSIM"], ["--metrics", "EN", "--model", "nano-fp32"]):
        status, _, err = run(*sources, *common, *more)
        assert (status, "is not of an evaluation of the same models" in err) == (1, True), err
    assert journal.read_bytes() == before
    journal.write_bytes(b"a file of somebody")
    status, _, err = run(*sources, *common, "--metrics", "EN")
    assert (status, journal.read_bytes()) == (1, b"a file of somebody"), err
    status, _, err = run(*sources, "--resume", str(tmp_path / "no" / "file"))
    assert (status, "cannot write" in err) == (1, True), err


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_cluster_scores_as_this_machine_does(archive, tmp_path, run):
    far = ["--engine-cluster", "ray", "--jobs", "2", "--resume", str(tmp_path / "scores.jsonl")]
    local, _ = scored(archive, run, "--jobs", "1")
    scored(archive, run, *far, "--limit", "9")
    table, err = scored(archive, run, *far)
    assert table == local
    assert table.count("\n") == COUNT  # a line of names, and one for each but the bad one
    assert f"kept from before: {tmp_path}" in err
    assert f"{BAD}.png" in err
