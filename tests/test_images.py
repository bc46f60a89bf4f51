import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgefuse.errors import InputError
from edgefuse.images import (
    as_visible,
    check_image,
    luma,
    parse_size,
    read_image,
    read_visible,
    replace_luma,
    write_image,
)
from edgefuse.thermal import as_infrared, read_infrared

COLOUR = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


@given(COLOUR, st.integers(0, 2**32 - 1))
def test_replacing_the_luma_adds_the_difference_to_each_channel(vis, seed):
    grey = luma(vis)
    fused = np.random.default_rng(seed).integers(0, 256, grey.shape, dtype=np.uint8)
    expected = np.clip(vis.astype(int) + (fused.astype(int) - grey)[..., None], 0, 255)
    np.testing.assert_array_equal(replace_luma(vis, grey, fused), expected)


@given(COLOUR)
def test_replacing_the_luma_by_itself_changes_nothing(vis):
    np.testing.assert_array_equal(replace_luma(vis, luma(vis), luma(vis)), vis)


def test_a_grey_visible_image_gives_a_grey_answer():
    grey, fused = np.full((20, 30), 40, np.uint8), np.full((20, 30), 90, np.uint8)
    assert replace_luma(grey, grey, fused).shape == (20, 30)


def test_luma_is_bt601(pair):
    _, vis = pair
    exact = vis @ np.array([0.114, 0.587, 0.299])
    assert np.abs(luma(vis) - exact).max() <= 0.51


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_written_images_are_read_back_unchanged(tmp_path, pair, suffix):
    for image in pair:
        path = tmp_path / f"bild ü{suffix}"
        write_image(path, image)
        np.testing.assert_array_equal(read_image(path), image)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_16_bit_infrared_is_spread_over_the_8_bit_range(tmp_path):
    counts = np.linspace(29000, 31000, 200 * 100).reshape(100, 200).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "raw.png"), counts)
    image = read_infrared(tmp_path / "raw.png")
    assert image.dtype == np.uint8
    assert np.ptp(image) > 80
    assert (np.diff(image.astype(int).ravel()) >= 0).all()


def test_constant_16_bit_infrared_stays_constant():
    assert len(np.unique(as_infrared(np.full((16, 16), 30000, np.uint16)))) == 1


def test_16_bit_visible_keeps_its_scale():
    assert as_visible(np.array([[0, 257, 65535]], np.uint16)).tolist() == [[0, 1, 255]]


def test_alpha_is_dropped(tmp_path, pair):
    cv2.imwrite(str(tmp_path / "a.png"), cv2.cvtColor(pair[1], cv2.COLOR_BGR2BGRA))
    np.testing.assert_array_equal(read_visible(tmp_path / "a.png"), pair[1])


@pytest.mark.parametrize(("text", "size"), [("640x480", (640, 480)), (" 1280X1024 ", (1280, 1024))])
def test_sizes_are_width_by_height(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["640", "x480", "640x", "0x0", "15x480", "640x99999", "axb", "-4x20", ""])
def test_bad_sizes_are_named(text):
    with pytest.raises(InputError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ([[1]], "list"),
        (np.zeros((32, 32), np.float32), "float32"),
        (np.zeros((32, 32, 4), np.uint8), r"\(32, 32, 4\)"),
        (np.zeros(32, np.uint8), r"\(32,\)"),
        (np.zeros((15, 32), np.uint8), "32x15"),
    ],
)
def test_unusable_arrays_are_named(image, words):
    with pytest.raises(InputError, match=words):
        check_image("visible", image)


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    cv2.imwrite(str(tmp_path / "float.tif"), np.zeros((20, 20), np.float32))
    data = cv2.imencode(".png", np.zeros((64, 64), np.uint8))[1].tobytes()
    (tmp_path / "cut.png").write_bytes(data[:30])
    for name, words in {
        "absent.png": "no such image",
        "text.png": "not an image",
        "empty.png": "not an image",
        "cut.png": "not an image",
        "float.tif": "float32",
        ".": "folder",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path) in str(caught.value)


def test_unwritable_files_are_named(tmp_path, pair):
    with pytest.raises(InputError, match="suffix"):
        write_image(tmp_path / "a.xyz", pair[0])
    with pytest.raises(InputError, match="no folder"):
        write_image(tmp_path / "absent" / "a.png", pair[0])
    assert list(tmp_path.iterdir()) == []
