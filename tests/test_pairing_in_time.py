"""Pairing by time and the clocks of two cameras: pure functions, without any camera."""

import random
from collections import Counter
from copy import copy
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefuse.runtime.cameras.clock import Clock
from edgefuse.runtime.frames import Frame, Role
from edgefuse.runtime.live.pairing import (
    LiveSynchronizer,
    OfflineSynchronizer,
    Pair,
    Synchronizer,
    choose_reference,
    choose_synchronizer,
)
from edgefuse.runtime.sources.base import SilencePolicy
from edgefuse.sim import Rig, RigConfig

IMAGE = np.zeros((1, 1), np.uint8)
RIG = Rig(RigConfig(size=(16, 16)))


def frame(index: int, at: float = 0.0) -> Frame:
    return Frame(IMAGE, index, at, at)


def ids(pair: Pair) -> tuple[int | None, int | None]:
    return None if pair.ir is None else pair.ir.index, None if pair.vis is None else pair.vis.index


# --- clocks


@given(
    offset=st.floats(-1e4, 1e4),
    drift=st.floats(-500, 500),
    jitter=st.floats(0, 0.03),
    fps=st.sampled_from([9.0, 25.0, 30.0, 60.0]),
    seed=st.integers(0, 99),
)
def test_offset_and_drift_are_found_under_jitter(
    offset: float, drift: float, jitter: float, fps: float, seed: int
) -> None:
    rng, clock, errors = random.Random(seed), Clock(), []
    rig = copy(RIG)
    rig.config = replace(rig.config, ir_clock_offset=offset, ir_clock_drift=drift, ir_fps=fps)
    for n in range(int(60 * fps)):
        true = rig.capture_time("ir", n)
        estimate = clock.observe(rig.timestamp("ir", n), true + jitter * rng.random())
        if true > 15:
            errors.append(abs(estimate - true))
    assert max(errors) < 1e-6 + 0.15 * jitter
    assert clock.drift == pytest.approx(drift, abs=1e-3 + 1e4 * jitter)
    assert -clock.offset == pytest.approx(offset + 60 * drift * 1e-6, abs=1e-3 + jitter)
    assert clock.jumps == 0


STEPS = st.one_of(st.floats(0.05, 0.45), st.floats(0.6, 1e5))


@given(
    step=st.one_of(STEPS, STEPS.map(lambda seconds: -seconds)),
    drift=st.floats(-300, 300),
    jitter=st.floats(0, 0.03),
    fps=st.sampled_from([9.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_a_clock_that_is_set_is_followed_within_five_seconds(
    step: float, drift: float, jitter: float, fps: float, seed: int
) -> None:
    rng, clock, errors = random.Random(seed), Clock(), []
    for n in range(int(40 * fps)):
        true = n / fps
        stamp = 100 + true * (1 + drift * 1e-6) + (step if true >= 20 else 0.0)
        error = abs(clock.observe(stamp, true + jitter * rng.random()) - true)
        if 15 < true < 20 or true > 25:
            errors.append(error)
    assert max(errors) < 2e-3 + 0.35 * jitter
    assert clock.jumps == 1


@pytest.mark.parametrize("wrap", [2**32 / 90_000, 2**33 / 90_000, 50.0])
def test_a_timestamp_that_wraps_is_followed(wrap: float) -> None:
    """RTP counts 90,000 to the second in 32 bits, MPEG-TS in 33; others begin at 0 as they please."""
    clock = Clock()
    found = [clock.observe((wrap - 4 + n / 25) % wrap, n / 25) for n in range(200)]
    assert found == pytest.approx([n / 25 for n in range(200)], abs=1e-6)
    assert clock.jumps == 1


@pytest.mark.parametrize("wrong", [1e9, 0.3, -0.3, -7.0])
def test_a_single_wrong_timestamp_changes_nothing(wrong: float) -> None:
    clock = Clock()
    for n in range(500):
        stamp = n / 25 + (wrong if n in (300, 330, 331) else 0.0)
        found = clock.observe(stamp if n != 350 else float("nan"), n / 25)
        assert found == pytest.approx(n / 25) or stamp != n / 25
    assert clock.jumps == 0


@pytest.mark.parametrize("seconds", [1.0, 2.5])
def test_a_congestion_does_not_move_the_clock(seconds: float) -> None:
    clock = Clock()
    for n in range(1000):
        true = n / 25
        found = clock.observe(true, true + (0.25 if 20 <= true < 20 + seconds else 0.01))
        assert found == pytest.approx(true + 0.01, abs=1e-6)
    assert clock.drift == pytest.approx(0.0, abs=1e-3)
    assert clock.jumps == 0


def test_what_no_clock_does_is_not_taken_for_a_drift() -> None:
    """A delay that grows by 5 ms a second, as of a buffer that fills."""
    clock = Clock()
    for n in range(1500):
        clock.observe(n / 25, n / 25 * 1.005)
        assert abs(clock.drift) < 601


def test_timestamps_without_sense_are_not_used() -> None:
    rng, clock = random.Random(0), Clock()
    found = [clock.observe(rng.uniform(-1e6, 1e6), n / 25) for n in range(500)]
    assert found == pytest.approx([n / 25 for n in range(500)], abs=0.5)


def test_a_burst_after_a_long_stall_is_not_taken_for_a_clock_that_was_set() -> None:
    """Three seconds held up, then sent in one: the last of them is on the line again."""
    clock, jumps = Clock(), []
    for n in range(400):
        arrived = n / 25 if not 250 <= n < 325 else 13.0 + (n - 250) * 0.004
        clock.observe(n / 25, max(arrived, n / 25))
        jumps.append(clock.jumps)
    assert jumps[-1] == 0


def test_a_burst_after_a_stall_does_not_move_the_clock() -> None:
    clock = Clock()
    for n in range(250):
        clock.observe(n / 25, n / 25 + 0.05)
    held_up = [clock.observe(n / 25, 255 / 25 + 0.05) for n in range(250, 256)]
    assert held_up == pytest.approx([n / 25 + 0.05 for n in range(250, 256)], abs=1e-6)


# --- every frame of a recording


@given(
    counts=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    rates=st.tuples(st.sampled_from([7.0, 9.0, 25.0, 30.0]), st.sampled_from([25.0, 30.0, 60.0])),
    start=st.floats(-0.5, 0.5),
)
def test_every_frame_gets_the_nearest_partner_once(
    counts: tuple[int, int], rates: tuple[float, float], start: float
) -> None:
    times: dict[Role, list[float]] = {
        "ir": [start + n / rates[0] for n in range(counts[0])],
        "vis": [n / rates[1] for n in range(counts[1])],
    }
    unpaired: Counter[Role] = Counter()
    pairer = OfflineSynchronizer("ir", limit=0.1, on_unpaired=lambda role: unpaired.update([role]))
    pairs, given_out = [], {"ir": 0, "vis": 0}
    while wants := pairer.wants:
        role = wants[0]
        if given_out[role] == counts[role == "vis"]:
            pairer.end(role)
        else:
            n = given_out[role]
            given_out[role] += 1
            pairer.push(role, frame(n), times[role][n], 0.0)
        while pair := pairer.pop(0.0):
            pairs.append(ids(pair))
    pairer.finish()
    best = {n: min(abs(at - t) for t in times["vis"]) for n, at in enumerate(times["ir"])}
    assert [n for n, _ in pairs] == [n for n, gap in best.items() if gap <= 0.1]
    for ir, vis in pairs:
        assert ir is not None
        assert vis is not None
        assert abs(times["ir"][ir] - times["vis"][vis]) == pytest.approx(best[ir])
    fused = {"ir": len({ir for ir, _ in pairs}), "vis": len({vis for _, vis in pairs})}
    assert {role: fused[role] + unpaired[role] for role in ("ir", "vis")} == given_out


# --- live


def test_of_two_partners_equally_near_the_later_one_is_taken() -> None:
    unpaired: list[Role] = []
    pairer = OfflineSynchronizer("vis", on_unpaired=unpaired.append)
    pairer.push("vis", frame(0), 1.0, 0.0)
    for n, at in enumerate((0.5, 1.5)):
        pairer.push("ir", frame(n), at, 0.0)
    pair = pairer.pop(0.0)
    assert pair is not None
    assert ids(pair) == (1, 0)
    assert unpaired == ["ir"]


class Play:
    """Two cameras on a clock that is turned by hand."""

    def __init__(self, **options: Any) -> None:
        self.unpaired: Counter[Role] = Counter()
        self.pairer = LiveSynchronizer(**options, on_unpaired=lambda role: self.unpaired.update([role]))
        self.now = 0.0
        self.counts: dict[Role, int] = {"ir": 0, "vis": 0}

    def at(self, now: float, *roles: Role) -> list[tuple[int | None, int | None]]:
        """Let these cameras deliver a frame taken just now; return what comes out."""
        self.now, out = now, []
        for role in roles:
            self.pairer.push(role, frame(self.counts[role], now), now, now)
            self.counts[role] += 1
            out += self.pop()
        return out + (self.pop() if not roles else [])

    def pop(self) -> list[tuple[int | None, int | None]]:
        out = []
        while pair := self.pairer.pop(self.now):
            out.append(ids(pair))
        return out


def test_frames_of_one_moment_meet_in_either_order() -> None:
    for order in (("ir", "vis"), ("vis", "ir")):
        play, out = Play(), []
        for n in range(10):
            out += play.at(n * 0.04, order[0])
            out += play.at(n * 0.04 + 0.003, order[1])
        assert out == [(n, n) for n in range(10)]


def test_a_slow_infrared_frame_serves_several_visible_ones() -> None:
    play = Play(periods={"ir": 1 / 9, "vis": 1 / 30})
    out = []
    for n in range(60):
        if n % 3 == 0:
            out += play.at(n / 30, "ir")
        out += play.at(n / 30, "vis")
        out += play.at(n / 30 + 0.021)
    assert [vis for _, vis in out] == list(range(60))
    assert [ir for ir, _ in out[::3]] == list(range(20))


def test_the_infrared_camera_can_set_the_pace() -> None:
    play = Play(reference="ir", periods={"ir": 1 / 10, "vis": 1 / 30})
    out = []
    for n in range(60):
        out += play.at(n / 30, "vis")
        if n % 3 == 0:
            out += play.at(n / 30, "ir")
    assert out == [(n, 3 * n) for n in range(20)]
    play.pairer.finish()
    assert play.unpaired == {"vis": 40}


@given(st.lists(st.tuples(st.floats(0.001, 0.4), st.sampled_from(["ir", "vis"])), max_size=80))
def test_each_frame_is_shown_once_or_counted(steps: list[tuple[float, Role]]) -> None:
    play, now = Play(limit=0.05), 0.0
    pairer, skews, times = play.pairer, [], []
    used: dict[Role, int] = {"ir": 0, "vis": 0}
    for wait, role in steps:
        now += wait
        pairer.push(role, frame(play.counts[role], now), now, now)
        play.counts[role] += 1
        while pair := pairer.pop(now):
            skews.append(pair.skew)
            times.append(pair.time)
            for fresh in pair.fresh:
                used[fresh] += 1
    pairer.finish()
    assert all(skew <= 0.05 for skew in skews)
    assert {role: used[role] + play.unpaired[role] for role in ("ir", "vis")} == play.counts
    assert all(a <= b for a, b in pairwise(times))


def test_a_camera_is_shown_alone_while_the_other_is_silent() -> None:
    play = Play()
    assert play.at(0.0, "vis") == []
    assert play.at(1.9, "vis") == [], "the other one may still come up"
    assert play.at(2.1, "vis") == [(None, 2)]
    assert play.at(2.2, "ir") == []
    assert play.at(2.2, "vis") == [(0, 3)]
    assert play.at(2.8, "ir") == [(1, None)], "now it is the visible one that is silent"
    assert play.at(2.8, "vis") == [(1, 4)]


def test_frames_too_far_apart_are_in_no_pair() -> None:
    play = Play(limit=0.01)
    out = []
    for n in range(20):
        out += play.at(n * 0.04, "ir")
        out += play.at(n * 0.04 + 0.02, "vis")
    assert out == []
    play.pairer.finish()
    assert play.unpaired == {"ir": 20, "vis": 20}


def test_waiting_for_a_partner_that_never_comes_in_time_is_given_up() -> None:
    """Infrared is always due in 10 ms, and always comes in 30: soon nobody waits for it any more."""
    pairer, waits = LiveSynchronizer(periods={"ir": 0.04, "vis": 0.04}), 0
    for n in range(40):
        taken = n * 0.06
        pairer.push("ir", frame(n, taken - 0.04), taken - 0.04, taken - 0.03)
        pairer.push("vis", frame(n, taken), taken, taken)
        if pairer.pop(taken) is None:
            waits += 1
            assert pairer.due(taken) == pytest.approx(0.02)
            assert pairer.pop(taken + 0.021) is not None
    assert 5 <= waits <= 8


def test_nobody_waits_for_a_partner_that_is_not_due() -> None:
    """Between two infrared frames of 9 Hz, the next one may be nearer, but is 50 ms away."""
    pairer, waits = LiveSynchronizer(periods={"ir": 1 / 9, "vis": 1 / 30}), []
    for n in range(300):
        now = n / 30
        if n % 10 in (0, 3, 7):  # 0, 100 and 233 ms: about 9 Hz
            pairer.push("ir", frame(n, now), now, now + 1e-4)
        pairer.push("vis", frame(n, now), now, now + 2e-4)
        if pairer.pop(now + 2e-4) is None:
            waits.append(n % 10)
            assert pairer.pop(now + 0.021) is not None
    assert set(waits) == {6}, "11 ms before the next one is due"


def test_infrared_is_held_while_its_camera_is_silent() -> None:
    """Whichever camera leads: for `max_age` from its last frame on, then the visible picture is alone."""
    play = Play(max_age=1.0)
    play.at(0.0, "ir")
    assert play.at(0.0, "vis") == [(0, 0)]
    assert play.at(0.9, "vis") == [(0, 1)]
    assert play.at(1.1, "vis") == [(None, 2)]
    play = Play(reference="ir", max_age=1.0)
    play.at(0.0, "vis")
    assert play.at(0.0, "ir") == [(0, 0)]
    assert play.at(0.9, "vis") == [(0, 1)]
    assert play.at(1.1, "vis") == [(None, 2)]


def test_infrared_is_held_before_its_camera_is_overdue() -> None:
    """A frame is as old as its picture, a camera is silent since its frame came: between the two, too."""
    pairer = LiveSynchronizer(max_age=1.0)
    pairer.push("ir", frame(0), 0.0, 0.04)
    pairer.push("vis", frame(1), 0.255, 0.256)
    pair = pairer.pop(0.277)
    assert pair is not None
    assert pair.held
    assert pair.ir is not None


def test_a_held_frame_says_so_and_the_visible_one_is_never_held() -> None:
    pairer = LiveSynchronizer(max_age=1.0)
    pairer.push("ir", frame(0), 0.0, 0.0)
    pairer.push("vis", frame(0), 0.0, 0.0)
    first = pairer.pop(0.0)
    assert first is not None
    assert (first.held, first.skew, first.fresh) == (False, 0.0, ("vis", "ir"))
    pairer.push("vis", frame(1), 0.75, 0.75)
    held = pairer.pop(0.75)
    assert held is not None
    assert (held.held, held.skew, held.fresh, held.time) == (True, 0.75, ("vis",), 0.75)
    play = Play(reference="ir", max_age=1.0)
    play.at(0.0, "vis")
    play.at(0.0, "ir")
    assert play.at(0.9, "ir") == [(1, None)], "a visible picture of that age shows another scene"


def test_a_picture_that_is_repeated_counts_as_old_as_it_is() -> None:
    """A camera behind its shutter sends its last picture again and again."""
    unpaired: list[Role] = []
    pairer = LiveSynchronizer(max_age=1.0, on_unpaired=unpaired.append)
    for n, repeated in enumerate((0.0, 0.75, 1.25)):
        now = n * 0.04
        pairer.push("ir", replace(frame(n), repeated_s=repeated), now, now)
        pairer.push("vis", frame(n), now, now)
        pair = pairer.pop(now + 0.021)
        assert pair is not None
        assert ids(pair)[0] == min(n, 1), "the third is as good as none"
    assert unpaired == ["ir"]


def test_both_cameras_are_silent_only_if_each_is() -> None:
    pairer = LiveSynchronizer(silences={"ir": 1.0, "vis": 0.5}, grace=3.0)
    assert not pairer.silent(100.0), "nothing has begun"
    pairer.push("vis", frame(0), 0.0, 10.0)
    assert not pairer.silent(10.6), "infrared may still come up"
    assert not pairer.silent(13.0)
    assert pairer.silent(13.1)
    pairer.push("ir", frame(0), 4.0, 14.0)
    assert not pairer.silent(15.0)
    assert pairer.silent(15.1)


# --- which way two cameras are paired


def camera(fps: float, **facts: Any) -> Any:
    standard = {"live": False, "steady": True, "synchronised": False, "length": None}
    return SimpleNamespace(fps=fps, **standard | facts)


@pytest.mark.parametrize(
    ("ir", "vis", "asked", "leads"),
    [
        (camera(20), camera(25), None, "ir"),
        (camera(25), camera(25), None, "vis"),
        (camera(30), camera(25), None, "vis"),
        (camera(20), camera(25), "vis", "vis"),
        (camera(30), camera(25), "ir", "ir"),
        (camera(20, live=True), camera(25, live=True), None, "vis"),
        (camera(20, steady=False), camera(25), None, "vis"),
        (camera(20), camera(25, steady=False), None, "vis"),
        (camera(20, live=True, steady=False), camera(25), None, "vis"),
    ],
)
def test_the_slower_of_two_steady_recordings_leads(ir: Any, vis: Any, asked: Any, leads: Role) -> None:
    assert choose_reference({"ir": ir, "vis": vis}, asked) == leads


def apart(pairer: Synchronizer, seconds: float) -> bool:
    """Whether an infrared frame and a visible one that are so far apart make a pair."""
    pairer.push("vis", frame(0), 10.0, 0.0)
    pairer.push("ir", frame(0), 10.0 + seconds, 0.0)
    return pairer.pop(0.0) is not None


@pytest.mark.parametrize(
    ("ir", "vis", "limit"),
    [
        (camera(10), camera(10), 0.05),  # of one rate: half a period
        (camera(10), camera(10, synchronised=True), 0.05),
        (camera(10, synchronised=True), camera(10, synchronised=True), 0.1),
        (camera(10, length=100), camera(10, length=100), 0.05),
        (camera(10.01, length=40), camera(10, length=400), 1 / 20.02),  # part by 0.04 periods
        (camera(12.5, length=50), camera(10, length=40), 1 / 12.5),
        (camera(12.5), camera(10), 1 / 12.5),  # of unknown length: they may part by any number
        (camera(10, steady=False), camera(10), 0.25),
        (camera(4), camera(4, steady=False), 0.625),
    ],
)
def test_a_partner_further_off_than_the_missing_one_is_none(ir: Any, vis: Any, limit: float) -> None:
    for seconds, near in ((limit - 1e-6, True), (limit + 1e-6, False)):
        pairer = choose_synchronizer({"ir": ir, "vis": vis}, "vis", None, lambda _: None)
        assert apart(pairer, seconds) is near
    pairer = choose_synchronizer({"ir": ir, "vis": vis}, "vis", 0.001, lambda _: None)
    assert not apart(pairer, 0.002), "what the user says counts"


def test_live_cameras_are_paired_as_they_come() -> None:
    """Each with the time of its own to come up: that of the slower one counts."""

    def live(grace: float) -> Any:
        return camera(25, live=True, policy=lambda role: SilencePolicy(grace=grace))

    for ir, vis in ((5.0, 2.0), (2.0, 5.0)):
        cameras: dict[Role, Any] = {"ir": live(ir), "vis": live(vis)}
        pairer = choose_synchronizer(cameras, None, None, lambda _: None, max_age=0.2)
        assert isinstance(pairer, LiveSynchronizer)
        pairer.push("vis", frame(0), 0.0, 0.0)
        assert pairer.pop(4.9) is None
        assert pairer.pop(5.1) is not None


def test_a_clock_that_was_set_is_on_the_earliest_of_the_new_frames() -> None:
    """Five frames of the new time begin the line, and the least delayed one of them says where it is."""
    clock, delays = Clock(), (0.03, 0.01, 0.02, 0.04, 0.02)
    for n in range(250):
        clock.observe(n / 25, n / 25)
    for n, delay in enumerate(delays, 250):
        found = clock.observe(100 + n / 25, n / 25 + delay)
    assert clock.jumps == 1
    assert found == pytest.approx(254 / 25 + 0.01)


def test_each_time_that_a_clock_is_set_counts() -> None:
    clock = Clock()
    for n in range(1500):
        clock.observe(n / 25 + 100 * (n // 400), n / 25)
    assert clock.jumps == 3


def test_the_drift_is_that_of_all_whole_seconds() -> None:
    """Six seconds without noise say how fast a clock runs; frames at one moment say nothing."""
    clock = Clock()
    for n in range(7 * 25):
        clock.observe(n / 25 * (1 + 2e-4), n / 25)
    assert clock.drift == pytest.approx(200, abs=0.1)
    clock = Clock()
    for n in range(7 * 25):
        clock.observe(5.0, 5.0 + n / 25)
    assert clock.slope == 0.0
