import numpy as np
import pytest

from edgefuse.errors import InputError
from edgefuse.images import write_image
from edgefuse.pairs import images_by_stem, pair_folders


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
    assert [stem for stem, _, _ in pair_folders(tmp_path, tmp_path).pairs] == ["f8", "f9", "f10", "f11"]


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
