"""Takes, on one host, the calls that its packet filter redirects."""

import queue
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from blocks.agent.protocol.events import Caught, Listening, Released
from blocks.agent.protocol.jobs import WatchJob
from blocks.errors import FarsideError
from blocks.fences.fence import Attempt, FenceBroken
from blocks.hosts.host import Host
from blocks.remote.run import AgentThread

WATCHER_SECONDS = 60.0
"""How long the watcher on a host may take to start."""


class Watcher:
    """Takes, on one host, the calls that its packet filter redirects."""

    def __init__(self, host: Host, rehearsal_id: str) -> None:
        self._host = host
        self._caught: list[tuple[datetime, Caught]] = []
        self._ports: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._thread = AgentThread(host, rehearsal_id, WatchJob(), heard=self._hear)
        try:
            self.port = self._ports.get(timeout=WATCHER_SECONDS)
        except queue.Empty:
            self._thread.abandon()
            self._thread.check()
            raise FenceBroken(
                f"the watcher did not start within {WATCHER_SECONDS:.0f} s",
                operation="fence",
                domain=host.domain,
                host=host.name,
            ) from None

    def problems(self) -> Iterator[FarsideError]:
        """What ended it, if it has ended: then there may have been more calls than it saw."""
        try:
            self._thread.check()
        except FarsideError as error:
            yield error

    def attempts(self) -> Iterator[Attempt]:
        """The calls so far."""
        for at, call in self._caught:
            yield Attempt(
                at=at,
                host=self._host.name,
                address=call.address,
                port=call.port,
                pid=call.pid,
                process=call.process,
            )

    def stop(self) -> None:
        """End it; that its host may be gone does not matter."""
        with suppress(FarsideError):
            self._thread.stop(timeout=10)

    def _hear(self, event: Listening | Caught | Released) -> None:
        if isinstance(event, Listening):
            self._ports.put(event.port)
        elif isinstance(event, Caught):
            at = datetime.now(UTC) - timedelta(seconds=event.seconds_ago)
            self._caught.append((at, event))
