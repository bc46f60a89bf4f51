import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edgefuse import live
from edgefuse.align import covered
from edgefuse.cli import app
from edgefuse.errors import InputError
from edgefuse.evaluate import Settings, baseline, evaluate, folder
from edgefuse.evaluate.tables import summary_table
from edgefuse.images import read_visible, write_image
from edgefuse.rig import Overlap, Rig, overlap_of, scaling
from edgefuse.runtime.alignment import doubt_rig
from edgefuse.runtime.cameras.camera import Camera

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def shifted(right, down, size=(64, 48)):
    return Rig(((1.0, 0.0, right), (0.0, 1.0, down), (0.0, 0.0, 1.0)), size, size)


def gradient(width=64, height=48):
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return (x * 2 + y).astype(np.uint8)


def test_is_read_as_it_was_written(tmp_path):
    rig = Rig(
        ((1.5, 0.1, 20.0), (-0.1, 1.5, -7.25), (1e-5, 0.0, 1.0)),
        (640, 512),
        (1280, 1024),
        ir_camera="cam0",
        model="homography",
        residual_px=0.75,
        confidence=0.9,
        overlap=0.8,
        parallax=(40.0, 0.0, 0.0),
    )
    rig.save(tmp_path / "rig.json")
    assert Rig.load(tmp_path / "rig.json") == rig
    written = json.loads((tmp_path / "rig.json").read_text())
    assert {"version", "matrix", "residual_px", "confidence", "model", "date", "overlap"} <= written.keys()
    assert written["matrix"][0] == [1.5, 0.1, 20.0]


def test_unknown_keys_of_later_versions_are_ignored_with_a_word(tmp_path, caplog):
    shifted(1, 2).save(tmp_path / "rig.json")
    values = json.loads((tmp_path / "rig.json").read_text()) | {"lens": [1, 2], "distnace": 5}
    (tmp_path / "rig.json").write_text(json.dumps(values))
    assert Rig.load(tmp_path / "rig.json") == shifted(1, 2)
    assert "entries that are not known and ignored: distnace, lens" in caplog.text


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"matrix": [[1, 0, 0], [0, 1, 0]]}, "length 3"),
        ({"matrix": [[1, 0, 0], [0, 0, 0], [0, 0, 1]]}, "line or a point"),
        ({"matrix": [[1, 0, 9000], [0, 1, 0], [0, 0, 1]]}, "outside the visible"),
        ({"matrix": [[1, 0, 0], [0, 1, 0], [-0.1, 0, 1]]}, "behind the camera"),
        ({"matrix": "identity"}, "Expected `array`"),
        ({"ir_size": [0, 10]}, "ir_size is 0x10"),
        ({"version": 2}, "version 2"),
        ({"confidence": 7}, "confidence 7"),
        ({"distance": -1}, "distance is -1"),
        ({"parallax": [1e300, 0, 0]}, "parallax has numbers"),
        ({"parallax": [1, 0]}, "length 3"),
        ({"distance": True}, "got `bool`"),
        ({"ir_distortion": 4}, "ir_distortion is 4"),
        ({"distance": 1e9}, "below 1e9"),
        ({"scenes": -5}, "scenes is -5"),
    ],
)
def test_refuses_what_no_rig_can_be(tmp_path, change, why):
    shifted(1, 2).save(tmp_path / "rig.json")
    values = json.loads((tmp_path / "rig.json").read_text()) | change
    (tmp_path / "rig.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=why):
        Rig.load(tmp_path / "rig.json")


def test_a_file_that_windows_saved_is_read(tmp_path):
    shifted(1, 2).save(tmp_path / "rig.json")
    (tmp_path / "rig.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "rig.json").read_bytes())
    assert Rig.load(tmp_path / "rig.json") == shifted(1, 2)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe\x00", b"[" * 60_000, b'{"matrix": NaN}', b'{"matrix": 1e999}', b" " * 70_000, b"null"],
    ids=["empty", "binary", "nested", "nan", "overflow", "huge", "null"],
)
def test_hostile_files_get_one_sentence(tmp_path, data):
    (tmp_path / "rig.json").write_bytes(data)
    with pytest.raises(InputError, match=r"rig\.json is not a (usable )?rig file"):
        Rig.load(tmp_path / "rig.json")
    with pytest.raises(InputError, match="cannot read"):
        Rig.load(tmp_path / "missing.json")


@pytest.mark.parametrize("data", [b"[" * 60_000, b" " * 70_000, b'{"matrix": NaN}', b"{}"])
def test_a_stream_says_what_is_wrong_with_its_rig_file(tmp_path, data):
    (tmp_path / "rig.json").write_bytes(data)
    source = "sim?frames=1&size=64x48"
    arguments = ["stream", "--ir", source, "--vis", source, "--rig", str(tmp_path / "rig.json")]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    assert "rig.json is not a" in str(result.exception)


def test_a_rig_file_of_other_cameras_is_refused(tmp_path):
    Rig(IDENTITY, (640, 512), (1920, 1080)).save(tmp_path / "rig.json")
    source = "sim?frames=1&size=64x48"
    arguments = ["stream", "--ir", source, "--vis", source, "--rig", str(tmp_path / "rig.json")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    assert "another camera, or another crop" in str(result.exception)


def test_warps_each_pixel_to_its_place():
    aligned = shifted(8, -3).align()(gradient(), (48, 64))
    np.testing.assert_array_equal(aligned.image[:45, 8:], gradient()[3:, :56])
    assert aligned.valid is not None
    assert aligned.valid[20, 40] == 255
    assert aligned.valid[:, :8].max() == 0
    assert aligned.valid[45:].max() == 0
    assert aligned.valid[0, 40] == 255, "infrared goes on above: that is no edge"
    assert 0 < aligned.valid[20, 10] < 255


def test_full_cover_has_no_mask():
    rig = Rig(((2.0, 0.0, -30.0), (0.0, 2.0, -20.0), (0.0, 0.0, 1.0)), (64, 48), (64, 48))
    assert rig.align()(gradient(), (48, 64)).valid is None


def test_no_edge_is_seen_where_infrared_ends():
    aligned = shifted(20, 10).align()(gradient(), (48, 64))
    steps = np.abs(np.diff(aligned.image.astype(int), axis=1))
    assert steps.max() <= 2, "the picture goes on as in a mirror"


def test_a_source_of_another_size_is_rescaled_or_refused():
    rig = shifted(8, 4)
    double = cv2.resize(gradient(), (128, 96), interpolation=cv2.INTER_LINEAR)
    wanted = rig.align()(gradient(), (48, 64)).image.astype(int)
    got = rig.align()(double, (48, 64)).image.astype(int)
    assert np.abs(got - wanted)[8:, 12:].max() <= 2
    larger = rig.align()(gradient(), (96, 128))
    assert larger.image.shape == (96, 128)
    assert larger.valid is not None
    assert larger.valid[:, :15].max() == 0
    with pytest.raises(InputError, match=r"infrared picture is 64x64.*64x48"):
        rig.align()(np.zeros((64, 64), np.uint8), (48, 64))
    with pytest.raises(InputError, match="visible picture is 64x36"):
        rig.align()(gradient(), (36, 64))


def test_distance_moves_the_matrix_along_the_baseline(tmp_path):
    rig = Rig(IDENTITY, (640, 480), (640, 480), parallax=(60.0, 0.0, 0.0))
    assert rig.at(10.0).matrix[0][2] == pytest.approx(6.0)
    assert rig.at(10.0).at(5.0).matrix[0][2] == pytest.approx(12.0)
    with pytest.raises(InputError, match="no parallax"):
        shifted(1, 2).at(10.0)
    with pytest.raises(InputError, match="must be over 0"):
        rig.at(float("nan"))


def test_overlap_and_scaling():
    assert overlap_of(np.eye(3), (64, 48), (64, 48)) == pytest.approx(1.0)
    assert overlap_of(np.array([[1, 0, 32], [0, 1, 0], [0, 0, 1.0]]), (64, 48), (64, 48)) == pytest.approx(
        0.5
    )
    assert scaling((10, 10), (20, 20)) @ (0, 0, 1) == pytest.approx([0.5, 0.5, 1])


def test_a_stream_is_aligned_and_cropped_by_the_rig_file(tmp_path):
    rig = Rig(((1.0, 0.0, 32.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), (320, 240), (320, 240))
    rig.save(tmp_path / "rig.json")
    source = "sim?frames=2&size=320x240"
    arguments = ["stream", "--ir", source, "--vis", source, "--out", str(tmp_path / "frames/")]
    result = CliRunner().invoke(
        app, [*arguments, "--rig", str(tmp_path / "rig.json"), "--set", "crop=overlap"]
    )
    assert result.exit_code == 0, result.output
    written = read_visible(next((tmp_path / "frames").iterdir()))
    assert written.shape[0] == 240
    assert 270 < written.shape[1] < 290, "the soft edge is left out too"
    result = CliRunner().invoke(app, [*arguments, "--set", "crop=overlap"])
    assert isinstance(result.exception, InputError)


def test_a_source_that_is_shifted_is_fused_only_where_it_has_a_picture(tmp_path):
    for role in ("ir", "vis"):
        (tmp_path / role).mkdir()
        write_image(tmp_path / role / "0.png", np.dstack([gradient()] * (1 if role == "ir" else 3)).squeeze())
    ir, vis = f"{tmp_path / 'ir'}?shift=20,0", str(tmp_path / "vis")
    with live(ir, vis, lambda ir, vis: np.full_like(vis, 7)) as frames:
        frame = next(frames)
    assert frame.ir is not None
    assert frame.vis is not None
    np.testing.assert_array_equal(frame.ir[:, 20:], gradient()[:, :44])
    np.testing.assert_array_equal(frame.fused[:, :20], frame.vis[:, :20])
    assert (frame.fused[:, 24:] == 7).all()
    shifted(0, 10).save(tmp_path / "rig.json")
    with live(ir, vis, lambda ir, vis: np.full_like(vis, 7), align=tmp_path / "rig.json") as frames:
        frame = next(frames)
    assert frame.vis is not None
    assert (frame.fused[14:, 24:] == 7).all()
    np.testing.assert_array_equal(frame.fused[:10], frame.vis[:10])
    np.testing.assert_array_equal(frame.fused[:, :20], frame.vis[:, :20])


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (("sim", "sim"), None),
        (("", ""), None),
        (("rec/ir", "rec/vis"), None),
        (("cam0", "cam1"), "made with cam0 and cam1, not sim and sim"),
    ],
)
def test_a_rig_file_of_cameras_with_other_names_is_doubted(tmp_path, caplog, known, said):
    rig = replace(shifted(1, 2), ir_camera=known[0], vis_camera=known[1])
    rig.save(tmp_path / "rig.json")
    options = "?size=64x48"
    arguments = ["stream", "--ir", f"sim{options}", "--vis", f"sim{options}", "--duration", "0.3"]
    CliRunner().invoke(app, [*arguments, "--rig", str(tmp_path / "rig.json")])
    assert ("the rig file was made with" in caplog.text) == (said is not None)
    assert said is None or said in caplog.text


def test_exchanged_names_are_said_so(caplog):
    cameras = [Camera(name, lambda: None) for name in ("cam1?fps=9", "cam0")]  # type: ignore[arg-type, return-value]
    rig = replace(shifted(1, 2), ir_camera="cam0", vis_camera="cam1")
    doubt_rig(rig.align(), *cameras)
    assert "made with cam0 as infrared and cam1 as visible" in caplog.text


def test_distance_refine_and_crop_are_options(tmp_path):
    parallax = replace(shifted(4, 0), parallax=(40.0, 0.0, 0.0))
    parallax.save(tmp_path / "rig.json")
    source = "sim?frames=2&size=64x48"
    arguments = ["stream", "--ir", source, "--vis", source, "--out", str(tmp_path / "frames/")]
    options = ["--distance", "5", "--crop", "overlap", "--refine", "live"]
    result = CliRunner().invoke(app, [*arguments, "--rig", str(tmp_path / "rig.json"), *options])
    assert result.exit_code == 0, result.output
    written = read_visible(next((tmp_path / "frames").iterdir()))
    assert written.shape[1] == pytest.approx(64 - 4 - 8 - 3, abs=1), "shift, parallax, soft edge"


def test_fuser_and_live_take_the_name_of_a_rig_file(tmp_path):
    rig = Rig(((1.0, 0.0, 160.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), (320, 240), (320, 240))
    rig.save(tmp_path / "rig.json")
    source = "sim?frames=1&size=320x240"
    with live(source, source, lambda ir, vis: np.full_like(vis, 7), align=tmp_path / "rig.json") as frames:
        frame = next(frames)
    assert frame.vis is not None
    np.testing.assert_array_equal(frame.fused[:, :160], frame.vis[:, :160])
    assert (frame.fused[:, 180:] == 7).all()


def test_record_keeps_the_rig_file(tmp_path, caplog):
    shifted(1, 2).save(tmp_path / "rig.json")
    source, out = "sim?frames=2&size=64x48", str(tmp_path / "recorded")
    arguments = ["--ir", source, "--vis", source, "--out", out, "--rig", str(tmp_path / "rig.json")]
    result = CliRunner().invoke(app, ["record", *arguments])
    assert result.exit_code == 0, result.output
    assert Rig.load(tmp_path / "recorded" / "rig.json") == shifted(1, 2)
    replay = ["--ir", f"{out}/ir", "--vis", f"{out}/vis", "--out", str(tmp_path / "fused.mkv")]
    result = CliRunner().invoke(app, ["stream", *replay])
    assert result.exit_code == 0, result.output
    assert f"give --rig {Path(out) / 'rig.json'}" in caplog.text
    caplog.clear()
    result = CliRunner().invoke(app, ["stream", *replay, "--rig", f"{out}/rig.json"])
    assert result.exit_code == 0, result.output
    assert "rig file" not in caplog.text


def save_pair(folder, ir, vis):
    for name, image in (("ir", ir), ("vis", vis)):
        (folder / name).mkdir()
        write_image(folder / name / "0.png", image)


def scene(size=(120, 160)):
    noise = np.random.default_rng(4).normal(0, 1, size).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def test_only_the_overlap_is_scored(tmp_path):
    picture = scene()
    vis = picture.copy()
    vis[:, 110:] = 0  # where infrared has nothing
    save_pair(tmp_path, picture[10:110, 20:100], vis)
    rig = Rig(((1.0, 0.0, 20.0), (0.0, 1.0, 10.0), (0.0, 0.0, 1.0)), (80, 100), (160, 120))
    settings = Settings(metrics=("PSNR",), rig=rig)
    candidates = [baseline("average"), folder(str(tmp_path / "vis"), "whole")]
    result = evaluate(tmp_path / "ir", tmp_path / "vis", candidates, settings)
    (pair,) = result.pairs
    for name in ("average", "whole"):  # all three are the same picture there
        assert pair.scores[name]["PSNR"].total > 60, name
    assert "only where it covers" in summary_table(result).note
    with pytest.raises(InputError, match="give --rig FILE"):
        evaluate(tmp_path / "ir", tmp_path / "vis", candidates, Settings(metrics=("PSNR",)))


def test_training_sees_the_overlap_aligned(tmp_path):
    cache = pytest.importorskip("edgefuse.train.cache", reason="the extra train is not installed")
    picture = scene()
    save_pair(tmp_path, picture[10:110, 20:100], picture)
    rig = Rig(((1.0, 0.0, 20.0), (0.0, 1.0, 10.0), (0.0, 0.0, 1.0)), (80, 100), (160, 120))
    rig.save(tmp_path / "rig.json")
    ir, vis = cache.cache_folders([tmp_path / "ir"], [tmp_path / "vis"], rig=str(tmp_path / "rig.json"))
    assert ir.shape(0) == vis.shape(0)
    assert min(ir.shape(0)) > 70
    assert np.array_equal(ir[0], vis[0])


def test_the_scored_rectangle_has_nothing_bare_in_it():
    turned = cv2.warpAffine(
        np.full((80, 100), 255, np.uint8), cv2.getRotationMatrix2D((50, 40), 8, 0.8), (100, 80)
    )
    area = covered(turned)
    assert turned[area].min() == 255
    assert turned[area].size > 0.6 * np.count_nonzero(turned == 255)
    assert turned[covered(np.zeros_like(turned))].size == 0


def test_a_rig_that_leaves_no_overlap_to_score_is_refused():
    with pytest.raises(InputError, match="covers 0x0 pixels"):
        Overlap(shifted(63, 0)).visible(gradient())
