import logging
import re
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from edgefuse import packages
from edgefuse.errors import BackendError, InputError
from edgefuse.metrics import METRICS, Metric, Triple, score
from edgefuse.packages import INSTALL_HINTS, Registry, is_installed, require


def brightness(triple: Triple) -> float:
    return float(triple.fused.image.mean())


BRIGHTNESS = Metric("Brightness", "mean grey level", "grey level", "this test", brightness, by_source=False)


def entry_point(name: str, value: str) -> metadata.EntryPoint:
    return metadata.EntryPoint(name, value, "edgefuse.toys")


def test_entry_points_are_read_when_needed_and_never_replace_our_own(monkeypatch, caplog):
    calls = []

    def found(group: str) -> list[metadata.EntryPoint]:
        calls.append(group)
        return [entry_point("gap", "math:pi"), entry_point("own", "math:e"), entry_point("bad", "no_such:x")]

    monkeypatch.setattr(packages, "entry_points", found)
    toys = Registry("toy", "edgefuse.toys", {"own": 1.0})
    assert toys["own"] == 1
    assert not calls
    with caplog.at_level(logging.WARNING):
        assert toys["gap"] == pytest.approx(3.14159, abs=1e-4)
    assert list(toys) == ["own", "gap"]
    assert calls == ["edgefuse.toys"]
    assert "toy own of math:e is ignored: the name is taken" in caplog.text
    assert "toy bad cannot be loaded from no_such:x" in caplog.text


def test_an_unknown_name_lists_the_known_ones():
    toys = Registry("toy", "edgefuse.toys", {"Ball": 1})
    assert toys.named("ball") == 1
    with pytest.raises(InputError, match=r"unknown toy 'Bal' \(did you mean 'Ball'\?\): known are Ball"):
        toys.named("Bal")


def test_a_metric_of_ones_own_is_scored(monkeypatch):
    monkeypatch.setitem(METRICS, "Brightness", BRIGHTNESS)
    image = np.full((32, 32), 70, np.uint8)
    assert score(image, image, image, metrics=["brightness"]) == {"Brightness": 70}
    assert "Brightness" in score(image, image, image)


def test_every_extra_has_an_install_hint():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    assert set(re.findall(r"^(\w+) =", section, re.M)) - {"dev", "docs", "opencv"} == set(INSTALL_HINTS)


def test_a_missing_package_is_named_with_what_brings_it():
    assert is_installed("numpy")
    require("cpu", "numpy")
    with pytest.raises(BackendError, match="no_such_package is not installed: pip install onnxruntime"):
        require("cpu", "numpy", "no_such_package")
