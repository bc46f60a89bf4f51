"""Write a video, and do something of your own with each picture.

python examples/own_output.py ir.mp4 vis.mp4 out.mp4
"""

import sys

from edgefuse import Fuser
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.live import connect, run
from edgefuse.runtime.sinks import Callback, OutputOptions, open_output


def main(ir: str, vis: str, out: str) -> None:
    brightness: list[float] = []

    def look(frame: FusedFrame) -> None:
        """Run in a thread of its own; the stream never waits for it."""
        brightness.append(float(frame.fused.mean()))

    with Fuser() as fuse:
        sinks = [open_output(out, OutputOptions()), Callback(look)]
        report = run(connect(ir, "ir"), connect(vis, "vis"), fuse, sinks)
    print(f"{report.frames} frames, mean brightness {sum(brightness) / max(1, len(brightness)):.1f}")
    print(f"fusing takes {1000 * report.stages['fuse'].p50:.1f} ms (median)")


if __name__ == "__main__":
    main(*sys.argv[1:])
