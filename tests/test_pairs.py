import os
import sys
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgefuse.calibrate.scenes import _pairs_of
from edgefuse.errors import InputError, SourceError
from edgefuse.images import write_image
from edgefuse.pairs import images_by_stem, pair_folders
from edgefuse.runtime.live import connect_pair
from edgefuse.runtime.sources import open_source
from edgefuse.thermal import read_infrared


@pytest.fixture
def folders(tmp_path):
    for folder, names in {"ir": ["a.png", "b.png", "d.png"], "vis": ["a.jpg", "c.jpg", "b.png"]}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            write_image(tmp_path / folder / name, np.zeros((16, 16), np.uint8))
    return tmp_path


def test_folders_are_paired_by_stem_and_the_rest_is_named(folders):
    found = pair_folders(folders / "ir", folders / "vis")
    assert [(s, i.name, v.name) for s, i, v in found.pairs] == [
        ("a", "a.png", "a.jpg"),
        ("b", "b.png", "b.png"),
    ]
    assert (found.only_ir, found.only_vis) == (["d"], ["c"])


def test_numbers_are_sorted_by_their_value(tmp_path):
    for number in (8, 10, 9, 11):
        write_image(tmp_path / f"f{number}.png", np.zeros((16, 16), np.uint8))
    assert list(images_by_stem(tmp_path)) == ["f8", "f9", "f10", "f11"]
    with pytest.raises(InputError, match="is given for both cameras"):
        pair_folders(tmp_path, tmp_path)


def test_other_files_and_subfolders_are_left_alone(folders):
    (folders / "ir" / "notes.txt").touch()
    (folders / "ir" / ".hidden.png").touch()
    (folders / "ir" / "sub.png").mkdir()
    assert list(images_by_stem(folders / "ir")) == ["a", "b", "d"]


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda p: None, "no such folder"),
        (lambda p: p.write_text(""), "is a file"),
        (lambda p: p.mkdir(), "no images"),
    ],
)
def test_unusable_folders_are_named(tmp_path, prepare, words):
    prepare(tmp_path / "x")
    with pytest.raises(InputError, match=words):
        images_by_stem(tmp_path / "x")


def test_two_images_of_one_stem_are_refused(folders):
    write_image(folders / "ir" / "a.bmp", np.zeros((16, 16), np.uint8))
    with pytest.raises(InputError, match=r"'a'.*a\.bmp and a\.png"):
        images_by_stem(folders / "ir")


def test_folders_without_a_common_stem_are_refused(folders):
    (folders / "other").mkdir()
    write_image(folders / "other" / "z.png", np.zeros((16, 16), np.uint8))
    with pytest.raises(InputError, match=r"no stem is in both.*'a'.*'z'"):
        pair_folders(folders / "ir", folders / "other")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("files", "ir", "vis"),
    [
        (["ir/1.png", "vi/1.png"], "", ""),  # MSRS
        (["Ir/1.png", "Vis/1.png"], "", ""),  # M3FD
        (["infrared/1.jpg", "visible/1.jpg"], "infrared", "visible"),  # LLVIP
        (["ir/day/1.png", "vi/day/1.png"], "", ""),
        (["a/1_ir.png", "b/1_vi.png"], "a", "b"),
        (["a/1_ir.png", "a/1_vi.png", "a/README.txt"], "a", "a"),
        (["a/1-IR.png", "a/1-RGB.png"], "a", "a"),
        (["a/FLIR_1_PreviewData.jpeg", "a/FLIR_1_RGB.jpg"], "a", "a"),  # FLIR ADAS, aligned
        (["a/1/2.png", "b/1/2.png", "b/.git/2.png"], "a", "b"),
    ],
)
def test_layouts_of_data_sets(tmp_path: Path, files: list[str], ir: str, vis: str) -> None:
    touch(*(tmp_path / file for file in files))
    found = pair_folders(tmp_path / ir, tmp_path / vis)
    assert [(i, v) for _, i, v in found.pairs] == [(tmp_path / files[0], tmp_path / files[1])]
    assert found.only_ir == found.only_vis == []


def test_equal_stems_are_taken_whatever_they_end_in(tmp_path: Path) -> None:
    touch(*(tmp_path / file for file in ("ir/1_ir.png", "ir/1.png", "vis/1_ir.png", "vis/1_vis.png")))
    assert [stem for stem, _, _ in pair_folders(tmp_path / "ir", tmp_path / "vis").pairs] == ["1_ir"]


def test_names_that_look_equal_are_paired(tmp_path: Path) -> None:
    touch(tmp_path / "ir" / unicodedata.normalize("NFD", "Wärme.png"), tmp_path / "vis" / "Wärme.png")
    ((stem, ir, _),) = pair_folders(tmp_path / "ir", tmp_path / "vis").pairs
    assert stem == "Wärme"
    assert ir.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text_are_paired_and_can_be_printed(tmp_path: Path) -> None:
    for folder in ("ir", "vis"):
        (tmp_path / folder).mkdir()
        image = cv2.imencode(".png", np.full((16, 16), 9, np.uint8))[1].tobytes()
        Path(os.fsdecode(os.fsencode(tmp_path / folder) + b"/n\xe4hte.png")).write_bytes(image)
    ((stem, ir, _),) = pair_folders(tmp_path / "ir", tmp_path / "vis").pairs
    assert stem.encode() == b"n\\xe4hte"
    assert read_infrared(ir).shape == (16, 16)


@pytest.mark.parametrize("text", ["data[1]", "data[1]/*.png", "data[1]/2.p[n]g"])
def test_a_folder_in_brackets_is_no_pattern(tmp_path: Path, text: str) -> None:
    for number in (10, 2):
        touch(tmp_path / "data[1]" / f"{number}.png")
        write_image(tmp_path / "data[1]" / f"{number}.png", np.full((16, 16), number, np.uint8))
    with open_source(str(tmp_path / text), "vis") as source:
        frame = source.read()
    assert frame is not None
    assert frame.image[0, 0] == 2


def numbered(folder, names):
    """Write a picture for each name, whose grey level is ten times the number that the name begins with."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_image(folder / name, np.full((16, 32), 10 * int(name[0]), np.uint8))


def levels(camera):
    source = camera.open()
    return [int(frame.image.mean()) for frame in iter(source.read, None)]


@pytest.mark.parametrize(
    ("ir", "vis", "start"),
    [("*_ir.png", "*_vis.png", 0), ("*_ir.png", "*_vis.png", 1), ("", "", 1), ("[0-9]_ir.*", "", 0)],
    ids=["patterns", "patterns from a start", "folder from a start", "one pattern"],
)
def test_sources_of_images_are_paired_by_name_before_the_start(tmp_path, caplog, ir, vis, start):
    numbered(tmp_path / "i", [f"{n}_ir.png" for n in range(1, 7) if n != 2])
    numbered(tmp_path / "v", [f"{n}_vis.png" for n in range(1, 7)])
    option = f"?start={start * 0.04}" if start else ""
    cameras = connect_pair(f"{tmp_path}/i/{ir}{option}", f"{tmp_path}/v/{vis}{option}")
    assert [levels(camera) for camera in cameras] == [[10, 30, 40, 50, 60][start:]] * 2
    assert [camera.length for camera in cameras] == [5 - start] * 2
    assert any("ignoring 1 of 6 images, which have no partner" in message for message in caplog.messages)


def test_patterns_without_a_common_name_are_paired_in_order_with_a_warning(tmp_path, caplog):
    numbered(tmp_path, ["1_a.png", "3_a.png", "2_b.png", "4_b.png"])
    cameras = connect_pair(f"{tmp_path}/*_a.png", f"{tmp_path}/*_b.png")
    assert [levels(camera) for camera in cameras] == [[10, 30], [20, 40]]
    assert any("pairing their images in order" in message for message in caplog.messages)


def test_halves_of_one_folder_are_paired_and_one_half_twice_is_refused(tmp_path):
    numbered(tmp_path / "ir", ["1.png", "3.png"])
    numbered(tmp_path / "vi", ["1.png", "2.png", "3.png"])
    cameras = connect_pair(str(tmp_path), str(tmp_path))
    assert [levels(camera) for camera in cameras] == [[10, 30]] * 2
    with pytest.raises(SourceError, match="both cameras are"):
        connect_pair(f"{tmp_path}/ir", f"{tmp_path}/ir")
    parts = connect_pair(f"{tmp_path}/vi?crop=16x16+0+0", f"{tmp_path}/vi?crop=16x16+16+0")
    assert [levels(camera) for camera in parts] == [[10, 20, 30]] * 2


def test_one_folder_is_split_by_the_endings_of_its_names(tmp_path):
    numbered(tmp_path, ["1_ir.png", "1_vis.png", "2_ir.png", "2_vis.png"])
    cameras = connect_pair(str(tmp_path), str(tmp_path))
    assert [levels(camera) for camera in cameras] == [[10, 20]] * 2


def test_calibration_pairs_patterns_by_name(tmp_path):
    numbered(tmp_path, [f"{n}_ir.png" for n in (1, 3)] + [f"{n}_vis.png" for n in (1, 2, 3)])
    found = list(_pairs_of(f"{tmp_path}/*_ir.png", f"{tmp_path}/*_vis.png", None))
    assert [(int(ir.mean()), int(vis.mean())) for ir, vis, _ in found] == [(10, 10), (30, 30)]
    with pytest.raises(SourceError, match="both cameras are"):
        list(_pairs_of(f"{tmp_path}/*_ir.png", f"{tmp_path}/*_ir.png", None))
