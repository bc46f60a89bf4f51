import cv2
import numpy as np
import pytest

from edgefuse import Fuser
from edgefuse.align import Aligned, Resize, overlap, show_visible_outside
from edgefuse.errors import InputError
from edgefuse.images import Image
from edgefuse.runtime.compose import side_by_side
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.live import LiveConfig, run
from edgefuse.runtime.sinks import Callback
from tests.support.shots import both
from tests.test_live import FakeSource


def left_half(ir: Image, vis_shape: tuple[int, int]) -> Aligned:
    """Infrared that covers the left half only, with one soft column."""
    valid = np.zeros(vis_shape, np.uint8)
    valid[:, : vis_shape[1] // 2] = 255
    valid[:, vis_shape[1] // 2] = 51
    return Aligned(Resize()(ir, vis_shape).image, valid)


def test_an_image_that_has_the_size_is_not_copied(pair):
    ir, vis = pair
    aligned = Resize()(ir, vis.shape[:2])
    assert aligned.image is ir
    assert aligned.valid is None
    assert show_visible_outside(vis, ir, None) is vis


@pytest.mark.parametrize("shape", [(40, 50), (400, 500)])
def test_an_image_of_another_size_is_resized(pair, shape):
    aligned = Resize()(np.full(shape, 7, np.uint8), pair[1].shape[:2])
    assert aligned.image.shape == pair[1].shape[:2]
    assert (aligned.image == 7).all()


@pytest.mark.parametrize(("size", "stretched"), [((40, 30), False), ((50, 30), True), ((101, 76), False)])
def test_a_resize_is_logged_once_and_a_stretch_as_what_it_is(size, stretched, caplog):
    resize = Resize()
    for _ in range(2):
        resize(np.zeros(size[::-1], np.uint8), (60, 80))
    (message,) = caplog.messages
    assert message.startswith(f"infrared is resized from {size[0]}x{size[1]} to the visible camera's 80x60")
    assert ("the proportions differ" in message) is stretched


@pytest.mark.parametrize(("ir_shape", "vis_shape"), [((80, 100), (90, 160)), ((45, 80), (120, 100))])
def test_infrared_of_other_proportions_is_fitted_or_cropped(ir_shape, vis_shape, caplog):
    """A circle stays one, in the middle of the picture."""
    ir = np.zeros(ir_shape, np.uint8)
    cv2.circle(ir, (ir_shape[1] // 2, ir_shape[0] // 2), 15, 255, -1)
    wide = vis_shape[1] / vis_shape[0] > ir_shape[1] / ir_shape[0]
    for aspect in ("fit", "crop"):
        aligned = Resize(aspect)(ir, vis_shape)
        assert aligned.image.shape == vis_shape
        scale = (min if aspect == "fit" else max)(v / i for v, i in zip(vis_shape, ir_shape, strict=True))
        x, y, width, height = cv2.boundingRect(cv2.compare(aligned.image, 127, cv2.CMP_GT))
        assert width == pytest.approx(31 * scale, abs=3)
        assert height == pytest.approx(31 * scale, abs=3)
        assert x + width / 2 == pytest.approx(vis_shape[1] / 2, abs=2)
        assert y + height / 2 == pytest.approx(vis_shape[0] / 2, abs=2)
        if aspect == "crop":
            assert aligned.valid is None
        else:
            assert aligned.valid is not None
            covered = (aligned.valid > 0).any(axis=0 if wide else 1)
            assert covered.sum() == pytest.approx(ir_shape[wide] * scale, abs=3)
            assert aligned.valid[vis_shape[0] // 2, vis_shape[1] // 2] == 255
            assert aligned.valid[0, vis_shape[1] // 2] == (255 if wide else 0)
    assert "line up" not in caplog.text
    assert Resize("fit")(ir, ir_shape).image is ir
    with pytest.raises(InputError, match="unknown aspect 'fill'"):
        Resize("fill")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_outside_of_infrared_the_visible_image_shows(shape):
    fused, vis = np.full(shape, 200, np.uint8), np.full(shape, 100, np.uint8)
    shown = show_visible_outside(fused, vis, left_half(np.zeros((20, 30), np.uint8), (20, 30)).valid)
    assert (shown[:, :15] == 200).all()
    assert (shown[:, 15] == 120).all(), "51 of 255 is a fifth of the way"
    assert (shown[:, 16:] == 100).all()
    rows, columns = overlap(left_half(np.zeros((20, 30), np.uint8), (20, 30)).valid)
    assert (rows, columns) == (slice(0, 20), slice(0, 15))


def test_a_fuser_aligns_images(pair):
    ir, vis = pair
    fused = Fuser(align=left_half)(ir, vis)
    half = vis.shape[1] // 2
    np.testing.assert_array_equal(fused[:, half + 1 :], vis[:, half + 1 :])
    assert not np.array_equal(fused[:, :half], vis[:, :half])


def test_a_session_aligns_what_it_fuses_scores_and_shows():
    frames: list[FusedFrame] = []
    report = run(
        FakeSource(6),
        FakeSource(6),
        lambda ir, vis: np.maximum(ir, 100),
        [Callback(frames.append)],
        LiveConfig(),
        align=left_half,
    )
    assert report.stages["align"].count == 6
    for frame in frames:
        ir, vis = both(frame)
        assert ir.shape == vis.shape[:2]
        assert (frame.fused[:, :12] == 100).all()
        assert (frame.fused[:, 13:] == vis[:, 13:]).all()
        assert side_by_side(frame.ir, frame.vis, frame.fused).shape == (16, 72, 3)
    assert [int(both(frame)[0][0, 0]) for frame in frames] == list(range(6))
