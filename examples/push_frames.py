"""Fuse frames that a driver's callback delivers: python examples/push_frames.py [SECONDS]"""

import sys
import threading
import time

import edgefuse
from edgefuse.sim import Rig, RigConfig


def driver(camera: edgefuse.PushSource, role: str, stop: threading.Event) -> None:
    """Stand in for a camera's driver: it calls back with each frame."""
    rig, number = Rig(RigConfig(size=(320, 256))), 0
    while not stop.wait(0.04):
        camera.push(rig.frame("ir" if role == "ir" else "vis", number), timestamp=time.monotonic())
        number += 1


def main(seconds: str = "3") -> None:
    cameras = {role: edgefuse.PushSource(role, fps=25) for role in ("ir", "vis")}
    stop = threading.Event()
    threads = [threading.Thread(target=driver, args=(camera, role, stop)) for role, camera in cameras.items()]
    for thread in threads:
        thread.start()
    try:
        with edgefuse.live(cameras["ir"], cameras["vis"], duration=float(seconds)) as pairs:
            for pair in pairs:
                print(f"{pair.index}: {pair.fused.shape}, {1000 * pair.stats.latency:.0f} ms")
    finally:
        stop.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
