"""A short soak; `bench/soak.py` runs the long one."""

import importlib.util
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[1] / "bench" / "soak.py"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory and descriptors from /proc")
def test_a_thousand_frames_with_faults_leak_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("soak", SOAK)
    assert spec is not None
    assert spec.loader is not None
    soak = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "soak", soak)
    spec.loader.exec_module(soak)
    monkeypatch.setattr(soak, "MEAN_FRAMES", 50)
    monkeypatch.setattr(soak, "LENGTH", 25)
    result = soak.soak(1000, seed=3, fps=200.0)
    assert list(result.broken()) == []
    assert result.report.frames > 100
    assert sum(result.plans["ir"].faults.values()) >= 3
    assert sum(result.plans["vis"].faults.values()) >= 3
