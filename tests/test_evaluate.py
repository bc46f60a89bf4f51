import base64
import csv
import json
import math
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgefuse.degrade import DEGRADATIONS, LEVEL_CHANGES
from edgefuse.errors import InputError, ModelError
from edgefuse.evaluate import (
    BASELINES,
    Candidate,
    Problem,
    Settings,
    baseline,
    best,
    compare,
    evaluate,
    folder,
    named,
    summarise,
    summarise_degraded,
    write_csv,
    write_html,
    write_json,
)
from edgefuse.evaluate.candidates import unique
from edgefuse.evaluate.report import _Fusions
from edgefuse.evaluate.sequence import PairTask, frames_before, in_order
from edgefuse.evaluate.summary import FEWEST, _correlated, _interval, _joins, level_changes
from edgefuse.images import write_image
from edgefuse.metrics import measure_named, score

STEMS = ["f1", "f2", "f3"]


@pytest.fixture
def folders(tmp_path, pair):
    """Three pairs f1, f2, f3; `fused` holds their maximum."""
    rng = np.random.default_rng(3)
    ir, vis = pair[0], np.ascontiguousarray(pair[1][:, :, 1])
    for name in ("ir", "vis", "fused"):
        (tmp_path / name).mkdir()
    for stem in STEMS:
        noisy = np.clip(ir + rng.normal(0, 5, ir.shape), 0, 255).astype(np.uint8)
        write_image(tmp_path / "ir" / f"{stem}.png", noisy)
        write_image(tmp_path / "vis" / f"{stem}.png", vis)
        write_image(tmp_path / "fused" / f"{stem}.png", BASELINES["maximum"](noisy, vis))
    return tmp_path


def run(path, names=("maximum", "average"), settings=None, **options):
    candidates = [named(str(path / n)) if n == "fused" else named(n) for n in names]
    return evaluate(path / "ir", path / "vis", candidates, settings, **options)


def test_the_fusions_by_hand():
    ir, vis = np.array([[200, 0, 10]], np.uint8), np.array([[101, 0, 30]], np.uint8)
    assert BASELINES["average"](ir, vis).tolist() == [[150, 0, 20]]
    assert BASELINES["maximum"](ir, vis).tolist() == [[200, 0, 30]]
    assert BASELINES["ratio"](ir, vis).tolist() == [[167, 0, 25]]
    assert BASELINES["copy-ir"](ir, vis) is ir
    assert BASELINES["copy-vis"](ir, vis) is vis


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("shape", [(16, 16), (17, 33)])
def test_fusing_an_image_with_itself_gives_it_back(name, shape):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(BASELINES[name](image, image), image)


@pytest.mark.parametrize("name", [*BASELINES, "nano"])
def test_unrounded_fusions_are_the_rounded_ones_in_finer_steps(name, pair):
    ir, vis = pair[0], np.ascontiguousarray(pair[1][:, :, 1])
    rounded, exact = (named(name).open(unrounded)("", ir, vis) for unrounded in (False, True))
    assert rounded.dtype == np.uint8
    assert np.abs(exact.astype(float).clip(0, 255) - rounded).max() <= 0.5 + 1e-3
    assert (exact.dtype == np.float32) == (name not in ("maximum", "copy-ir", "copy-vis"))


def test_a_folder_of_fused_images_scores_as_the_fusion_does(folders):
    result = run(folders, ("maximum", "fused"))
    summary = summarise(result)
    for column, mean in summary["maximum"].items():
        assert summary["fused"][column] == pytest.approx(mean, nan_ok=True)
    assert [pair.stem for pair in result.pairs] == STEMS
    assert best({name: row["VIF"] for name, row in summary.items()}, "VIF") == {"maximum", "fused"}


def test_means_are_those_of_score(folders):
    from edgefuse.evaluate.candidates import read_grey

    found = summarise(run(folders, ("average",), Settings("strict", ("EN", "VIF"))))["average"]
    scores = []
    for stem in STEMS:
        ir, vis = (read_grey(folders / side / f"{stem}.png") for side in ("ir", "vis"))
        scores.append(score(BASELINES["average"](ir, vis), ir, vis, "strict"))
    assert list(found) == ["EN", "VIF", "Target"]
    for name in ("EN", "VIF"):
        assert found[name].total == pytest.approx(np.mean([s[name] for s in scores]))
    assert found["VIF"].worst_source <= min(found["VIF"].ir, found["VIF"].vis)
    assert math.isnan(found["EN"].worst_source)


def test_processes_give_the_same_scores(folders):
    settings = Settings(video=True, robust=True, metrics=("VIF",))
    alone, together = (run(folders, settings=settings, jobs=jobs) for jobs in (1, 2))
    assert alone.pairs == together.pairs


def test_progress_is_told(folders):
    told = []
    run(folders, progress=lambda *numbers: told.append(numbers))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_what_cannot_be_scored_is_listed_and_counts_for_none(folders):
    write_image(folders / "ir" / "only-ir.png", np.zeros((20, 20), np.uint8))
    write_image(folders / "vis" / "only-vis.png", np.zeros((20, 20), np.uint8))
    write_image(folders / "fused" / "only-fused.png", np.zeros((20, 20), np.uint8))
    write_image(folders / "fused" / "f2.png", np.zeros((20, 20), np.uint8))
    (folders / "vis" / "f3.png").write_text("no picture")
    result = run(folders, ("maximum", "fused"))
    assert [pair.stem for pair in result.pairs] == ["f1"]
    reasons = {problem.stem: problem.reason for problem in result.problems}
    assert set(reasons) == {"f2", "f3", "only-ir", "only-vis", "only-fused"}
    assert "the fused image of fused is 20x20" in reasons["f2"]
    assert "not an image" in reasons["f3"]
    assert reasons["only-ir"] == "no visible image"


def test_sources_of_two_sizes_are_refused(folders):
    write_image(folders / "ir" / "f1.png", np.zeros((30, 40), np.uint8))
    assert "40x30 and the visible one 101x75" in run(folders).problems[0].reason


def test_nothing_scored_is_an_error(folders):
    for stem in STEMS:
        (folders / "ir" / f"{stem}.png").write_text("no picture")
    with pytest.raises(InputError, match="none of 3 pairs could be scored; f1: "):
        run(folders)


@pytest.mark.parametrize(
    ("names", "options", "error", "message"),
    [
        ((), {}, InputError, "nothing to score"),
        (("average",), {"limit": 0}, InputError, "limit is 0"),
        (("average",), {"jobs": -1}, InputError, "jobs is -1"),
        (("averag",), {}, ModelError, "unknown model 'averag'"),
    ],
)
def test_wrong_arguments(folders, names, options, error, message):
    with pytest.raises(error, match=message):
        run(folders, names, **options)


@pytest.mark.parametrize("wrong", [{"protocol": "papr"}, {"metrics": ("VIFF",)}])
def test_wrong_settings(wrong):
    with pytest.raises(InputError, match="did you mean"):
        Settings(**wrong)


def test_limit_spreads_over_the_stems_and_keeps_frames_together(folders):
    assert [p.stem for p in run(folders, limit=2).pairs] == ["f1", "f2"]
    assert [p.stem for p in run(folders, limit=2, settings=Settings(video=True)).pairs] == ["f1", "f2"]


def test_limit_takes_what_every_folder_has_and_minds_no_others(folders):
    (folders / "fused" / "f1.png").unlink()
    write_image(folders / "fused" / "more.png", np.zeros((20, 20), np.uint8))
    write_image(folders / "ir" / "only-ir.png", np.zeros((20, 20), np.uint8))
    result = run(folders, ("fused",), limit=2)
    assert [pair.stem for pair in result.pairs] == ["f2", "f3"]
    assert result.problems == []
    assert result.passed_over == 3


def test_two_images_of_one_stem_are_a_problem_of_that_pair(folders):
    for side, stem in (("ir", "f1"), ("fused", "f3")):
        write_image(folders / side / f"{stem}.bmp", np.zeros((20, 20), np.uint8))
    result = run(folders, ("fused",))
    assert [pair.stem for pair in result.pairs] == ["f2"]
    assert [problem.stem for problem in result.problems] == ["f1", "f3"]
    assert all("has two images of stem" in problem.reason for problem in result.problems)


def flickers(path, video=True):
    """Which pairs have a flicker."""
    result = run(path, ("maximum",), Settings(metrics=("SD",), video=video))
    return [pair.stem for pair in result.pairs if "Flicker" in pair.scores["maximum"]]


def test_flicker_bridges_no_gap(folders):
    assert flickers(folders, video=False) == []
    for side in ("ir", "vis"):
        for new in ("f4", "f5", "f7", "g8", "f9x"):
            shutil.copy(folders / side / "f1.png", folders / side / f"{new}.png")
    assert flickers(folders) == ["f2", "f3", "f4", "f5"]
    (folders / "vis" / "f2.png").unlink()  # unpaired
    (folders / "vis" / "f4.png").write_text("no picture")  # unreadable
    assert flickers(folders) == []


def test_flicker_of_every_other_frame(folders):
    for side in ("ir", "vis"):
        for stem in STEMS:
            number = 2 * int(stem[1:])
            (folders / side / f"{stem}.png").rename(folders / side / f"clip-{number:04}.png")
    assert flickers(folders) == ["clip-0004", "clip-0006"]


def video_of(*stems):
    return in_order([PairTask(stem, Path(), Path()) for stem in stems])


def test_frames_are_in_order_clip_by_clip():
    tasks = video_of("1left", "1right", "2left", "2right", "10left", "still")
    assert [task.stem for task in tasks] == ["1left", "2left", "10left", "1right", "2right", "still"]


@pytest.mark.parametrize(
    ("stems", "follow"),
    [
        (["a100", "a205", "b1", "b2"], ["b2"]),  # one gap is no step
        (["a0", "a5", "a10", "a15", "a30"], ["a5", "a10", "a15"]),
        (["a0", "a5", "a17", "a30", "b1", "b2"], ["b2"]),  # gaps of all sizes
        (["a0", "a5", "a10", "a11"], ["a11"]),
    ],
)
def test_what_counts_as_the_next_frame(stems, follow):
    tasks = video_of(*stems)
    before = frames_before(tasks, stems)
    assert [task.stem for task, earlier in zip(tasks, before, strict=True) if earlier] == follow


def test_frames_of_one_number_are_refused(folders):
    for side in ("ir", "vis"):
        shutil.copy(folders / side / "f1.png", folders / side / "f01.png")
    with pytest.raises(InputError, match="have the same number"):
        run(folders, settings=Settings(video=True))


@pytest.mark.parametrize("error", [MemoryError(), cv2.error("a size that is too large")])
def test_a_pair_that_is_too_much_is_a_problem_of_that_pair(folders, monkeypatch, error):
    average = BASELINES["average"]
    calls = iter([average, None, average])

    def fuse(ir, vis):
        if (function := next(calls)) is None:
            raise error
        return function(ir, vis)

    monkeypatch.setitem(BASELINES, "average", fuse)
    result = run(folders, ("average",))
    assert [pair.stem for pair in result.pairs] == ["f1", "f3"]
    assert [problem.stem for problem in result.problems] == ["f2"]
    assert "memory" in result.problems[0].reason or "too large" in result.problems[0].reason


def test_a_video_without_consecutive_frames_is_refused(folders):
    with pytest.raises(InputError, match="none of 1 pair follows another"):
        run(folders, limit=1, settings=Settings(video=True))


def test_flicker_needs_a_frame_before(folders):
    result = run(folders, ("maximum",), Settings(video=True))
    assert ["Flicker" in pair.scores["maximum"] for pair in result.pairs] == [False, True, True]
    assert summarise(result)["maximum"]["Flicker"] == pytest.approx((0, *[math.nan] * 3, 0, 2), nan_ok=True)


def test_degraded_sources_are_scored_against_the_clean_ones(folders):
    result = run(folders, ("maximum", "copy-vis", "fused"), Settings(robust=True))
    means, clean = summarise_degraded(result), summarise(result)
    assert "fused" not in means["noise"]
    assert means["noise"]["maximum"]["VIF"].total < clean["maximum"]["VIF"].total
    assert means["noise"]["copy-vis"]["VIF"] == pytest.approx(clean["copy-vis"]["VIF"])
    assert means["noise"]["maximum"]["VIF"].worst_source <= means["noise"]["maximum"]["VIF"].ir
    assert "EN" not in means["noise"]["maximum"]
    assert summarise_degraded(run(folders)) == {}


def test_dependence_on_infrareds_level(folders):
    names = ("maximum", "copy-vis", "matched-laplacian-vis")
    found = level_changes(run(folders, names, Settings(robust=True)))
    assert set(found["copy-vis"].values()) == {0}
    assert found["maximum"]["mean"] > 4 * found["matched-laplacian-vis"]["mean"] > 0
    assert found["maximum"]["worst"] == max(found["maximum"][change] for change in LEVEL_CHANGES)
    assert level_changes(run(folders)) == {}


def test_comparison_is_paired(folders):
    result = run(folders, ("average", "maximum"))
    there, back = compare(result, "average", "maximum"), compare(result, "maximum", "average")
    for column, difference in there.columns.items():
        assert math.isnan(difference.low)  # three pairs are too few for an interval
        assert not difference.certain
        assert difference.mean == pytest.approx(difference.b - difference.a)
        assert back.columns[column].mean == pytest.approx(-difference.mean)
        assert back.columns[column].wins == pytest.approx(1 - difference.wins)
    again = compare(result, "average", "maximum")
    assert [d.mean for d in again.columns.values()] == [d.mean for d in there.columns.values()]
    same = compare(run(folders, ("maximum", "fused")), "maximum", "fused").columns["VIF"]
    assert (same.mean, same.wins, same.pairs) == (0, 0.5, 3)
    with pytest.raises(InputError, match="unknown candidate 'ratio'"):
        compare(result, "ratio", "maximum")


@pytest.mark.parametrize("pairs", [FEWEST, 50])
def test_interval_covers_the_truth_about_as_often_as_it_says(pairs):
    rng = np.random.default_rng(0)
    intervals = [_interval([rng.normal(1, 2, pairs)], seed) for seed in range(100)]
    assert 85 <= sum(low < 1 < high for low, high in intervals) <= 99
    assert math.isnan(_interval([np.ones(FEWEST - 1)], 0)[0])


def test_intervals_of_a_video_resample_blocks_of_frames():
    """Of values that resemble their neighbours, single ones would give intervals that are far too narrow."""
    rng = np.random.default_rng(0)
    covered = {"blocks": 0, "single": 0}
    for seed in range(12):
        values = np.zeros(400)
        for k in range(1, 400):
            values[k] = 0.8 * values[k - 1] + rng.normal()
        for kind, block in (("blocks", _correlated([values])), ("single", 1)):
            low, high = _interval([values], seed, block)
            covered[kind] += low < 0 < high
    assert covered["single"] < 8 <= 10 <= covered["blocks"]
    assert _correlated([rng.normal(size=400)]) == 1
    assert _correlated([np.ones(400)]) == 1
    assert math.isnan(_interval([values[:40]], 0, block=5)[0])


def test_blocks_of_frames_run_over_no_joins():
    """Clips that each stand at one level: over joins a block would be a mixture, and the interval narrow."""
    levels = np.random.default_rng(0).normal(size=20)
    clips = [np.full(12, level) for level in levels]
    assert _interval(clips, 0, block=12) == pytest.approx(_interval([levels], 0, block=1), abs=0.05)
    assert _interval(clips, 0, block=500) == _interval(clips, 0, block=12)
    zigzag = [np.array([1.0, 0.0])] * 40  # what follows itself over the joins only
    assert _correlated(zigzag) == 1
    mixed = [*clips, *np.zeros((300, 1))]
    middle = np.concatenate(mixed).mean()
    low, high = _interval(mixed, 0, block=12)
    assert (low + high) / 2 == pytest.approx(middle, abs=0.03)  # a value of a short run counts as any other


def test_frames_are_compared_in_the_order_of_time(tmp_path):
    rng = np.random.default_rng(0)
    names = {"plain": lambda k: f"{k}", "padded": lambda k: f"{k:04}"}
    level = 0.0
    for k in range(1, 121):
        level = 0.9 * level + rng.normal()
        ir, vis = (np.clip(rng.normal(120 + s * level, 20, (16, 16)), 0, 255) for s in (6, 1))
        for kind, name in names.items():
            for side, image in (("ir", ir), ("vis", vis)):
                (tmp_path / kind / side).mkdir(parents=True, exist_ok=True)
                write_image(tmp_path / kind / side / f"{name(k)}.pgm", image.astype(np.uint8))
    found = {}
    for kind in names:
        result = run(tmp_path / kind, ("copy-ir", "copy-vis"), Settings(metrics=("SD", "CC"), video=True))
        assert [pair.stem for pair in result.pairs] == [names[kind](k) for k in range(1, 121)]
        found[kind] = compare(result, "copy-ir", "copy-vis").columns
    assert found["plain"] == found["padded"]


def test_left_out_frames_end_a_run(folders):
    for side in ("ir", "vis"):
        for k in range(4, 8):
            shutil.copy(folders / side / "f1.png", folders / side / f"f{k}.png")
    (folders / "vis" / "f4.png").write_text("no picture")
    pairs = run(folders, settings=Settings(metrics=("SD",), video=True)).pairs
    assert [pair.stem for pair in pairs] == ["f1", "f2", "f3", "f5", "f6", "f7"]
    assert _joins(pairs) == [3]


def test_comparison_knows_a_video(folders):
    frames = compare(run(folders, settings=Settings(video=True)), "average", "maximum")
    assert all(difference.block >= 1 for difference in frames.columns.values())
    apart = compare(run(folders, settings=Settings("strict")), "average", "maximum")
    assert {difference.block for difference in apart.columns.values()} == {1}
    assert (frames.protocol, apart.protocol) == ("field", "strict")


def test_flicker_is_judged_under_the_protocol(tmp_path):
    # A small hot spot in every second frame: only a stretch of each image makes the rest flicker.
    still = np.tile(np.linspace(60, 120, 64).astype(np.uint8), (48, 1))
    for k in range(3):
        ir = still.copy()
        ir[10:14, 10:14] += 130 * (k % 2)
        for side, image in (("ir", ir), ("vis", still)):
            (tmp_path / side).mkdir(exist_ok=True)
            write_image(tmp_path / side / f"{k}.png", image)
    flickers = {}
    for protocol in ("field", "paper"):
        settings = Settings(protocol, ("SD",), video=True)
        result = evaluate(tmp_path / "ir", tmp_path / "vis", [named("average")], settings)
        flickers[protocol] = summarise(result)["average"]["Flicker"].total
    assert flickers["field"] < 0.1
    assert flickers["paper"] > 10


def test_json_and_csv_hold_every_score(folders):
    result = run(folders, settings=Settings("paper", video=True, robust=True))
    write_json(folders / "e.json", result, compare(result, "maximum", "average"))
    write_csv(folders / "e.csv", result)
    data = json.loads((folders / "e.json").read_text())
    assert data["protocol"]["name"] == "paper"
    assert data["candidates"][0]["mean"]["EN"]["worst_source"] is None
    assert (data["compare"]["a"], data["compare"]["b"]) == ("maximum", "average")
    assert data["compare"]["columns"]["VIF"]["pairs"] == 3
    rows = list(csv.DictReader((folders / "e.csv").read_text().splitlines()))
    assert Counter(row["sources"] for row in rows) == dict.fromkeys(("clean", *DEGRADATIONS), 6)
    first = data["pairs"][0]
    for sources, scores in (("clean", first["scores"]), ("noise", first["degraded"]["noise"])):
        row = next(r for r in rows if (r["stem"], r["candidate"], r["sources"]) == ("f1", "maximum", sources))
        for part in ("ir", "vis", "worst_source"):
            assert float(row[f"VIF_{part}"]) == scores["maximum"]["VIF"][part]
        assert row["VIF_worst_source"] == min(row["VIF_ir"], row["VIF_vis"])
        assert "EN_worst_source" not in row
    assert rows[0]["Flicker"] == ""
    for means in (data["candidates"][0]["mean"], data["degraded"]["noise"]["maximum"]):
        assert 0 < means["VIF"]["worst_source"] <= min(means["VIF"]["ir"], means["VIF"]["vis"])
    with pytest.raises(InputError, match="there is no folder"):
        write_csv(folders / "absent" / "e.csv", result)


def test_candidates_of_one_name_are_told_apart(tmp_path):
    paths = [tmp_path / "a" / "out", tmp_path / "b" / "out"]
    candidates = unique([folder(paths[0]), folder(paths[1]), baseline("ratio"), folder(paths[0])])
    assert [c.name for c in candidates] == [f"folder {paths[0]}", f"folder {paths[1]}", "ratio"]
    assert named("average") == Candidate("average", "baseline")
    assert named("some/model.onnx").name == "model"


class _Page(HTMLParser):
    """Counts tags, collects addresses, and checks that tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open: list[str] = []
        self.count: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.count[tag] += 1
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        assert tag != "img" or dict(attributes)["alt"]
        if tag not in ("meta", "img", "rect", "circle", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.count[tag] += 1

    def handle_endtag(self, tag):
        if tag != "rect":
            assert self.open.pop() == tag


def test_the_report_is_one_file_with_tables_plots_and_pictures(folders):
    settings = Settings(robust=True, video=True)
    result = run(folders, ("average", "maximum", "fused"), settings)
    result.problems.append(Problem("<script>", "why & how"))
    write_html(folders / "e.html", result, compare(result, "average", "maximum"))
    text = (folders / "e.html").read_text()
    page = _Page(text)
    assert page.count["svg"] == len(settings.columns) + 6  # distributions, and bars by source
    titles = re.findall(r'<svg viewBox="0 0 (\d+) .*?class="title" x="0" y="15">([^<]*)<', text)
    assert len(titles) == page.count["svg"]
    for width, title in titles:
        assert 6.7 * len(title) < int(width), f"of 12 pixels this is cut off: {title}"
    assert page.count["figure"] == 3 * 5 + 3 * 4  # worst and best; the contact sheet
    judging = [c for c in settings.columns if measure_named(c).compares]
    assert page.count["table"] == 2 + len(judging) + 2 + 1  # change of the output, by level; left out
    assert page.count["script"] == 0
    assert len(page.addresses) == 2 * 15 + 12
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)


def test_the_report_of_a_single_pair_and_column(folders):
    for stem in STEMS[1:]:
        for side in ("ir", "vis"):
            (folders / side / f"{stem}.png").unlink()
    write_html(folders / "e.html", run(folders, ("copy-ir",), Settings(metrics=("EN",))))
    text = (folders / "e.html").read_text()
    page = _Page(text)
    assert (page.count["svg"], page.count["figure"]) == (2, 3 + 3)
    assert "1 pair, protocol field" in text


def test_every_table_of_the_report_states_its_protocol(folders):
    result = run(folders, ("average", "maximum"), Settings("strict", ("VIF",), robust=True))
    write_html(folders / "e.html", result, compare(result, "average", "maximum"))
    assert (folders / "e.html").read_text().count("protocol strict") == 2 + 5


def test_pictures_are_shown_as_they_are_scored(folders):
    shown = {}
    for protocol in ("field", "paper"):
        result = run(folders, ("average",), Settings(protocol, ("VIF",)))
        panel = _Fusions(result, result.candidates).panels(result.pairs[0], "VIF")[2]
        assert panel.name == "average"
        data = base64.b64decode(panel.whole.partition(",")[2])
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        shown[protocol] = int(image.max()) - int(image.min())
    assert shown["paper"] > shown["field"] + 20


def test_axes_have_round_ticks():
    from edgefuse.evaluate.report import _step

    assert [_step(span) for span in (0.9, 1, 5, 7.9, 100)] == [0.2, 0.2, 1, 1, 20]
