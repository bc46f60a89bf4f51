"""Which infrared frame belongs to which visible one. Pure: frames and the time go in, pairs come out."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.frames import NOMINAL_FPS, ROLES, Frame, Role
from edgefuse.runtime.sources.base import SilencePolicy, Source

OnUnpaired: TypeAlias = Callable[[Role], None]
"""Called for each frame that was taken in and will never be in a pair."""

MAX_SLIP = 0.5  # periods by which two recordings of one rate may part until the end
PARTNERS = 4  # frames to choose from
LATE_SECONDS, LATE_PERIODS = 0.25, 2.5  # a frame that is older than both shows another scene
MAX_WAIT = 0.02  # seconds that a frame waits for a partner that is nearer in time
VAIN_WAITS, RETRY = 5, 32  # after so many waits in vain, only every 32nd frame tries again


@dataclass(frozen=True, slots=True)
class Pair:
    """Two frames to be fused, or one whose partner is lost."""

    ir: Frame | None
    vis: Frame | None
    time: float
    """Of the leading frame, in seconds on the clock that frames are paired by."""
    skew: float = 0.0
    """Seconds between the two frames."""
    fresh: tuple[Role, ...] = ("ir", "vis")
    """The cameras whose frame was in no pair before."""
    held: bool = False
    """The infrared frame is older than a pair allows: its camera is silent, as behind its shutter."""

    @property
    def captured(self) -> float:
        """`time.monotonic()` of the arrival of the newer frame, in seconds."""
        return max(frame.captured for frame in (self.ir, self.vis) if frame is not None)


class Synchronizer(Protocol):
    """A way to pair."""

    @property
    def wants(self) -> tuple[Role, ...]:
        """The cameras whose next frame is needed to go on; empty: `end` was called and all is over."""

    def push(self, role: Role, frame: Frame, at: float, now: float) -> None:
        """Take one frame in: `at` is its time on the clock that frames are paired by, `now` the present."""

    def pop(self, now: float) -> Pair | None:
        """Return the next pair, if there is one."""

    def due(self, now: float) -> float:
        """Return after how many seconds `pop` may answer otherwise, with no further frame."""

    def end(self, role: Role) -> None:
        """Hear that this camera has no more frames."""

    def finish(self) -> None:
        """Count the frames that are left over."""


def other(role: Role) -> Role:
    """Return the other camera."""
    return "vis" if role == "ir" else "ir"


@dataclass(slots=True)
class PendingFrame:
    """A frame that waits for its partner."""

    frame: Frame
    at: float
    used: bool = False


class OfflineSynchronizer:
    """Every frame of one recording, each exactly once, with the nearest of the other.

    Args:
        reference: the camera whose frames each get a partner.
        limit: a partner further off than this, on the clock that frames are paired by, is none.
        on_unpaired: called for each frame that will never be in a pair.
    """

    def __init__(
        self,
        reference: Role = "vis",
        limit: float = math.inf,
        *,
        on_unpaired: OnUnpaired = lambda _: None,
    ) -> None:
        self._reference, self._partner, self._limit = reference, other(reference), limit
        self._on_unpaired = on_unpaired
        self._waiting: deque[PendingFrame] = deque()
        self._near: deque[PendingFrame] = deque()
        self._ended: set[Role] = set()

    @property
    def wants(self) -> tuple[Role, ...]:
        """Frames of the reference until one waits, then partners until one is not earlier than it."""
        if not self._waiting:
            return () if self._reference in self._ended else (self._reference,)
        if self._partner in self._ended:
            return () if not self._near else (self._reference,)
        return (self._partner,)

    def push(self, role: Role, frame: Frame, at: float, now: float) -> None:
        """Take one frame in."""
        del now
        (self._waiting if role == self._reference else self._near).append(PendingFrame(frame, at))

    def pop(self, now: float) -> Pair | None:
        """Return the waiting frame with its partner once no later one can be nearer."""
        del now
        while self._waiting:
            lead = self._waiting[0]
            while len(self._near) > 1 and abs(self._near[1].at - lead.at) <= abs(self._near[0].at - lead.at):
                self._give_up(self._partner, self._near.popleft())
            settled = self._partner in self._ended or (self._near and self._near[-1].at >= lead.at)
            if not settled:
                return None
            self._waiting.popleft()
            best = self._near[0] if self._near else None
            if best is not None and abs(best.at - lead.at) <= self._limit:
                return _pair_of(self._reference, lead, best)
            self._give_up(self._reference, lead)
            if self._partner in self._ended and (best is None or best.at < lead.at):
                self._ended.add(self._reference)
        return None

    def due(self, now: float) -> float:
        """Time alone changes nothing."""
        del now
        return math.inf

    def end(self, role: Role) -> None:
        """Hear that this recording is over."""
        self._ended.add(role)

    def finish(self) -> None:
        """Count the frames that are left over."""
        for role, frames in ((self._reference, self._waiting), (self._partner, self._near)):
            for pending in frames:
                self._give_up(role, pending)
            frames.clear()

    def _give_up(self, role: Role, pending: PendingFrame) -> None:
        if not pending.used:
            self._on_unpaired(role)


class LiveSynchronizer:
    """Each frame of the leading camera with the nearest of the other, as they come.

    A frame of the leading camera waits up to 20 ms for a partner that is about to come and will be
    nearer. While the other camera sends nothing new it is shown alone; while the leading camera is silent,
    the other's frames are. Where it is allowed, the last infrared frame is held for a while instead.

    Args:
        reference: the leading camera; the other's frames can serve several of its frames.
        limit: seconds that two frames of a pair may be apart, so that frames that never come closer are in no
            pair; None: a quarter of a second, or 2.5 periods of the other camera.
        max_age: seconds for which the last infrared frame is held while its camera is silent, or repeats it.
            None: not at all while it is silent, for as long as it counts as a calibration while it repeats.
        silences: after how many seconds without a frame a camera counts as silent, by role.
        periods: nominal seconds between two frames, by role.
        grace: seconds from the first frame on in which a camera may come up before the other is shown alone.
        on_unpaired: called for each frame that will never be in a pair.
    """

    def __init__(
        self,
        reference: Role = "vis",
        limit: float | None = None,
        silences: dict[Role, float] | None = None,
        periods: dict[Role, float] | None = None,
        *,
        max_age: float | None = None,
        grace: float = SilencePolicy.grace,
        on_unpaired: OnUnpaired = lambda _: None,
    ) -> None:
        self._max_age, self._max_repeat = max_age or 0.0, math.inf if max_age is None else max_age
        self._grace, self._on_unpaired = grace, on_unpaired
        self.silences: dict[Role, float] = silences or dict.fromkeys(ROLES, SilencePolicy.stutter)
        self.periods: dict[Role, float] = periods or dict.fromkeys(ROLES, 1 / NOMINAL_FPS)
        self._reference, self._partner, self._limit = reference, other(reference), limit
        self._lead: PendingFrame | None = None
        self._lead_came = 0.0
        self._held: PendingFrame | None = None  # the last leading frame that was in a pair
        self._partners: deque[PendingFrame] = deque()
        self._seen: dict[Role, float] = {}
        self._begun: float | None = None
        self._vain = 0

    @property
    def wants(self) -> tuple[Role, ...]:
        """Both: the partner first, so that a leading frame meets the newest."""
        return (self._partner, self._reference)

    def push(self, role: Role, frame: Frame, at: float, now: float) -> None:
        """Take one frame in."""
        if frame.repeated_s > self._max_repeat:  # as good as none
            self._on_unpaired(role)
            return
        self._begun = now if self._begun is None else self._begun
        self._seen[role] = now
        if role == self._reference:
            self._drop_lead()
            self._lead, self._lead_came = PendingFrame(frame, at), now
            return
        self._partners.append(PendingFrame(frame, at))
        if len(self._partners) > PARTNERS:
            self._give_up(self._partner, self._partners.popleft())

    def pop(self, now: float) -> Pair | None:
        """Return the leading frame with its partner, or one frame alone while the other camera is silent."""
        lead = self._lead
        if lead is None:
            return self._without_lead(now)
        best = min(self._partners, key=lambda one: abs(one.at - lead.at), default=None)
        silent = self._silent(self._partner, now)
        overdue = silent or self._overdue(self._partner, now)
        if best is not None and self._are_near(best, lead):
            if not silent and self._waits_on(lead, best, now):
                return None
            self._lead, self._held = None, lead
            return _pair_of(self._reference, lead, best)
        if not overdue and (best is None or self._waits_on(lead, best, now)):
            return None
        if overdue or self._limit is None:
            self._lead = None
            if best is not None and self._may_hold(self._partner, best, lead):
                self._held = lead
                return _pair_of(self._reference, lead, best, held=True)
            return _alone(self._reference, lead)
        self._drop_lead()
        return None

    def due(self, now: float) -> float:
        """Return after how many seconds a leading frame that waits will wait no longer."""
        return max(0.0, self._lead_came + self._patience() - now) if self._lead else math.inf

    def end(self, role: Role) -> None:
        """A camera does not end."""

    def finish(self) -> None:
        """Count the frames that are left over."""
        self._drop_lead()
        while self._partners:
            self._give_up(self._partner, self._partners.popleft())

    def silent(self, now: float) -> bool:
        """Return whether both cameras are."""
        return all(self._silent(role, now) for role in (self._reference, self._partner))

    def _silent(self, role: Role, now: float) -> bool:
        if role not in self._seen:
            return self._begun is not None and now - self._begun > self._grace
        return now - self._seen[role] > self.silences[role]

    def _overdue(self, role: Role, now: float) -> bool:
        """Whether no new frame can be near any more, though the camera may not count as silent yet."""
        return role in self._seen and now - self._seen[role] > self._late(role)

    def _late(self, role: Role) -> float:
        return _late(self.periods[role])

    def _max_skew(self) -> float:
        return self._late(self._partner) if self._limit is None else self._limit

    def _may_hold(self, role: Role, old: PendingFrame, new: PendingFrame) -> bool:
        return role == "ir" and new.at - old.at + old.frame.repeated_s <= self._max_age

    def _are_near(self, partner: PendingFrame, lead: PendingFrame) -> bool:
        skew, repeated = abs(partner.at - lead.at), partner.frame.repeated_s
        return skew <= self._max_skew() and (not repeated or skew + repeated <= self._max_repeat)

    def _without_lead(self, now: float) -> Pair | None:
        """While no leading frame comes: the other's newest one, unless it was shown already."""
        partner = self._partners[-1] if self._partners else None
        if partner is None or partner.used:
            return None
        quiet = max(SilencePolicy.stutter, self._late(self._reference))
        if not self._silent(self._reference, now) and (
            self._reference not in self._seen or now - self._seen[self._reference] <= quiet
        ):
            return None
        if self._held is not None and self._may_hold(self._reference, self._held, partner):
            return _pair_of(self._partner, partner, self._held, held=True)
        return _alone(self._partner, partner)

    def _patience(self) -> float:
        return min(MAX_WAIT, self.periods[self._reference] / 2)

    def _waits_on(self, lead: PendingFrame, best: PendingFrame, now: float) -> bool:
        """Whether a partner is about to come that is nearer to the leading frame than the best so far."""
        newest = self._partners[-1]
        nearer = abs(newest.at + self.periods[self._partner] - lead.at) < abs(best.at - lead.at) - 1e-3
        if not nearer or newest.at >= lead.at:
            self._vain = 0 if newest.at >= lead.at else self._vain
            return False
        if self._seen[self._partner] + self.periods[self._partner] > self._lead_came + self._patience():
            return False  # it will be too late
        if self._vain >= VAIN_WAITS and lead.frame.index % RETRY:
            return False
        if now < self._lead_came + self._patience():
            return True
        self._vain += 1
        return False

    def _drop_lead(self) -> None:
        if self._lead is not None:
            self._give_up(self._reference, self._lead)
            self._lead = None

    def _give_up(self, role: Role, pending: PendingFrame) -> None:
        if not pending.used:
            self._on_unpaired(role)


def _pair_of(lead_role: Role, lead: PendingFrame, partner: PendingFrame, held: bool = False) -> Pair:
    """Return a pair, in which `lead` is of the camera `lead_role`, and mark both as used."""
    frames = {lead_role: lead.frame, other(lead_role): partner.frame}
    fresh = tuple(role for role, one in ((lead_role, lead), (other(lead_role), partner)) if not one.used)
    lead.used = partner.used = True
    return Pair(frames["ir"], frames["vis"], lead.at, abs(lead.at - partner.at), fresh, held)


def _alone(role: Role, held: PendingFrame) -> Pair:
    """Return a frame without a partner, and mark it as used."""
    held.used = True
    frame = held.frame
    return Pair(frame if role == "ir" else None, frame if role == "vis" else None, held.at, 0.0, (role,))


def choose_reference(cameras: Mapping[Role, Source | Camera], asked: Role | None = None) -> Role:
    """Return the camera whose frames each get a partner.

    Args:
        cameras: by role.
        asked: by the user; None: the slower of two recordings of a steady rate, else the visible one. A mean
            rate does not tell which of two has a picture at every moment.
    """
    if asked is None and all(camera.steady and not camera.live for camera in cameras.values()):
        return "ir" if cameras["ir"].fps < cameras["vis"].fps else "vis"
    return asked or "vis"


def choose_synchronizer(
    cameras: Mapping[Role, Camera],
    reference: Role | None,
    limit: float | None,
    on_unpaired: OnUnpaired,
    max_age: float | None = None,
) -> Synchronizer:
    """Return what pairs the frames of two cameras: always by their times, never by a mean rate.

    Args:
        cameras: either both are live or none.
        reference: as `choose_reference` takes it.
        limit: seconds that two frames of a pair may be apart; None: see `LiveConfig.max_skew`.
        on_unpaired: called for each frame that will never be in a pair.
        max_age: as of `LiveSynchronizer`.
    """
    reference = choose_reference(cameras, reference)
    if any(camera.live for camera in cameras.values()):
        grace = max(camera.policy(role).grace for role, camera in cameras.items())
        return LiveSynchronizer(reference, limit, max_age=max_age, grace=grace, on_unpaired=on_unpaired)
    return OfflineSynchronizer(reference, limit or _limit(cameras, other(reference)), on_unpaired=on_unpaired)


def _late(period: float) -> float:
    """Return how much older than its partner a frame is that shows another scene, in seconds."""
    return max(LATE_SECONDS, LATE_PERIODS * period)


def _limit(cameras: Mapping[Role, Camera], partner: Role) -> float:
    """Return how far away a frame is no partner any more: the one that should be there is missing."""
    period = 1 / cameras[partner].fps
    if not all(camera.steady for camera in cameras.values()):
        return _late(period)
    if all(camera.synchronised for camera in cameras.values()):
        return period
    slow, fast = sorted(camera.fps for camera in cameras.values())
    lengths = [camera.length for camera in cameras.values() if camera.length is not None]
    slip = 0.0 if slow == fast else min(lengths, default=math.inf) * (fast / slow - 1)
    return period / 2 if slip < MAX_SLIP else period
