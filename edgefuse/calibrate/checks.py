"""What no map can be estimated from, and the sentence that says so."""

from collections.abc import Sequence

import cv2
import numpy as np

from edgefuse.calibrate.features import Picture
from edgefuse.errors import InputError
from edgefuse.images import Image, fit_size, luma

FLAT = 2.0
"""Standard deviation in grey levels below which a picture shows nothing."""
COLOUR = 6.0
"""Mean difference of colour channels in grey levels from which on a picture is in colour."""
SAME = 0.98
"""Correlation of grey values from which on both pictures come from one camera."""
SHARP = 0.12
"""Part of the gradient that a slight blur removes from a sharp picture, at least."""


class CalibrationError(InputError):
    """The pictures do not determine the map; the message says why, and what to do."""


def refuse_unusable(pairs: Sequence[tuple[Image, Image]]) -> None:
    """Raise `CalibrationError` for pictures that need no look at their edges.

    Args:
        pairs: (infrared, visible), uint8, grey or BGR.
    """
    for index, what in enumerate(("infrared", "visible")):
        deviations = [float(_centre(luma(pair[index])).std()) for pair in pairs]
        if max(deviations) < FLAT:
            raise CalibrationError(
                f"the {what} pictures are uniform (they vary by {max(deviations):.1f} grey levels): a "
                "covered lens, a closed shutter or a plain wall; show the camera buildings, people or cars"
            )
    if all(_same(ir, vis) for ir, vis in pairs):
        raise CalibrationError(
            "both sources give the same pictures: --ir and --vis name one camera; give the infrared one to "
            "--ir and the visible one to --vis"
        )
    if _colour([ir for ir, _ in pairs]) > COLOUR and _colour([vis for _, vis in pairs]) < COLOUR / 3:
        raise CalibrationError(
            "the cameras look swapped: --ir gives pictures in colour and --vis grey ones; exchange the two, "
            "or set an infrared camera that paints in false colours to white-hot"
        )


def why_not(
    pairs: Sequence[tuple[Picture, Picture]], z: float, share: float, scenes: int, least: float
) -> str:
    """Return the sentence for pictures whose edges agree no better than chance."""
    found = f"the edges of both pictures agree no better than by chance (z {z:.1f}, {least:g} is needed"
    found += f"; {share:.0%} of the edges)"
    blurred = [what for i, what in enumerate(("infrared", "visible")) if _blurred([p[i].grey for p in pairs])]
    if blurred:
        return f"{found}: the {' and '.join(blurred)} pictures are blurred; focus, and hold the rig still"
    if scenes < 3:
        seen = "one scene" if scenes == 1 else f"{scenes} scenes"
        return (
            f"{found} on {seen}: turn the rig to three or more scenes with buildings, trees, people or cars "
            "at 10 m or more, and see that both cameras look the same way"
        )
    return (
        f"{found} on {scenes} scenes: see that both cameras look the same way at the same time, that their "
        "fields of view differ by less than a factor of 2.5, and that the pairs belong together"
    )


def _centre(grey: Image) -> Image:
    height, width = grey.shape
    return grey[height // 16 : height - height // 16, width // 16 : width - width // 16]


def _same(ir: Image, vis: Image) -> bool:
    infrared, visible = (fit_size(luma(image), (160, 120)).astype(np.float32) for image in (ir, vis))
    together = np.corrcoef(cv2.blur(infrared, (3, 3)).ravel(), cv2.blur(visible, (3, 3)).ravel())[0, 1]
    return bool(together > SAME)


def _colour(images: Sequence[Image]) -> float:
    spreads = [
        float((image.max(axis=2) - image.min(axis=2)).mean()) if image.ndim == 3 else 0.0 for image in images
    ]
    return float(np.mean(spreads))


def _blurred(greys: Sequence[Image]) -> bool:
    """Tell whether a blur of one pixel changes next to nothing in one direction."""
    ratios = []
    for grey in greys:
        before, after = grey.astype(np.float32), cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)
        for dx, dy in ((1, 0), (0, 1)):
            sharp, soft = (np.abs(cv2.Sobel(image, cv2.CV_32F, dx, dy)).mean() for image in (before, after))
            ratios.append(1 - float(soft / max(sharp, 1e-6)))
    return bool(min(np.mean(ratios[::2]), np.mean(ratios[1::2])) < SHARP)
