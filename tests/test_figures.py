"""The numbers of README and docs are those of the JSON beside them."""

import json
import re
from typing import Any

import numpy as np
import pytest
from onnx import helper

from bench import figures, peers, quality, write_benchmarks
from bench.figures import BLOCK, FIGURES, documents, filled
from edgefuse import evaluate as evaluation
from edgefuse.evaluate import Settings
from edgefuse.images import read_image, write_image
from edgefuse.tables import Table


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_tables_are_those_of_the_json(path):
    text = path.read_text("utf-8")
    assert filled(text) == text, f"{path.name} differs from its JSON: run make figures"


def test_documents_have_figures_and_name_known_ones():
    names = [found[2] for path in documents() for found in BLOCK.finditer(path.read_text("utf-8"))]
    assert "benchmarks/models" in names
    assert set(names) <= FIGURES.keys()


def test_a_changed_number_is_noticed():
    path = next(path for path in documents() if path.name == "benchmarks.md")
    text = path.read_text("utf-8")
    block = BLOCK.search(text)
    assert block is not None
    digit = re.compile(r"\d(?=\.\d)").search(text, block.start())
    assert digit is not None
    wrong = text[: digit.start()] + str((int(digit[0]) + 1) % 10) + text[digit.end() :]
    assert filled(wrong) == text != wrong


def test_measuring_continues_and_follows_new_weights(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for side in ("ir", "vis"):
        (tmp_path / "one" / side).mkdir(parents=True)
        for k in range(3):
            image = np.kron(rng.integers(0, 256, (8, 9), dtype=np.uint8), np.ones((8, 8), np.uint8))
            write_image(tmp_path / "one" / side / f"{k}.png", image)
    (tmp_path / "theirs" / "one").mkdir(parents=True)
    for k in range(3):
        write_image(
            tmp_path / "theirs" / "one" / f"{k}.png", read_image(tmp_path / "one" / "ir" / f"{k}.png")
        )
    quick = Settings(metrics=("MI",))
    monkeypatch.setattr(quality, "PARTS", (quality.Part("one", "clean", quick, ("nano",)),))
    monkeypatch.setattr(quality, "BASELINES", ("maximum", "copy-ir"))
    weights = {"nano": "first"}
    monkeypatch.setattr(quality, "_weights", lambda candidate: weights.get(candidate.name))
    done: list[str] = []
    evaluate = evaluation.evaluate

    def counted(ir, vis, candidates, settings, **more):
        done.extend(c.name for c in candidates)
        if done == ["nano", "maximum", "copy-ir"]:
            raise KeyboardInterrupt
        return evaluate(ir, vis, candidates, settings, **more)

    monkeypatch.setattr(evaluation, "evaluate", counted)
    out, others = tmp_path / "quality.json", [str(tmp_path / "theirs")]
    arguments: dict[str, Any] = {"data": tmp_path, "out": out, "only": [], "skip": [], "peer": others}
    with pytest.raises(KeyboardInterrupt):
        quality.main(**arguments)
    assert done == ["nano", "maximum", "copy-ir"]
    part = json.loads(out.read_text())["sets"]["one"]["clean"]
    assert list(part["means"]["clean"]) == ["nano", "maximum"]
    done.clear()
    quality.main(**arguments)
    part = json.loads(out.read_text())["sets"]["one"]["clean"]
    assert done == ["copy-ir", "theirs"]
    assert part["means"]["clean"]["theirs"] == part["means"]["clean"]["copy-ir"]
    assert (part["pairs"], part["measured"]["nano"]["weights"]) == (3, "first")
    weights["nano"] = "second"
    quality.main(**arguments)
    assert done[2:] == ["nano"]
    quality.main(**arguments)
    assert done[2:] == ["nano"]


def test_each_table_says_when_and_at_which_commit_a_row_was_measured():
    part = {
        "measured": {
            "nano": {"date": "2026-11-29", "commit": "bbbbbbb"},
            "cnn": {"date": "2026-11-28", "commit": "aaaaaaa"},
            "average": {"date": "2026-11-28", "commit": "aaaaaaa"},
        }
    }
    text = figures._captioned(Table("", [], []), "one", part, part["measured"])
    assert "one; measured 2026-11-28 at commit aaaaaaa, nano 2026-11-29 at bbbbbbb, " in text


def test_published_networks_stand_among_ours_and_are_marked():
    lines = figures.FIGURES["peers/roadscene/test"]().splitlines()
    names = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    assert {
        "nano",
        "maximum",
        "laplacian",
        "*copy-ir*",
        "SAGE †",
        "the paper's CNN, in tiles, stretched †",
    } <= {*names}
    (sage,) = (line for line in lines if line.startswith("| SAGE"))
    assert "Wu et al., CVPR 2025" in sage
    assert "| 0.574 |" in sage


def test_files_of_others_are_timed_beside_ours(tmp_path, capsys):
    image = [helper.make_tensor_value_info(n, 1, ["n", 1, "h", "w"]) for n in ("ir", "vis", "fused")]
    graph = helper.make_graph([helper.make_node("Max", ["ir", "vis"], ["fused"])], "g", image[:2], image[2:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "theirs.onnx").write_bytes(made.SerializeToString())
    out = tmp_path / "times.json"
    peers.main([str(tmp_path / "theirs.onnx")], "64x48", 0.01, out)
    times = json.loads(out.read_text())["seconds"]
    assert {name: len(seen) for name, seen in times.items()} == dict.fromkeys(times, len(times["nano"]))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["nano", "cnn", "theirs"] == list(times)


def test_a_part_that_is_measured_again_replaces_its_own_cases(tmp_path, monkeypatch):
    monkeypatch.setattr(
        write_benchmarks, "cost", lambda name: {"weights": 1, "multiplications": 2, "bytes": 3}
    )
    machine = {"cpu": "one", "usable_cores": 2, "versions": {"onnxruntime": "1", "openvino": "2"}}

    def enter(when, times, precision="fp32"):
        facts = {"table": "naive", "model": "cnn", "engine": "cpu", "threads": 1, "precision": precision}
        info = {"facts": facts | {"cores_used": 1.0}, "times": times}
        report = {
            "datetime": when,
            "machine_info": {"edgefuse": machine},
            "benchmarks": [{"extra_info": info}],
        }
        (tmp_path / "report.json").write_text(json.dumps(report))
        write_benchmarks.enter(tmp_path / "report.json", tmp_path / "benchmarks.json")
        return json.loads((tmp_path / "benchmarks.json").read_text())

    slow, fast = [[0.4], [0.8, 0.8]], [[0.1, 0.1], [0.4]]
    enter("2026-11-01T10:00:00", {"naive": slow, "ours": slow})
    enter("2026-11-01T10:00:00", {"naive": slow, "ours": slow}, "int8")
    facts = enter("2026-11-02T10:00:00", {"naive": slow, "ours": fast})
    assert [row["session"][:10] for row in facts["rows"]] == ["2026-11-02", "2026-11-01"]
    # Turn by turn: 0.4 / 0.1 and 0.8 / 0.4.
    assert facts["rows"][0]["ours"]["ratio"] == [1.5, 3.0, 4.5]
    text = write_benchmarks.table("naive", facts)
    assert "3.0 (1.5 … 4.5)" in text
    assert "Measured 2026-11-02 at commit " in text
    assert "; other rows 2026-11-01 at commit " in text
    facts = enter("2026-11-03T10:00:00", {"naive": slow, "ours": fast}, "int8")
    assert [key[:10] for key in facts["sessions"]] == ["2026-11-02", "2026-11-03"]
