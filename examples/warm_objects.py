"""Say where it is warm, live: python examples/warm_objects.py cam0 cam1 [SECONDS]"""

import sys

import cv2

import edgefuse

WARM = 220
"""Grey level of infrared from which on something counts as warm."""


def main(ir: str = "sim", vis: str = "sim", seconds: str = "5") -> None:
    with edgefuse.live(ir, vis, duration=float(seconds)) as pairs:
        for pair in pairs:
            if pair.ir is None:  # the camera is lost, and `pair.fused` shows the other one
                continue
            found, _ = cv2.findContours(
                (pair.ir > WARM).astype("uint8"), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
            )
            boxes = [cv2.boundingRect(outline) for outline in found if cv2.contourArea(outline) > 20]
            print(f"{pair.timestamp:10.2f} s, {pair.state}: {len(boxes)} warm objects {boxes[:3]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
