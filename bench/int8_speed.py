"""How many times as fast as the fp32 file each engine runs the int8 one: what a model's card says.

    python -m bench.int8_speed [--model nano] [--size 640x480] [--threads 2] [--rounds 20]

Image to image; both files take turns, so a busy machine slows both down; the median of each counts.
By its name an engine takes the int8 file of a model if its card says that this engine runs it faster.
"""

import argparse
import time
from statistics import median

from edgefuse import Fuser
from edgefuse.runtime.engines import ENGINES
from edgefuse.sim import Rig, RigConfig

TOGETHER = 10


def speed(model: str, engine: str, size: tuple[int, int], threads: int, rounds: int) -> float:
    """Return the time of the fp32 file by that of the int8 file."""
    rig = Rig(RigConfig(size=size))
    ir, vis = rig.frame("ir", 3), rig.frame("vis", 3)
    fusers = [Fuser(f"{model}{kind}", threads=threads, engine=engine) for kind in ("-fp32", "-int8")]
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):
        for fuser, taken in zip(fusers, seconds, strict=True):
            for _ in range(TOGETHER):
                begin = time.perf_counter()
                fuser(ir, vis)
                taken.append(time.perf_counter() - begin)
    return median(seconds[0]) / median(seconds[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    for name, engine in ENGINES.items():
        if engine.missing() is None and name != "tensorrt":
            ratio = speed(args.model, name, (width, height), args.threads, args.rounds)
            print(f"{name}: {ratio:.2f} times as fast in 8 bits")


if __name__ == "__main__":
    main()
