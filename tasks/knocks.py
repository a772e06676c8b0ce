"""farside's own calls of the source: told apart from others', they show what a fence can tell.

A fence's clock may be any, and a firewall names no process. What the proof of the fence did is
found in what the fence tells by place and number, close together as the calls were made.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from blocks.engines.checks import listed
from blocks.fences.fence import Attempt
from blocks.ownership import canonical

Place = tuple[str, int]
_NAMED: Place = ("", 0)
"""Stands for the places of the calls that bear farside's name."""
_TOLERANCE = timedelta(seconds=2)
"""How far stamps in whole seconds are apart, of machines that keep time a little differently."""


def place_of(attempt: Attempt) -> Place:
    """What was called, by one spelling."""
    return canonical(attempt.address), attempt.port


@dataclass(frozen=True, slots=True)
class Knocks:
    """How many calls there were, by address and port, and between which times.

    Of those to `denied` a fence must tell: they were let through before the loss.
    """

    rehearsal_id: str
    places: Counter[Place]
    denied: frozenset[Place]
    began: datetime
    ended: datetime

    def among(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Those of `attempts`, oldest first, that are farside's own.

        The probe hangs up quickly: a busy machine, too, does not name it. Of the calls that bear no
        name no more are farside's than it made, and all within the time that it took for them:
        that in which the most are found, or else the nearest.
        """
        named = [item for item in attempts if self._named(item)]
        free = self.places - Counter(map(place_of, named))
        free[_NAMED] = len(named)
        likely = [(item, key) for item in attempts if (key := self._key(item)) and free[key]]
        *_, since = max(self._fits(likely, free), default=(self.began,))
        for item, key in likely:
            within = timedelta() <= item.at - since <= self._span
            if key != _NAMED and within and free[key]:
                free[key] -= 1
                named.append(item)
        return named

    def ahead(self, own: Sequence[Attempt]) -> timedelta:
        """How far the clock that `own` bear is ahead: nothing that the calls' time explains."""
        if not own:
            return timedelta()
        least = max(item.at for item in own) - self.ended - _TOLERANCE
        most = min(item.at for item in own) - self.began + _TOLERANCE
        return timedelta() if least <= timedelta() <= most else (least + most) / 2

    def doubt(self, own: Sequence[Attempt]) -> str | None:
        """Why it is not known who called, if `own` are those that a fence tells of.

        By a clock that is off the call of another may be one of few that are taken for farside's.
        """
        places = {place_of(item) for item in own}
        missing = [f"{address}:{port}" for address, port in sorted(self.denied - places)]
        if missing and not own:
            return f"the fence tells of none of farside's own calls, to {listed(missing)}"
        if missing and (ahead := self.ahead(own)):
            return (
                f"the fence's clock is {ahead.total_seconds():+.0f} s away from here, and it tells"
                f" of no call of farside's own to {listed(missing)}: whether those at"
                f" {own[0].at:%H:%M:%S} are farside's is not known"
            )
        return None

    @property
    def _span(self) -> timedelta:
        return self.ended - self.began + _TOLERANCE

    def _fits(
        self, likely: Sequence[tuple[Attempt, Place]], free: Counter[Place]
    ) -> Iterator[tuple[int, timedelta, datetime]]:
        """How many calls the time from each on would explain, how near that is, and when it is."""
        window, held, fitting = deque[tuple[Attempt, Place]](), Counter[Place](), 0
        for item, key in likely:
            window.append((item, key))
            held[key] += 1
            fitting += held[key] <= free[key]
            while item.at - window[0][0].at > self._span:
                _, gone = window.popleft()
                fitting -= held[gone] <= free[gone]
                held[gone] -= 1
            since = window[0][0].at
            yield fitting, -abs(since - self.began), since

    def _key(self, attempt: Attempt) -> Place | None:
        if self._named(attempt):
            return _NAMED
        return None if attempt.process else place_of(attempt)

    def _named(self, attempt: Attempt) -> bool:
        """farside's own proof knocks at every endpoint; nothing else may."""
        process = attempt.process or ""
        return self.rehearsal_id in process and process.rstrip().endswith(" probe")
