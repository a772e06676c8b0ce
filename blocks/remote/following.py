"""Following the log of a source: one job of the agent that is watched until it is released."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from blocks.agent.protocol.events import Caught, Listening, Released
from blocks.agent.protocol.jobs import FollowJob
from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.evidence.catalogue import FindingId
from blocks.hosts.host import Host
from blocks.remote.leases import StoreLeases
from blocks.remote.run import AgentThread

CHECK_SECONDS = 5.0
"""How often the source is asked what following its log costs it."""
RELEASE_SECONDS = 20.0
"""How long the source may take to let go of a receiver, before it is told to by other means."""


class LogNotFollowed(PermanentError):
    """The following of the log ended before it was to."""

    finding = FindingId.LOG_NOT_FOLLOWED


class LogInterrupted(TransientError):
    """The same, where another attempt may help."""

    finding = FindingId.LOG_NOT_FOLLOWED


class Follower:
    """Receives the log on a host until it is released; what ends it earlier is a failure.

    `check` is called now and then, and raises PermanentError where following must end: it burdens
    the source; LogInterrupted where another attempt will not. What it cannot find out
    (TransientError) changes nothing. `released` is called once
    the host has given back what the server kept for it.
    """

    def __init__(  # noqa: PLR0913 (the job, where it runs, and what it calls)
        self,
        host: Host,
        rehearsal_id: str,
        job: FollowJob,
        leases: StoreLeases,
        check: Callable[[], None],
        released: Callable[[], None],
    ) -> None:
        self._host = host
        self._check = check
        self._tell_released = released
        self._failure: FarsideError | None = None
        self._guarded: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._released = threading.Event()
        self._thread = AgentThread(
            host, rehearsal_id, job, leases, heard=self._heard, ended=self._ended
        )
        threading.Thread(target=self._watch, name=f"{host.name}-watch", daemon=True).start()

    def check(self) -> None:
        """Raise what ended it, if anything did: LogNotFollowed, LogInterrupted."""
        if self._failure is not None:
            raise self._failure

    @contextmanager
    def guarding(self, end: Callable[[], None]) -> Iterator[None]:
        """Call `end` as soon as the log is not followed any more, and raise why.

        What runs inside would be worth nothing without the log, and may take hours.
        """
        with self._lock:
            self._guarded.append(end)
        try:
            self.check()
            yield
        except FarsideError:
            self.check()
            raise
        finally:
            with self._lock:
                self._guarded.remove(end)
        self.check()

    def release(self) -> bool:
        """End it in good order; whether the source is known to keep nothing for it any more."""
        self._over.set()
        self._thread.tell_stop()
        give_up = time.monotonic() + RELEASE_SECONDS
        while not self._released.wait(0.1):
            if time.monotonic() > give_up or not self._thread.is_running():
                break
        return self._released.is_set()

    def abandon(self) -> None:
        """End it at once, whatever state its host is in. Idempotent."""
        self._over.set()
        self._thread.abandon()

    def _heard(self, event: Listening | Caught | Released) -> None:
        if isinstance(event, Released):
            self._tell_released()
            self._released.set()

    def _watch(self) -> None:
        while not self._over.wait(CHECK_SECONDS):
            try:
                self._check()
            except (PermanentError, LogInterrupted) as error:
                self._fail(error)
                self.release()
                self.abandon()
            except TransientError:
                continue

    def _ended(self, error: BaseException | None) -> None:
        if not self._over.is_set():
            self._fail(error)

    def _fail(self, error: BaseException | None) -> None:
        """Note the first failure, and end what is guarded."""
        self._over.set()
        kind = LogInterrupted if isinstance(error, TransientError) else LogNotFollowed
        why = error.message if isinstance(error, FarsideError) else str(error or "it was stopped")
        with self._lock:
            if self._failure is None:
                self._failure = kind(
                    f"the source's log is not followed any more: {why}",
                    operation="follow log",
                    hint=error.hint if isinstance(error, FarsideError) else "",
                    subject=f"{self._host.domain}/{self._host.name}",
                )
            guarded = list(self._guarded)
        for end in guarded:
            with suppress(FarsideError):
                end()
