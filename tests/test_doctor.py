"""The check of a machine: each finding with what to do about it."""

import errno
import json
import os
import struct
import subprocess
import sys
import threading
import types

import pytest

from edgefuse import doctor, doctor_hardware
from edgefuse.doctor_hardware import Finding
from edgefuse.errors import BackendError
from edgefuse.runtime.engines.onnxruntime import CpuEngine


def only(monkeypatch, **checks):
    monkeypatch.setattr(doctor, "CHECKS", checks)


def test_findings_are_printed_and_a_problem_is_the_exit_code(run, monkeypatch):
    only(
        monkeypatch,
        a=lambda: [Finding("ok", "fine [b] :b:")],
        b=lambda: [Finding("warning", "odd", "Do this.")],
    )
    status, out, _ = run("doctor")
    assert status == 0
    assert out.splitlines() == [
        "ok      a: fine [b] :b:",
        "warning b: odd",
        "        → Do this.",
        "0 problems, 1 warnings, 1 ok",
    ]

    def broken():
        raise ZeroDivisionError("no\nway")

    only(monkeypatch, c=broken)
    status, out, _ = run("doctor", "--json")
    assert status == 1
    (found,) = json.loads(out)["findings"]
    assert json.loads(out)["ok"] is False
    assert (found["status"], found["check"]) == ("problem", "c")
    assert found["text"] == "could not be checked: ZeroDivisionError: no"


def test_two_builds_of_a_package_are_a_problem(monkeypatch):
    both = {"onnxruntime": "1.23", "onnxruntime-openvino": "1.22", "onnxruntime-extensions": "0.14"}
    monkeypatch.setattr(doctor, "_installed", lambda: both)
    (found,) = doctor.wheels()
    assert found.status == "problem"
    assert "onnxruntime 1.23, onnxruntime-openvino 1.22 overwrite" in found.text
    assert found.fix.startswith("pip uninstall -y onnxruntime onnxruntime-openvino,")


@pytest.mark.parametrize(
    ("package", "status"), [("nvidia-cublas-cu12", "ok"), ("nvidia-cublas", "problem"), ("numpy", "ok")]
)
def test_cuda_packages_are_of_the_major_that_onnxruntime_is_built_for(monkeypatch, package, status):
    about = types.ModuleType("onnxruntime.capi.build_and_package_info")
    monkeypatch.setattr(about, "cuda_version", "12.8", raising=False)
    capi = types.ModuleType("onnxruntime.capi")
    monkeypatch.setattr(capi, "build_and_package_info", about, raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime.capi", capi)
    monkeypatch.setattr(doctor, "_installed", lambda: {"onnxruntime-gpu": "1.23", package: "13.1.0"})
    assert [*doctor.wheels()][-1].status == status


def test_a_library_that_is_missing_is_a_finding(tmp_path):
    (tmp_path / "cv2.py").write_text('raise ImportError("libGL.so.1: cannot open shared object file")\n')
    code = "from edgefuse.doctor import opencv; print(*opencv())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert "'problem'" in done.stdout, done.stderr
    assert "apt install libgl1" in done.stdout


def test_an_engine_counts_if_it_really_runs(monkeypatch):
    class Broken(CpuEngine):
        def __init__(self, *args, **options):
            raise BackendError("no driver")

    monkeypatch.setattr("edgefuse.runtime.engines.ENGINES", {"cuda": Broken})
    warning, problem = doctor.engines()
    assert (warning.status, warning.text) == ("warning", "cuda: no driver")
    assert (problem.status, problem.fix) == ("problem", "pip install onnxruntime.")
    monkeypatch.undo()
    assert "cpu: runs, ONNX Runtime on cpu" in [found.text for found in doctor.engines()]


def test_cameras_with_their_formats(monkeypatch, tmp_path):
    def ioctl(handle, request, data):
        name = os.readlink(f"/proc/self/fd/{handle}")
        if name.endswith("video2"):
            raise OSError(errno.ENODEV, "No such device")
        if request == doctor.QUERYCAP:
            data[16:24] = b"Thermal\0"
            struct.pack_into("I", data, 88, 0 if name.endswith("video1") else doctor.CAPTURES)
        else:
            index, kind = struct.unpack_from("II", data)
            assert kind == doctor.CAPTURE_TYPE
            if index == 2:
                raise OSError(errno.EINVAL, "Invalid argument")
            data[44:48] = (b"Y16 ", b"YUYV")[index]

    pytest.importorskip("fcntl")
    monkeypatch.setattr("fcntl.ioctl", ioctl)
    monkeypatch.setattr(doctor, "DEVICES", tmp_path)
    assert [found.text for found in doctor.cameras()] == ["no camera is attached"]
    for n in range(3):
        (tmp_path / f"video{n}").touch()
    camera, gone = doctor.cameras()
    assert (camera.status, camera.text) == ("ok", "cam0: Thermal, formats Y16, YUYV")
    assert (gone.status, "No such device" in gone.text) == ("warning", True)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert {found.fix for found in doctor.cameras()} == {"sudo usermod -aG video $USER, then log in again."}


def test_codecs_that_are_missing(monkeypatch):
    (found,) = doctor.codecs()
    assert found.status == "ok"
    from edgefuse.runtime.sinks import video

    monkeypatch.setattr(video, "CODECS", {"h264": video.Codec("no_such_encoder", "", "")})
    (found,) = doctor.codecs()
    assert (found.status, "h264" in found.text) == ("problem", True)


def test_a_clock_that_was_never_set(monkeypatch):
    for state, status in ((0, "ok"), (doctor.UNSYNCHRONISED, "warning")):
        monkeypatch.setattr(doctor, "_clock_state", lambda state=state: state)
        assert [found.status for found in doctor.clock()] == [status]
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert [found.status for found in doctor.clock()] == ["problem"]


def test_folders_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEFUSE_CACHE", str(tmp_path / "file"))
    here, cache = doctor.disk()
    assert str(tmp_path) in here.text
    assert (cache.status, cache.fix) == ("warning", "Set EDGEFUSE_CACHE to a folder that you may write to.")


def test_the_self_test_fuses(monkeypatch, caplog):
    monkeypatch.setattr(doctor, "SELF_TEST_SECONDS", 2.0)
    (found,) = doctor.self_test()
    assert found.status in ("ok", "warning"), "a busy machine may be slow"
    assert "fused" in found.text
    assert "came back" in found.text
    assert not caplog.records, "nothing is logged in the middle of the table"


def test_a_camera_that_does_not_come_back_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "MOST_SELF_TEST_SECONDS", 3.0)
    monkeypatch.setattr(doctor, "UNPLUGGED", (0.1, 1e9))
    (found,) = doctor.self_test()
    assert found.status == "problem"
    assert "did not come back within 3 s" in found.text
    assert "came back" not in found.text


def test_a_check_that_hangs_does_not_hold_up_the_others(run, monkeypatch):
    never = threading.Event()

    def hanging():
        yield Finding("ok", "so far")
        never.wait(30)

    monkeypatch.setattr(doctor, "CHECK_SECONDS", 0.2)
    only(monkeypatch, a=hanging, b=lambda: [Finding("ok", "fine")])
    status, out, _ = run("doctor")
    assert status == 1
    lines = [line for line in out.splitlines() if "→" not in line]
    assert lines[:3] == ["ok      a: so far", "problem a: did not finish within 0.2 s", "ok      b: fine"]
    monkeypatch.setattr(doctor, "MOST_SECONDS", 0.1)
    hung, rest = [*doctor.examine()][1:]
    assert (hung.check, hung.status, rest.check, rest.status) == ("a", "problem", "b", "warning")
    assert rest.text.startswith("not checked")
    never.set()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A machine's files, to be written."""
    for name in ("DEVICES", "SYS", "ETC", "PROC"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(doctor_hardware, name, tmp_path / name)

    def write(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    return write


@pytest.mark.parametrize(
    ("speed", "apart", "status"), [("480", False, "warning"), ("5000", False, "ok"), ("480", True, "ok")]
)
def test_cameras_that_share_a_narrow_bus(tree, tmp_path, speed, apart, status):
    for n in range(2):
        bus = n if apart else 0
        tree(f"SYS/devices/usb{bus}/1-{n}/busnum", str(bus))
        tree(f"SYS/devices/usb{bus}/1-{n}/speed", speed)
        for node in (2 * n, 2 * n + 1):
            video = tmp_path / f"SYS/devices/usb{bus}/1-{n}/1-{n}:1.0/video4linux/video{node}"
            video.mkdir(parents=True)
            (video / "device").symlink_to(video.parents[1])
            (tmp_path / "SYS/class/video4linux").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"SYS/class/video4linux/video{node}").symlink_to(video)
    found = list(doctor_hardware.usb())
    assert [each.status for each in found] == [status] * (2 if apart else 1)
    assert all(f"at {speed} Mbit/s: 1-" in each.text for each in found)
    assert "(cam0)" in found[0].text


def test_settings_of_the_camera_driver(tree):
    assert [each.status for each in doctor_hardware.kernel()] == ["ok"]
    tree("SYS/module/uvcvideo/parameters/clock", "CLOCK_REALTIME")
    tree("SYS/module/uvcvideo/parameters/nodrop", "1")
    tree("SYS/module/uvcvideo/parameters/quirks", "2")
    clock, nodrop, rest = doctor_hardware.kernel()
    assert ("jumps" in clock.text, "incomplete" in nodrop.text) == (True, True)
    assert "quirks 2 are set" in rest.text


def test_a_virtual_machine_is_named(tree):
    tree("PROC/cpuinfo", "flags\t\t: fpu hypervisor sse\n")
    tree("SYS/class/dmi/id/sys_vendor", "QEMU")
    found = next(doctor_hardware.virtual())
    assert (found.status, found.text) == ("warning", "a virtual machine (QEMU)")
    tree("PROC/cpuinfo", "flags\t\t: fpu sse\n")
    assert next(doctor_hardware.virtual()).status == "ok"


@pytest.mark.parametrize(
    ("cuda", "packages", "status", "said"),
    [
        (None, [], "ok", "no NVIDIA driver"),
        ((12, 8), ["tensorrt-cu13"], "problem", "TensorRT is for CUDA 13"),
        ((13, 0), ["tensorrt-cu13"], "ok", "TensorRT for CUDA 13"),
        ((13, 0), ["tensorrt-cu12"], "ok", "TensorRT for CUDA 12"),
        ((12, 6), [], "ok", "pip install tensorrt-cu12"),
    ],
)
def test_tensorrt_is_compared_with_the_driver(tree, monkeypatch, cuda, packages, status, said):
    monkeypatch.setattr(doctor_hardware, "_driver_cuda", lambda: cuda)
    installed = [types.SimpleNamespace(metadata={"Name": name}) for name in packages]
    monkeypatch.setattr(doctor_hardware, "distributions", lambda: installed)
    (found,) = doctor_hardware.accelerators()
    assert (found.status, said in found.text) == (status, True)
    tree("ETC/nv_tegra_release", "# R36 (release), REVISION: 4.0")
    jetson, *_ = doctor_hardware.accelerators()
    assert "JetPack 6" in jetson.text
