import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgefuse.cli import main
from edgefuse.degrade import DEGRADATIONS
from edgefuse.errors import InputError
from edgefuse.evaluate.candidates import read_grey, read_grey_infrared
from edgefuse.images import read_image, write_image
from edgefuse.metrics import METRICS
from edgefuse.metrics import grey as as_grey
from edgefuse.thermal import read_infrared

STEMS = ["f1", "f2"]


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, pair):
    """Run `edgefuse evaluate` in a folder with two pairs; return its exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name, image in (("ir", pair[0]), ("vis", pair[1])):
        (tmp_path / name).mkdir()
        for stem in STEMS:
            write_image(tmp_path / name / f"{stem}.png", image)

    def call(*args):
        given = ("--ir", "ir", "--vis", "vis", *args)
        jobs = () if "--jobs" in args else ("--jobs", "1")
        monkeypatch.setattr(sys, "argv", ["edgefuse", "evaluate", *given, *jobs])
        with pytest.raises(SystemExit) as caught:
            main()
        output = capsys.readouterr()
        return caught.value.code or 0, output.out, output.err

    return call


def test_the_table_has_the_model_and_every_baseline(run):
    status, out, err = run()
    assert status == 0, err
    for name in ("nano", "average", "maximum", "ratio", "laplacian", "copy-ir", "copy-vis"):
        assert f"\n{name} " in out
    assert "2 pairs, protocol field" in out
    assert "EN ↑" in out
    for option in ("--no-baselines", "--no-trivial"):  # the second is the old name
        assert "average" not in run(option)[1]


def test_a_table_that_is_too_wide_is_printed_in_parts(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = run("--model", "maximum", "--no-baselines", "--metrics", "all")
    assert "…" not in out
    assert max(map(len, out.splitlines()[1:-2])) <= 60
    rows = [line.split()[1:] for line in out.splitlines() if line.startswith("maximum")]
    by_source = sum(metric.by_source for metric in METRICS.values())
    assert sum(map(len, rows)) == len(METRICS) + by_source


def test_everything_at_once(run, tmp_path):
    status, out, err = run(
        *("--model", "average", "--fused", "vis", "--metrics", "all", "--video", "--robust", "--limit", "2"),
        *("--compare", "maximum", "vis", "--json", "e.json", "--csv", "e.csv", "--protocol", "strict"),
    )
    assert status == 0, err
    assert "vis minus maximum" in out
    assert "polarity" in out
    assert "Flicker ↓" in out
    assert json.loads((tmp_path / "e.json").read_text())["protocol"]["name"] == "strict"
    assert (tmp_path / "e.csv").exists()


def test_files_are_written_even_if_nobody_reads_the_table(run, monkeypatch):
    def gone(*_):
        raise InputError("the reader of the table is gone")

    monkeypatch.setattr("edgefuse.tables.show", gone)
    targets = ("--json", "e.json", "--csv", "e.csv", "--table", "e.md", "--html", "e.html")
    assert run("--model", "maximum", "--no-baselines", *targets)[0] == 1
    assert all(Path(name).stat().st_size for name in targets[1::2])


def test_a_named_folder_stands_beside_the_default_model(run):
    status, out, err = run("--fused", "theirs=ir", "--metrics", "EN,SD")
    assert status == 0, err
    assert [f"\n{name} " in out for name in ("nano", "theirs", "copy-ir")] == [True] * 3


def test_a_copy_of_one_source_is_never_the_best(run):
    """The copy has the highest PSNR and SSIM of one side."""
    assert run("--model", "average", "--metrics", "core", "--table", "e.md")[0] == 0
    rows = [line for line in Path("e.md").read_text().splitlines() if line.startswith("| ")]
    marked = {row.split("|")[1].strip() for row in rows if "**" in row}
    assert marked
    assert any("copy-ir" in row for row in rows)
    assert not [name for name in marked if "copy" in name]


def test_bad_pairs_are_listed_and_fail_unless_skipped(run):
    cv2.imwrite("ir/f1.png", np.zeros((40, 50), np.uint8))
    cv2.imwrite("ir/f3.png", np.zeros((40, 50), np.uint8))
    status, out, err = run("--model", "average")
    assert status == 3
    assert "1 pair," in out
    assert "f1: the infrared image is 50x40 and the visible one 101x75" in err
    assert "f3: no visible image" in err
    assert run("--model", "average", "--skip-bad")[0] == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--ir", "absent"], "no such folder: absent"),
        (["--model", "nanno"], "did you mean 'nano'"),
        (["--fused", "absent"], "no such folder: absent"),
        (["--protocol", "papr"], "did you mean 'paper'"),
        (["--metrics", "EN,VIFF"], "did you mean 'VIF'"),
        (["--compare", "ratio", "ratio"], "needs two different ones"),
        (["--json", "absent/e.json"], "there is no folder absent"),
        (["--csv", "ir"], "it is a folder"),
        (["--limit", "0"], "limit is 0"),
        (["--metrics", ","], "no metric is given"),
        (["--metrics", "EN,Flicker"], "add --video"),
        (["--json", "e", "--csv", "./e"], "for two kinds of results"),
        (["--jobs", "0"], "jobs is 0"),
        (["--model", "ir"], "ir is a folder"),
    ],
)
def test_wrong_options_are_answered_by_one_sentence(run, args, message):
    status, _, err = run(*args)
    assert status == 1
    assert message in err
    assert "Traceback" not in err


def test_a_folder_is_never_taken_for_a_shipped_model(run, tmp_path):
    (tmp_path / "nano").mkdir()
    for stem in STEMS:
        write_image(tmp_path / "nano" / f"{stem}.png", np.zeros((75, 101), np.uint8))
    metrics = ("--metrics", "EN", "--no-baselines")
    scores = {}
    for name, args in {"model": ("--model", "nano"), "default": (), "folder": ("--fused", "nano")}.items():
        status, _, err = run(*args, *metrics, "--json", f"{name}.json")
        assert status == 0, err
        (pair, _) = json.loads((tmp_path / f"{name}.json").read_text())["pairs"]
        scores[name] = {candidate: row["EN"] for candidate, row in pair["scores"].items()}
    assert scores["model"] == scores["default"]
    assert scores["folder"]["model nano"] == scores["model"]["nano"] != scores["folder"]["folder nano"]
    status, out, _ = run("--model", "nano", "--fused", "nano", *metrics)
    assert status == 0
    assert "model nano" in out
    assert "folder nano" in out


def test_names_of_metrics_in_any_case_and_all(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    heads = run("--model", "maximum", "--no-baselines", "--metrics", "psnr,en, ALL,")[1].splitlines()[1]
    columns = heads.replace("↑", "").replace("↓", "").split()
    assert columns[:3] == ["PSNR", "EN", "MI"]
    assert sorted(columns) == sorted(METRICS)


def test_what_is_always_shown_may_be_named(run):
    heads = run("--model", "maximum", "--no-baselines", "--metrics", "EN,target,flicker", "--video")[1]
    assert heads.splitlines()[1].split() == ["EN", "↑", "Target", "↑", "Flicker", "↓"]
    heads = run("--model", "maximum", "--no-baselines", "--metrics", "Target")[1]
    assert heads.splitlines()[1].split() == ["Target", "↑"]


def test_every_bad_pair_is_listed(run):
    for k in range(20):
        write_image(f"ir/only{k}.png", np.zeros((20, 20), np.uint8))
    _, out, err = run("--model", "maximum", "--no-baselines")
    assert err.count("no visible image") == 20
    assert "Not counted towards the limit" not in out
    status, out, err = run("--model", "maximum", "--no-baselines", "--limit", "2", "--html", "e.html")
    assert (status, err) == (0, "")
    assert "Not counted towards the limit: 20 stems that lack a counterpart" in out
    assert "Not counted towards the limit: 20 stems" in Path("e.html").read_text()


def test_empty_columns_say_why(run):
    for stem in STEMS:
        write_image(f"ir/{stem}.png", np.full((75, 101), 90, np.uint8))
    args = ("--model", "maximum", "--no-baselines", "--metrics", "EN", "--video")
    assert "Target is – because no infrared image" in run(*args)[1]
    rng = np.random.default_rng(0)
    for side in ("ir", "vis"):
        for stem in STEMS:  # two cuts
            image = cv2.resize(rng.integers(0, 256, (6, 8), dtype=np.uint8), (101, 75))
            write_image(f"{side}/{stem}.png", image)
    assert "Flicker is – because less than a quarter" in run(*args)[1]


def test_sixteen_bits(run):
    grey = as_grey(read_image("vis/f1.png"))
    for stem in STEMS:
        vis = read_image(f"vis/{stem}.png")
        write_image(f"vis/{stem}.png", vis.astype(np.uint16) * 257)
        assert np.array_equal(read_grey(Path(f"vis/{stem}.png")), as_grey(vis))
        write_image(f"ir/{stem}.png", grey.astype(np.uint16) * 20 + 7000)
    args = ("--model", "maximum", "--no-baselines")
    assert run(*args)[0] == 0
    status, _, err = run(*args, "--video")
    assert status == 1
    assert "has 16 bits" in err
    assert "one scale" in err


def test_twelve_bits_in_sixteen_are_scored_as_they_are_meant(run):
    args = ("--model", "copy-vis", "--no-baselines", "--metrics", "EN,SD")
    for stem in STEMS:
        vis = as_grey(read_image(f"vis/{stem}.png"))
        write_image(f"vis/{stem}.png", np.rint(vis * (4095 / 255)).astype(np.uint16))
    for stem in STEMS:
        assert np.array_equal(read_grey(Path(f"vis/{stem}.png"), bits=12), vis)
    assert run(*args, "--bits", "12")[1] != run(*args)[1]
    assert "'17' is not a number of bits" in run(*args, "--bits", "17")[2]


def test_infrared_in_a_palette_is_scored_as_it_is_fused(run):
    """Of jet the brightness says nothing: half of what is hot would be dark."""
    warmth = read_image("ir/f1.png")
    coloured = cv2.applyColorMap(warmth, cv2.COLORMAP_JET)
    write_image("ir/f1.png", coloured)
    read = read_grey_infrared(Path("ir/f1.png"))
    assert cv2.absdiff(read, warmth).mean() < 3
    assert np.array_equal(read, read_infrared("ir/f1.png"))


def test_workers_are_as_many_as_cores_that_may_be_used():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from edgefuse.machine import usable_cores; print(usable_cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_an_interrupt_ends_the_workers_without_tracebacks(tmp_path, pair):
    for name, image in (("ir", pair[0]), ("vis", pair[1])):
        (tmp_path / name).mkdir()
        for k in range(400):
            write_image(tmp_path / name / f"{k}.png", image)
    code = "from edgefuse.cli import main; main()"
    args = ("evaluate", "--ir", "ir", "--vis", "vis", "--model", "maximum", "--no-baselines", "--jobs", "2")
    command = [sys.executable, "-c", code, *args, "--metrics", "all", "--robust"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while len(_workers(process.pid)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, while the workers still import
    _, err = process.communicate(timeout=60)
    assert process.returncode not in (0, 70)
    assert len(err.splitlines()) == 1, err
    assert "stopped" in err


def _workers(parent):
    """Processes of the pool that have begun to import."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    spawned = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return [pid for pid in spawned if "numpy" in Path(f"/proc/{pid}/maps").read_text()]


def test_worst_served_sources_stand_in_every_table(run):
    _, out, _ = run("--model", "maximum", "--no-baselines", "--metrics", "VIF", "--robust")
    clean, robust, *_ = (line.split() for line in out.splitlines() if line.startswith("maximum"))
    assert len(clean) == 1 + 2 + 3
    assert len(robust) == 1 + 2 * (1 + len(DEGRADATIONS))
    assert out.count("protocol field") == 6  # clean; VIF, each source's, Target, change
    level = [line.split() for line in out.splitlines() if line.startswith("maximum")][-1]
    assert len(level) == 1 + 5 + 4


def test_paths_in_titles_are_not_broken(run, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "40")
    for side in ("ir", "vis"):
        (tmp_path / "a folder of a rather long name").mkdir(exist_ok=True)
        (tmp_path / side).rename(tmp_path / "a folder of a rather long name" / side)
    folder = "a folder of a rather long name"
    args = ("--ir", f"{folder}/ir", "--vis", f"{folder}/vis", "--model", "maximum", "--no-baselines")
    assert f"{folder}/ir + {folder}/vis: 2 pairs" in run(*args)[1]


def test_what_opencv_says_of_damaged_files_stays_unsaid(tmp_path):
    for side in ("ir", "vis"):
        (tmp_path / side).mkdir()
        write_image(tmp_path / side / "good.png", np.full((75, 101), 90, np.uint8))
        for suffix in ("png", "tif", "bmp"):
            path = tmp_path / side / f"{suffix}.{suffix}"
            cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (75, 101), np.uint8))
            path.write_bytes(path.read_bytes()[:3000])
    code = "from edgefuse.cli import main; main()"
    args = ("evaluate", "--ir", "ir", "--vis", "vis", "--model", "maximum", "--no-baselines", "--jobs", "2")
    done = subprocess.run([sys.executable, "-c", code, *args], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3
    first, *others = done.stderr.splitlines()
    assert first == "Left out: 3 of the stems"
    assert len(others) == 3
    assert all(line.endswith("is not an image that can be decoded (3000 bytes)") for line in others)
