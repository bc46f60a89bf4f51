"""Pairing live cameras: the newest, by time. Pure, as `pairing`."""

from collections import deque

from edgefuse.runtime.pairing import Held, Pair, alone, other, pair_of
from edgefuse.runtime.sources.base import Frame, Role

__all__ = ["Latest"]

KEPT = 4  # frames of the partner to choose from
GRACE = 2.0  # seconds in which a camera may come up before the other is shown alone
QUIET = 0.5  # seconds without a frame that are no stutter
MOST_WAIT = 0.02  # seconds that a frame waits for a partner that is nearer in time
VAIN_WAITS, RETRY = 5, 32  # after so many waits in vain, only every 32nd frame tries again


class Latest:
    """Each frame of the leading camera with the nearest of the other, as they come.

    A frame of the leading camera waits up to 20 ms for a partner that is about to come and will be
    nearer. Without a partner it is shown alone once the other camera is silent; while the leading
    camera is silent, the other's frames are. Before it counts as silent, as during a shutter calibration, its
    last frame is held for the other's. Frames that are both too far apart are in no pair.

    Args:
        rate: the leading camera; the other's frames can serve several of its frames.
        limit: seconds that two frames of a pair may be apart; None: the silence of the other camera.
        silences: after how many seconds without a frame a camera counts as silent, by role.
        periods: nominal seconds between two frames, by role.
    """

    def __init__(
        self,
        rate: Role = "vis",
        limit: float | None = None,
        silences: dict[Role, float] | None = None,
        periods: dict[Role, float] | None = None,
    ) -> None:
        self.unpaired: dict[Role, int] = {"ir": 0, "vis": 0}
        self.silences: dict[Role, float] = silences or {"ir": 0.5, "vis": 0.5}
        self.periods: dict[Role, float] = periods or {"ir": 0.04, "vis": 0.04}
        self._rate, self._partner, self._limit = rate, other(rate), limit
        self._lead: Held | None = None
        self._lead_came = 0.0
        self._held: Held | None = None  # the last leading frame that was in a pair
        self._partners: deque[Held] = deque()
        self._seen: dict[Role, float] = {}
        self._begun: float | None = None
        self._vain = 0

    @property
    def wants(self) -> tuple[Role, ...]:
        """Both: the partner first, so that a leading frame meets the newest."""
        return (self._partner, self._rate)

    def push(self, role: Role, frame: Frame, at: float, now: float) -> None:
        """Take one frame in."""
        self._begun = now if self._begun is None else self._begun
        self._seen[role] = now
        if role == self._rate:
            self._drop_lead()
            self._lead, self._lead_came = Held(frame, at), now
            return
        self._partners.append(Held(frame, at))
        if len(self._partners) > KEPT:
            self._give_up(self._partner, self._partners.popleft())

    def pop(self, now: float) -> Pair | None:
        """Return the leading frame with its partner, or one frame alone while the other camera is silent."""
        lead = self._lead
        if lead is None:
            return self._without_lead(now)
        best = min(self._partners, key=lambda held: abs(held.at - lead.at), default=None)
        silent = self._silent(self._partner, now)
        if best is not None and abs(best.at - lead.at) <= self._most_skew():
            if not silent and self._waits_on(lead, best, now):
                return None
            self._lead, self._held = None, lead
            return pair_of(self._rate, lead, best)
        if silent or self._quiet(self._partner, now):
            self._lead = None
            return alone(self._rate, lead)
        if best is not None and not self._waits_on(lead, best, now):
            self._drop_lead()
        return None

    def due(self, now: float) -> float:
        """Return after how many seconds a leading frame that waits will wait no longer."""
        return max(0.0, self._lead_came + self._patience() - now) if self._lead else float("inf")

    def end(self, role: Role) -> None:
        """A camera does not end."""

    def finish(self) -> None:
        """Count the frames that are left over."""
        self._drop_lead()
        while self._partners:
            self._give_up(self._partner, self._partners.popleft())

    def silent(self, now: float) -> bool:
        """Return whether both cameras are."""
        return all(self._silent(role, now) for role in (self._rate, self._partner))

    def _silent(self, role: Role, now: float) -> bool:
        if role not in self._seen:
            return self._begun is not None and now - self._begun > GRACE
        return now - self._seen[role] > self.silences[role]

    def _quiet(self, role: Role, now: float) -> bool:
        """Whether a frame is overdue, though the camera may not count as silent yet."""
        return role in self._seen and now - self._seen[role] > max(QUIET, 3 * self.periods[role])

    def _most_skew(self) -> float:
        return self.silences[self._partner] if self._limit is None else self._limit

    def _without_lead(self, now: float) -> Pair | None:
        """While no leading frame comes: the other's newest one, unless it was shown already."""
        partner = self._partners[-1] if self._partners else None
        if partner is None or partner.used:
            return None
        if self._silent(self._rate, now):
            return alone(self._partner, partner)
        held = self._held
        if held is None or not self._quiet(self._rate, now):
            return None
        limit = self.silences[self._rate] if self._limit is None else self._limit
        return pair_of(self._partner, partner, held) if abs(held.at - partner.at) <= limit else None

    def _patience(self) -> float:
        return min(MOST_WAIT, self.periods[self._rate] / 2)

    def _waits_on(self, lead: Held, best: Held, now: float) -> bool:
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
            self._give_up(self._rate, self._lead)
            self._lead = None

    def _give_up(self, role: Role, held: Held) -> None:
        self.unpaired[role] += not held.used
