"""The programs in `examples/` run."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgefuse.images import read_image, write_image
from edgefuse.sim import Rig, RigConfig

EXAMPLES = Path(__file__).parents[1] / "examples"
SIM = "sim?size=64x48&frames=12"
ARGUMENTS = {
    "fuse_pair": ["ir/0.png", "vis/0.png", "fused.png"],
    "warm_objects": [SIM, f"{SIM}&seed=1", "10"],
    "push_frames": ["5"],
    "own_output": [SIM, f"{SIM}&seed=1", "out.mp4"],
    "compare_models": ["ir", "vis"],
}
SAYS = {
    "warm_objects": "warm objects",
    "push_frames": "(256, 320, 3)",
    "own_output": "12 frames, mean brightness",
    "compare_models": "maximum EN ",
}


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_every_example_runs(name: str, tmp_path: Path) -> None:
    rig = Rig(RigConfig(size=(64, 48)))
    for role in ("ir", "vis"):
        (tmp_path / role).mkdir()
        for n in range(2):
            write_image(tmp_path / role / f"{n}.png", rig.frame("ir" if role == "ir" else "vis", n))
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *ARGUMENTS[name]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert SAYS.get(name, "") in done.stdout
    if name == "fuse_pair":
        assert read_image(tmp_path / "fused.png").shape == (48, 64, 3)
