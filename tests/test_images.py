import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image as Pillow

from edgefuse.errors import InputError
from edgefuse.images import (
    _without,
    as_visible,
    check_image,
    luma,
    parse_size,
    read_image,
    read_visible,
    replace_luma,
    write_image,
)
from edgefuse.palettes import PALETTES, is_coloured
from edgefuse.runtime.sources import open_source
from edgefuse.stored import read_stored
from edgefuse.thermal import ThermalAgc, as_infrared, read_infrared

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
    (tmp_path / "4.tif").write_bytes(tiff(bytes(2400), 4))
    data = cv2.imencode(".png", np.zeros((64, 64), np.uint8))[1].tobytes()
    (tmp_path / "cut.png").write_bytes(data[:30])
    for name, words in {
        "absent.png": "no such image",
        "text.png": "not an image",
        "empty.png": "not an image",
        "cut.png": "not an image",
        "4.tif": "not an image",
        "float.tif": "float32",
        ".": "folder",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path) in str(caught.value)


# --- what a file says about its pixels


def stored_as(image: np.ndarray, kind: str, **options: Any) -> bytes:
    """Write an image with Pillow, RGB or grey."""
    file = io.BytesIO()
    Pillow.fromarray(image).save(file, kind, **options)
    return file.getvalue()


MARKED = np.zeros((20, 32), np.uint8)
MARKED[:8, :8] = 200  # upper left
MARKED[:8, 24:] = 100  # upper right
UPRIGHT: dict[int, np.ndarray] = {
    1: MARKED,
    2: MARKED[:, ::-1],
    3: MARKED[::-1, ::-1],
    4: MARKED[::-1],
    5: MARKED.T,
    6: np.rot90(MARKED, -1),
    7: np.rot90(MARKED, 2).T,
    8: np.rot90(MARKED),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_are_turned_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Pillow.Exif()
    exif[274] = orientation
    options: dict[str, Any] = {"tiffinfo": {274: orientation}} if kind == "TIFF" else {"exif": exif}
    if kind == "WEBP":
        options["lossless"] = True
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(stored_as(MARKED, kind, **options))
    expected = UPRIGHT[orientation]
    got: tuple[np.ndarray, ...] = read_infrared(path), luma(read_visible(path))
    for image in got:
        assert image.shape == expected.shape
        assert cv2.absdiff(image, np.ascontiguousarray(expected)).max() <= (12 if kind == "JPEG" else 1)


@pytest.mark.parametrize("late", [False, True])
def test_the_header_of_a_png_is_read_without_its_pixels(monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    def load(self: Pillow.Image) -> None:
        raise AssertionError("decoded twice")

    data = stored_as(MARKED, "PNG")
    assert read_stored(data, "a.png").orientation == 1
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    exif = Pillow.Exif()
    exif[274] = 6
    body = b"eXIf" + exif.tobytes()[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    place = len(data) - 12 if late else 33  # before IEND, or after IHDR
    assert read_stored(data, "a.png").kind == "PNG"
    assert read_stored(data[:place] + chunk + data[place:], "a.png").orientation == 6


def test_16_bits_are_turned_upright_too(tmp_path: Path) -> None:
    counts = MARKED.astype(np.uint16) * 100
    exif = Pillow.Exif()
    exif[274] = 6
    (tmp_path / "a.png").write_bytes(stored_as(counts, "PNG", exif=exif))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", "ir"), np.rot90(counts, -1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero(tmp_path: Path, dtype: type) -> None:
    image: np.ndarray = MARKED.astype(dtype) * (1 if dtype == np.uint8 else 256)
    data = stored_as(image, "TIFF", tiffinfo={262: 0})
    assert Pillow.open(io.BytesIO(data)).tag_v2[262] == 0  # type: ignore[attr-defined]
    (tmp_path / "a.tif").write_bytes(data)
    stored = np.asarray(Pillow.open(io.BytesIO(stored_as(image, "TIFF"))))
    got = read_image(tmp_path / "a.tif")
    raw = cv2.imdecode(np.frombuffer(stored_as(image, "TIFF"), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, raw)
    # Pillow inverts the 8 bits as it writes them.
    np.testing.assert_array_equal(got, image if dtype == np.uint8 else 65535 - image)


def warned(caplog: pytest.LogCaptureFixture) -> str:
    text = "".join(record.getMessage() + "\n" for record in caplog.records if record.levelname == "WARNING")
    caplog.clear()
    return text


def test_only_the_first_page_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "ab":
        pages = [Pillow.fromarray(MARKED), Pillow.fromarray(255 - MARKED), Pillow.fromarray(MARKED)]
        pages[0].save(tmp_path / f"{name}.tif", save_all=True, append_images=pages[1:])
        np.testing.assert_array_equal(read_infrared(tmp_path / f"{name}.tif"), MARKED)
    assert warned(caplog) == f"{tmp_path}: only the first page or frame of each image is used\n"


def test_pixels_that_are_not_square_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = bytearray(stored_as(MARKED, "JPEG"))
    place = data.index(b"JFIF\0") + 7
    data[place : place + 5] = bytes([0, 0, 1, 0, 2])  # no unit, 1 across, 2 down
    (tmp_path / "a.jpg").write_bytes(data)
    read_visible(tmp_path / "a.jpg")
    assert "pixels are 2:1: treating them as square" in warned(caplog)


def with_sbit(data: bytes, bits: int) -> bytes:
    chunk = b"sBIT" + bytes([bits])
    return data[:33] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


RAMP = np.linspace(100, 4000, 32 * 20).reshape(20, 32).astype(np.uint16)


def test_bits_of_a_visible_16_bit_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = np.rint(RAMP / 4095 * 255).astype(np.uint8)
    plain, marked, scaled = (tmp_path / name / "a.png" for name in ("plain", "marked", "scaled"))
    for path, data in (
        (plain, stored_as(RAMP, "PNG")),
        (marked, with_sbit(stored_as(RAMP, "PNG"), 12)),
        (scaled, with_sbit(stored_as(RAMP << 4 | RAMP >> 8, "PNG"), 12)),
    ):
        path.parent.mkdir()
        path.write_bytes(data)
    assert read_visible(plain).max() < 20
    assert "hardly any value over 4000, so they look nearly black: if they hold 12 bits, give bits=12" in (
        warned(caplog)
    )
    for image in (read_visible(plain, bits=12), read_visible(marked), read_visible(scaled)):
        assert cv2.absdiff(image, expected).max() <= 1
    assert warned(caplog) == ""
    with open_source(f"{plain.parent}?bits=12", "vis") as source:
        frame = source.read()
    assert frame is not None
    assert cv2.absdiff(as_visible(frame.image), expected).max() <= 1
    np.testing.assert_array_equal(read_image(plain, "ir"), RAMP)


@pytest.mark.parametrize("part", [1, 0.05])
@pytest.mark.parametrize("way", ["unscaled", "zeros", "repeated", "multiple"])
def test_a_png_with_sbit_keeps_its_brightness(tmp_path: Path, way: str, part: float) -> None:
    """Bright or dark, scaled to 16 bits or not."""
    twelve = (RAMP * part).astype(np.uint16)
    stored = {
        "unscaled": twelve,
        "zeros": twelve << 4,
        "repeated": twelve << 4 | twelve >> 8,
        "multiple": np.rint(twelve * (65535 / 4095)).astype(np.uint16),
    }[way]
    (tmp_path / "a.png").write_bytes(with_sbit(stored_as(stored, "PNG"), 12))
    expected = np.rint(twelve / 4095 * 255).astype(np.uint8)
    assert cv2.absdiff(read_visible(tmp_path / "a.png"), expected).max() <= 1


def test_single_bright_pixels_say_nothing_of_the_bits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = RAMP.copy()
    image[3, 3:6] = 65535, 5000, 4096
    expected = np.rint(np.minimum(image / 4095, 1) * 255).astype(np.uint8)
    plain, marked = tmp_path / "plain.png", tmp_path / "marked.png"
    plain.write_bytes(stored_as(image, "PNG"))
    marked.write_bytes(with_sbit(stored_as(image, "PNG"), 12))
    for read in (read_visible(plain, bits=12), read_visible(marked)):
        assert cv2.absdiff(read, expected).max() <= 1
    assert warned(caplog) == ""
    assert read_visible(plain).max() == 255
    assert "give bits=12" in warned(caplog)
    assert read_visible(plain, bits=10).mean() > 200
    as_visible(image, place="cam0")  # as a camera or video gives it
    assert warned(caplog).startswith("cam0: visible pictures of 16 bits")
    bright = np.full((40, 40), 5000, np.uint16)
    assert as_visible(bright, white=4095).tolist() == as_visible(bright, place="dusk").tolist()
    assert warned(caplog) == ""


def test_swapped_bytes_of_infrared_are_put_right(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    counts = cv2.GaussianBlur(rng.normal(0, 4000, (60, 80)), (0, 0), 5) + 15_000 + rng.normal(0, 3, (60, 80))
    image = counts.round().astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), image.byteswap())
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", "ir"), image)
    assert "bytes of each pixel are swapped" in warned(caplog)
    for same in (
        image,
        image << 4,
        image.astype(np.uint8).astype(np.uint16) * 257,
        rng.integers(0, 65536, (60, 80)),
    ):
        cv2.imwrite(str(tmp_path / "a.png"), same.astype(np.uint16))
        np.testing.assert_array_equal(read_image(tmp_path / "a.png", "ir"), same)
    np.testing.assert_array_equal(read_visible(tmp_path / "a.png"), as_visible(same.astype(np.uint16)))


@pytest.mark.parametrize("quality", [0, 90])
@pytest.mark.parametrize("name", PALETTES)
def test_palettes_are_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, quality: int
) -> None:
    y, x = np.mgrid[0:96, 0:128]
    grey = (40 + 0.9 * x + 60 * ((x - 60) ** 2 + (y - 40) ** 2 < 400)).astype(np.uint8)
    coloured = cv2.applyColorMap(grey, PALETTES[name])
    path = tmp_path / ("a.jpg" if quality else "a.png")
    cv2.imwrite(str(path), coloured, [cv2.IMWRITE_JPEG_QUALITY, quality] if quality else [])
    image = read_infrared(path)
    assert np.abs(image.astype(int) - grey).mean() < 4
    assert "its palette" in warned(caplog)


def in_hot(places: np.ndarray) -> np.ndarray:
    """Black, red, yellow, white: matplotlib's `hot` by its corners, as BGR uint8."""
    x = places / 255
    red, green = np.interp(x, [0, 0.365], [0.0416, 1]), np.interp(x, [0.365, 0.746], [0, 1])
    return np.rint(np.stack([np.interp(x, [0.746, 1], [0, 1]), green, red], -1) * 255).astype(np.uint8)


def in_jet(places: np.ndarray) -> np.ndarray:
    """Dark blue, blue, cyan, yellow, red, dark red: three triangles, as BGR uint8."""
    tops = np.stack([1.5 - np.abs(4 * places / 255 - k) for k in (1, 2, 3)], -1)
    return np.rint(tops.clip(0, 1) * 255).astype(np.uint8)


def in_rainbow(places: np.ndarray) -> np.ndarray:
    """The hues from blue to red, as BGR uint8."""
    hue = np.rint(120 * (1 - places / 255)).astype(np.uint8)
    return cv2.cvtColor(np.stack([hue, hue * 0 + 255, hue * 0 + 255], -1), cv2.COLOR_HSV2BGR)


WARMTH = cv2.normalize(
    cv2.GaussianBlur(np.random.default_rng(5).normal(0, 1, (60, 80)), (0, 0), 8),
    np.zeros(()),
    0,
    255,
    cv2.NORM_MINMAX,
)


@pytest.mark.parametrize("palette", [in_hot, in_jet, in_rainbow])
@pytest.mark.parametrize("ends", [(0, 255), (40, 255), (40, 180), (90, 160), (120, 120), (200, 255)])
def test_no_palette_turns_infrared_over(
    caplog: pytest.LogCaptureFixture, palette: Callable[[np.ndarray], np.ndarray], ends: tuple[int, int]
) -> None:
    places = ends[0] + WARMTH / 255 * (ends[1] - ends[0])
    name = f"{palette.__name__} {ends}"
    grey = as_infrared(palette(places), name=name)
    said = warned(caplog)
    if f"removing its palette '{palette.__name__[3:]}'" in said:
        assert np.corrcoef(grey.ravel(), places.ravel())[0, 1] > 0.97
    else:
        assert f"{name}: infrared is coloured with an unknown palette, or" in said
    certain = palette is not in_rainbow and ends in [(0, 255), (40, 255)]
    assert ("removing" in said) == certain or ends not in [(0, 255), (40, 255), (120, 120)]


def test_a_cold_or_plain_first_frame_does_not_decide_the_palette() -> None:
    for first in (np.full((60, 80), 100.0), np.full((60, 80), 8.0), 60 + WARMTH * 0.1):
        agc = ThermalAgc()
        agc(in_hot(first))
        whole = agc(in_hot(WARMTH))
        assert np.corrcoef(whole.ravel(), WARMTH.ravel())[0, 1] > 0.97
        # What is recognised once is removed from frames too that alone would not show it.
        for place in (8, 100, 170):
            plain = agc(in_hot(np.full((60, 80), float(place))))
            assert abs(float(np.median(plain)) - float(np.median(whole[np.abs(WARMTH - place) < 2]))) < 6


@pytest.mark.parametrize(("pixels", "levels", "coloured"), [(21, 25, True), (20, 25, False), (21, 24, False)])
def test_a_fifth_of_coloured_pixels_are_signs(pixels: int, levels: int, coloured: bool) -> None:
    image = np.full((10, 10, 3), 100, np.uint8)
    image.reshape(-1, 3)[:pixels, 2] += levels
    assert is_coloured(image) is coloured


def test_colours_of_no_palette_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    np.testing.assert_array_equal(read_infrared(tmp_path / "a.png"), luma(picture))
    assert "coloured with an unknown palette" in warned(caplog)
    grey = np.repeat(MARKED[..., None], 3, 2)
    grey[:3, :20] = (0, 0, 255)  # a scale that is burnt in
    cv2.imwrite(str(tmp_path / "b.png"), grey)
    read_infrared(tmp_path / "b.png")
    assert warned(caplog) == ""


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = stored_as(MARKED, "PNG")
    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + bomb[24:29]
    (tmp_path / "a.png").write_bytes(bomb[:12] + header + struct.pack(">I", zlib.crc32(header)) + bomb[33:])
    sentence = r"a\.png has 30000x30000 = 900,000,000 pixels, more than 268,435,456: set EDGEFUSE_MAX_PIXELS"
    with pytest.raises(InputError, match=sentence):
        read_visible(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(bomb)
    monkeypatch.setenv("EDGEFUSE_MAX_PIXELS", "639")
    with pytest.raises(InputError, match="32x20 = 640 pixels, more than 639"):
        read_visible(tmp_path / "b.png")
    monkeypatch.setenv("EDGEFUSE_MAX_PIXELS", "640")
    assert read_visible(tmp_path / "b.png").shape == (20, 32)
    monkeypatch.setenv("EDGEFUSE_MAX_PIXELS", "many")
    with pytest.raises(InputError, match="EDGEFUSE_MAX_PIXELS is 'many'"):
        read_visible(tmp_path / "b.png")


def test_a_damaged_jpeg_is_refused(tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]) -> None:
    for progressive in (0, 1):
        flag = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
        whole = cv2.imencode(".jpg", cv2.resize(pair[1], (320, 240)), flag)[1].tobytes()
        middle = len(whole) // 2
        path = tmp_path / "a.jpg"
        path.write_bytes(whole)
        assert read_visible(path).shape == (240, 320, 3)
        for data in (whole[:middle], whole[:middle] + bytes(300) + whole[middle + 300 :]):
            path.write_bytes(data)
            with pytest.raises(InputError, match=r"a\.jpg is damaged"):
                read_visible(path)
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 255, 300, dtype=np.uint8).tobytes()
        path.write_bytes(whole[:middle] + noise + whole[middle + 300 :])
        with pytest.raises(InputError, match=r"a\.jpg is damaged"):
            read_visible(path)
        path.write_bytes(whole + b"trailing bytes, as cameras add them")
        assert read_visible(path).shape == (240, 320, 3)


def test_a_radiometric_jpeg_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = stored_as(MARKED, "JPEG")
    body = b"FLIR\0\1\0\0" + bytes(20)
    (tmp_path / "a.jpg").write_bytes(
        data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    )
    read_infrared(tmp_path / "a.jpg")
    assert "radiometric JPEGs" in warned(caplog)


@pytest.mark.parametrize("cut", [5, 20, 40, 100])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM"])
def test_files_that_end_early_are_refused_in_one_sentence(tmp_path: Path, kind: str, cut: int) -> None:
    exif = Pillow.Exif()
    exif[274] = 6
    options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
    (tmp_path / "a.png").write_bytes(stored_as(np.dstack([MARKED] * 3), kind, **options)[:cut])
    with pytest.raises(InputError, match=r"a\.png"):
        read_visible(tmp_path / "a.png")


# --- situations from public reports, see docs/known-situations.md

COUNTS = cv2.GaussianBlur(np.random.default_rng(3).normal(29_000, 4000, (60, 80)), (0, 0), 4).round()
COUNTS[20:40, 30:40] = 30_800
CELSIUS = ((COUNTS - 27_315) / 100).astype(np.float32)


def tiff(pixels: bytes, bits: int, **tags: int) -> bytes:
    """A TIFF of 80x60 pixels with the tags of these numbers, such as `t339=3` (floats)."""
    entries = {256: 80, 257: 60, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 60, 279: len(pixels)}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    data = b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(entries))
    for tag, value in sorted(entries.items()):
        data += struct.pack("<HHII", tag, 4, 1, value)
    return data + bytes(4)


def packed(image: np.ndarray) -> bytes:
    """The 12-bit values of an image behind one another."""
    a, b = image.reshape(-1, 2).astype(np.uint32).T
    pair = a << 12 | b
    return np.stack((pair >> 16, pair >> 8, pair), 1).astype(np.uint8).tobytes()


TWELVE = ((COUNTS - 28_000) / 8).clip(0, 4095).astype(np.uint16)


def test_a_tiff_of_12_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(packed(TWELVE), 12))
    expected = np.rint(TWELVE / 4095 * 255).astype(np.uint8)
    assert cv2.absdiff(read_visible(path), expected).max() <= 1
    path.write_bytes(tiff(packed(TWELVE), 12, t262=0))
    assert cv2.absdiff(read_visible(path), 255 - expected).max() <= 1


@pytest.mark.parametrize(
    "pixels", [COUNTS.astype("<u4"), COUNTS.astype("<i4"), CELSIUS.astype("<f4"), CELSIUS.astype("<f8")]
)
def test_a_tiff_of_measured_values(tmp_path: Path, pixels: np.ndarray) -> None:
    if pixels.dtype == np.uint32 and cv2.__version__ < "5":
        pytest.skip("OpenCV decodes unsigned 32-bit TIFF from version 5 on")
    path = tmp_path / "a.tif"
    kinds = {"u": 1, "i": 2, "f": 3}
    path.write_bytes(tiff(pixels.tobytes(), pixels.itemsize * 8, t339=kinds[pixels.dtype.kind]))
    assert cv2.absdiff(read_infrared(path), as_infrared(COUNTS.astype(np.uint16))).max() <= 3
    with pytest.raises(InputError, match="as infrared also signed and float values"):
        read_visible(path)


@pytest.mark.parametrize("nothing", [-9999, -32768, -3.4028235e38, 1e20, np.nan, np.inf])
def test_what_programs_write_where_nothing_was_measured(tmp_path: Path, nothing: float) -> None:
    image, counts = CELSIUS.copy(), COUNTS.astype(np.uint16)
    image[:, :10], counts[:, :10] = nothing, 0
    (tmp_path / "a.tif").write_bytes(tiff(image.tobytes(), 32, t339=3))
    grey = read_infrared(tmp_path / "a.tif")
    assert cv2.absdiff(grey, as_infrared(counts)).max() <= 3
    assert grey[20:40, 30:40].min() > 200


@pytest.mark.parametrize("values", [COUNTS.astype(np.uint16), CELSIUS])
def test_the_no_data_value_of_a_geotiff(tmp_path: Path, values: np.ndarray) -> None:
    values = values.copy()
    values[:, :30] = 123
    Pillow.fromarray(values).save(tmp_path / "a.tif", tiffinfo={42113: "123"})
    image = read_image(tmp_path / "a.tif", "ir")
    nothing = image[:, :30]
    assert np.isnan(nothing).all() if values.dtype == np.float32 else not nothing.any()
    assert np.array_equal(image[:, 30:], values[:, 30:])


@pytest.mark.parametrize(
    "number", ["nan", "-9999", "-3.4028234663852886e+38", "1e20", "1e40", "1e400", "0.5"]
)
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_a_no_data_value_that_pixels_cannot_have(tmp_path: Path, dtype: type, number: str) -> None:
    values = (COUNTS - 29_000 * (dtype != np.uint16)).clip(0, 32_000).astype(dtype)
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), values)
    image = _without(read_image(path, "ir"), float(number))
    np.testing.assert_array_equal(image, values)
    if dtype == np.uint16:
        Pillow.fromarray(values).save(path, tiffinfo={42113: number})
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", "ir"), values)


def test_temperatures_below_zero_that_wrapped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Hundredths of a degree Celsius in uint16: -1 became 65535."""
    wrapped = (COUNTS - 29_000).astype(np.int32).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), wrapped)
    assert cv2.absdiff(read_infrared(tmp_path / "a.png"), as_infrared(COUNTS.astype(np.uint16))).max() <= 3
    assert "negative values are stored as 65535" in warned(caplog)
    border = TWELVE.copy()
    border[:5] = 65_535  # no measurement
    cv2.imwrite(str(tmp_path / "b.png"), border)
    assert np.array_equal(read_image(tmp_path / "b.png", "ir"), border)
    assert warned(caplog) == ""


def test_a_folder_that_crosses_zero_counts_from_one_zero(tmp_path: Path) -> None:
    celsius = COUNTS - COUNTS.mean()
    steps = (0, 20_000, -20_000, 0)  # partly, wholly above, wholly below
    celsius *= 4000 / np.abs(celsius).max()
    for index, step in enumerate(steps):
        cv2.imwrite(str(tmp_path / f"{index}.png"), (celsius + step / 4).astype(np.int16).view(np.uint16))
    with open_source(str(tmp_path), "ir") as source:
        frames = [source.read() for _ in steps]
    for frame, step in zip(frames, steps, strict=True):
        assert frame is not None
        np.testing.assert_array_equal(frame.image, (celsius + step / 4).astype(np.int16))


@pytest.mark.parametrize(("white", "dtype"), [(4095, ">u2"), (1000, ">u2"), (15, "u1"), (255, "u1")])
def test_the_largest_value_of_a_pgm(tmp_path: Path, white: int, dtype: str) -> None:
    values = np.linspace(0, white, 32 * 20).reshape(20, 32).astype(dtype)
    header = f"P5\n# by a camera\n32 20\n{white}\n".encode()
    (tmp_path / "a.pgm").write_bytes(header + values.tobytes())
    expected = np.rint(values.astype(float) / white * 255).astype(np.uint8)
    assert cv2.absdiff(read_visible(tmp_path / "a.pgm"), expected).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_a_file_with_the_wrong_suffix_is_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(stored_as(np.dstack([MARKED] * 3), kind))
    assert read_visible(tmp_path / "a.jpg").shape == (20, 32, 3)


def test_grey_with_alpha_is_its_grey(tmp_path: Path) -> None:
    """However transparent: alpha of thermal exports is 0 where nobody looked at it."""
    Pillow.fromarray(np.dstack([MARKED, np.zeros_like(MARKED)]), "LA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(luma(read_visible(tmp_path / "a.png")), MARKED)


def test_unwritable_files_are_named(tmp_path, pair):
    with pytest.raises(InputError, match="suffix"):
        write_image(tmp_path / "a.xyz", pair[0])
    with pytest.raises(InputError, match="no folder"):
        write_image(tmp_path / "absent" / "a.png", pair[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("oddity", ["bytes before the end", "zeros behind", "two pictures", "restart marks"])
def test_a_jpeg_that_is_odd_but_whole_is_read(
    tmp_path: Path, pair: tuple[np.ndarray, np.ndarray], oddity: str
) -> None:
    """As webcams and phones write them."""
    data = cv2.imencode(".jpg", pair[1])[1].tobytes()
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if oddity == "bytes before the end":
        data = data[:-2] + bytes(range(1, 20)) + data[-2:]
    elif oddity == "zeros behind":
        data += bytes(1000)
    elif oddity == "two pictures":
        data += cv2.imencode(".jpg", pair[1][::-1])[1].tobytes()
    else:
        data = cv2.imencode(".jpg", pair[1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 4])[1].tobytes()
    (tmp_path / "a.jpg").write_bytes(data)
    assert cv2.absdiff(read_visible(tmp_path / "a.jpg"), whole).max() <= 1
