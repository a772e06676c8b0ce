"""How far a job is, told a few times a second."""

import threading
import time
from types import TracebackType

from blocks.agent.channel import Channel
from blocks.agent.protocol.events import Progress, StepTaken

_INTERVAL = 0.5
_AT_ONCE = 2


class Meter:
    """Counts bytes of each object; a context manager, whose exit tells the last state."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._counts: dict[str, list[int]] = {}
        self._changed: dict[str, None] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def add(self, name: str, *, raw: int = 0, sealed: int = 0) -> None:
        """Count bytes for the object `name`."""
        with self._lock:
            count = self._counts.setdefault(name, [0, 0])
            count[0] += raw
            count[1] += sealed
            self._changed.pop(name, None)
            self._changed[name] = None

    def count(self, name: str) -> tuple[int, int]:
        """Raw and sealed bytes of `name` so far."""
        with self._lock:
            raw, sealed = self._counts.get(name, (0, 0))
            return raw, sealed

    def step(self, name: str, started_at: float, size: int) -> None:
        """Tell of a step that ends now."""
        self._channel.tell(
            StepTaken(name=name, started_at=started_at, ended_at=time.time(), bytes=size)
        )

    def __enter__(self) -> "Meter":
        self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._ticker.join()

    def _tick(self) -> None:
        over = False
        while not over:
            over = self._over.wait(_INTERVAL)
            with self._lock:
                # The last telling leaves nothing out: it is what the totals are made of.
                names = list(self._changed)[0 if over else -_AT_ONCE :]
                for name in names:
                    del self._changed[name]
                events = [
                    Progress(object=name, raw=self._counts[name][0], sealed=self._counts[name][1])
                    for name in names
                ]
            for event in events:
                self._channel.tell(event)
