"""Fuse two images: python examples/fuse_pair.py ir.png vis.png fused.png"""

import sys

from edgefuse import Fuser
from edgefuse.images import read_visible, write_image
from edgefuse.thermal import read_infrared


def main(ir: str, vis: str, out: str) -> None:
    with Fuser() as fuse:
        write_image(out, fuse(read_infrared(ir), read_visible(vis)))


if __name__ == "__main__":
    main(*sys.argv[1:])
