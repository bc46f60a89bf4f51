"""Maps set by hand: points, boards, and the automatic step on top."""

import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edgefuse.align import distort
from edgefuse.calibrate import Board, Boards, CalibrationError, refine_from
from edgefuse.calibrate.manual import from_points, parse_distortion, straight_points
from edgefuse.cli import app
from edgefuse.errors import InputError
from edgefuse.images import write_image
from edgefuse.sim import Rig, RigConfig

TRUTH = np.array([[1.1, -0.05, -30.0], [0.05, 1.1, -20.0], [0, 0, 1]])
SIZE = (640, 480)


def board_picture(columns, rows, circles=False, side=40):
    """Return a board with a white margin, `[H, W]`."""
    if circles:
        picture = np.full(((rows + 1) * side, (columns + 1) * side), 220, np.uint8)
        for y in range(rows):
            for x in range(columns):
                cv2.circle(picture, ((x + 1) * side, (y + 1) * side), side // 4, 40, -1, cv2.LINE_AA)
        return picture
    y, x = np.mgrid[0 : (rows + 1) * side, 0 : (columns + 1) * side]
    squares = np.where((x // side + y // side) % 2 == 0, 40, 220).astype(np.uint8)
    return cv2.copyMakeBorder(squares, side, side, side, side, cv2.BORDER_CONSTANT, value=220)


def held(board, place, seed, inverted=True):
    """Return what both cameras see of a board at a place: infrared inverted, weak and noisy."""
    rng = np.random.default_rng(seed)
    there = np.array([[0.7, -0.06, place[0]], [0.05, 0.7, place[1]], [2e-5, 4e-5, 1]])
    vis = cv2.warpPerspective(board, there, SIZE, borderValue=120)
    ir = cv2.warpPerspective(board, np.linalg.inv(TRUTH) @ there, SIZE, borderValue=120)
    ir = (255 - ir if inverted else ir) * 0.25 + 90 + rng.normal(0, 1.5, ir.shape)
    return cv2.GaussianBlur(ir, (0, 0), 1).clip(0, 255).astype(np.uint8), cv2.cvtColor(
        vis, cv2.COLOR_GRAY2BGR
    )


PLACES = [(60, 60), (190, 110), (90, 150), (150, 50)]


def error(matrix):
    corners = np.array([[[0, 0], [639, 0], [0, 479], [639, 479]]], float)
    apart = cv2.perspectiveTransform(corners, matrix) - cv2.perspectiveTransform(corners, TRUTH)
    return np.linalg.norm(apart, axis=2).mean()


@pytest.mark.parametrize("layout", ["9x6", "7x7", "7x5:circles"])
@pytest.mark.parametrize("inverted", [False, True], ids=["cut out", "heated"])
def test_a_board_gives_the_map(layout, inverted):
    board = Board.parse(layout)
    seen = Boards(board)
    picture = board_picture(board.columns, board.rows, board.circles)
    for index, place in enumerate(PLACES):
        assert seen.offer(*held(picture, place, index, inverted)), place
    assert not seen.offer(*held(picture, PLACES[0], 9, inverted)), "the same place again"
    assert seen.count == 4
    found = from_points(seen.points)
    assert error(found.matrix) < 0.3
    assert found.residual_px < 0.5


def test_command_uses_the_board(tmp_path):
    for role in ("ir", "vis"):
        (tmp_path / role).mkdir()
    for index, place in enumerate(PLACES):
        for role, image in zip(("ir", "vis"), held(board_picture(9, 6), place, index), strict=True):
            write_image(tmp_path / role / f"{index}.png", image)
    arguments = ["calibrate", "--ir", str(tmp_path / "ir"), "--vis", str(tmp_path / "vis"), "--no-pictures"]
    out = ["--out", str(tmp_path / "rig.json")]
    result = CliRunner().invoke(app, [*arguments, *out, "--board", "9x6"])
    assert result.exit_code == 0, result.output
    assert "4 views of the board" in result.output
    written = json.loads((tmp_path / "rig.json").read_text())
    assert written["model"] == "board"
    assert error(np.array(written["matrix"])) < 0.3
    for index in range(1, len(PLACES)):  # a board that is not there is looked for the longest
        for role in ("ir", "vis"):
            (tmp_path / role / f"{index}.png").unlink()
    for wrong, why in (
        ("8x5", "no picture pair shows"),
        ("1x1", "not COLUMNSxROWS"),
        ("9x6x2", "not COLUMNS"),
    ):
        result = CliRunner().invoke(app, [*arguments, *out, "--board", wrong])
        assert isinstance(result.exception, InputError)
        assert why in str(result.exception)
    for both in (["--refine"], ["--board", "9x6", "--points", "1,1:2,2 5,5:6,6"]):
        assert isinstance(CliRunner().invoke(app, [*arguments, *both]).exception, InputError)


@pytest.mark.parametrize("model", ["similarity", "affine", "homography"])
def test_points_give_each_kind_of_map(model):
    rng = np.random.default_rng(0)
    ir = rng.uniform(0, 400, (12, 2))
    vis = ir @ TRUTH[:2, :2].T + TRUTH[:2, 2]
    found = from_points(np.hstack([ir, vis]), model)
    assert error(found.matrix) < 1e-3
    assert found.model == model
    line = np.hstack([ir[:, :1], ir[:, :1], ir[:, :1], ir[:, :1]])
    with pytest.raises(InputError, match=r"one place or on one line|needs at least"):
        from_points(line[: {"similarity": 1, "affine": 9, "homography": 3}[model]], model)


def test_what_was_set_by_hand_is_refined():
    rig = Rig(RigConfig(seed=3, scale=0.8, rotation=4.0, shift=(40, -25)))
    pair = (rig.frame("ir", 40), rig.frame("vis", 40))
    rough = np.array([[1, 0, 4.0], [0, 1, -3.0], [0, 0, 1]]) @ rig.homography
    found = refine_from([pair], rough)
    corners = np.array([[[0, 0], [639, 0], [0, 479], [639, 479]]], float)
    apart = cv2.perspectiveTransform(corners, found.matrix) - cv2.perspectiveTransform(
        corners, rig.homography
    )
    assert np.linalg.norm(apart, axis=2).mean() < 0.6
    with pytest.raises(CalibrationError, match="too far off to be refined"):
        refine_from([pair], np.eye(3))


def test_points_are_made_straight_before(tmp_path):
    rig = Rig(RigConfig(seed=3, size=(320, 240), ir_distortion=0.2, vis_distortion=-0.1, scale=0.9))
    pair = (rig.frame("ir", 0), rig.frame("vis", 0))
    straight = np.array([[60, 60], [250, 70], [240, 170], [80, 180.0]])
    placed = np.hstack([straight, np.ones((4, 1))]) @ rig.homography.T
    seen = [
        distort(points[:, 0], points[:, 1], (240, 320), k)
        for points, k in ((straight, 0.2), (placed[:, :2], -0.1))
    ]
    found = from_points(straight_points(np.stack([*seen[0], *seen[1]], axis=1), pair, (0.2, -0.1)))
    np.testing.assert_allclose(found.matrix, rig.homography, atol=1e-4)


@pytest.mark.parametrize("text", ["", "a", "0.5", "0.1,0.9", "0.1,0.1,0.1", "nan"])
def test_what_is_no_distortion_is_refused(text):
    assert parse_distortion("0.08") == (0.08, 0.0)
    with pytest.raises(InputError, match="distortion"):
        parse_distortion(text)


def textured(seed, size=(480, 640)):
    rng = np.random.default_rng(seed)
    blobs = [cv2.GaussianBlur(rng.normal(size=size), (0, 0), sigma) * sigma for sigma in (1.5, 4.0, 10.0)]
    return np.clip(128 + 40 * sum(blobs), 0, 255).astype(np.uint8)


def flat_scene(seed, distance):
    """Return what two cameras, 60 pixels · metres apart, see of a wall at a distance."""
    vis = textured(seed)
    there = np.array([[1, 0, 8 + 60 / distance], [0, 1, -5 + 12 / distance], [0, 0, 1]])
    return 255 - cv2.warpPerspective(vis, np.linalg.inv(there), (640, 480)), vis


def test_parallax_is_learned_from_scenes_of_several_distances(tmp_path):
    metres = [4, 6, 10, 30]
    for role in ("ir", "vis"):
        (tmp_path / role).mkdir()
    for index, distance in enumerate(metres):
        for role, image in zip(("ir", "vis"), flat_scene(index, distance), strict=True):
            write_image(tmp_path / role / f"{index}.png", image)
    arguments = ["calibrate", "--ir", str(tmp_path / "ir"), "--vis", str(tmp_path / "vis"), "--no-pictures"]
    out = ["--out", str(tmp_path / "rig.json")]
    by_hand = ["--points", "0,0:14,-3 600,400:614,397"]
    result = CliRunner().invoke(app, [*arguments, *out, *by_hand, "--distances", "4,6,10,30"])
    assert result.exit_code == 0, result.output
    assert "Off at other distances" in result.output
    written = json.loads((tmp_path / "rig.json").read_text())
    assert written["parallax"] == pytest.approx([60, 12, 0], abs=2.5)
    assert np.array(written["matrix"])[:2, 2] == pytest.approx([8, -5], abs=0.4)
    for wrong, why in (
        ("4,6", "2 distances and 4 pairs"),
        ("5,6,6,7", "twice as far"),
        ("4,x", "not metres"),
    ):
        result = CliRunner().invoke(app, [*arguments, *out, *by_hand, "--distances", wrong])
        assert isinstance(result.exception, InputError)
        assert why in str(result.exception)


def test_points_that_contradict_each_other_are_refused():
    points = np.array([[100.0, 80, 300, 150], [500, 90, 10, 160], [20, 400, 500, 20]])
    with pytest.raises(InputError, match=r"contradict each other: .* off by 56\.\d pixels"):
        from_points(points)
    near = np.array([[100.0, 80, 110, 85], [500, 90, 509, 96], [20, 400, 30, 404]])
    assert from_points(near).residual_px < 2
