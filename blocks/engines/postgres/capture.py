"""The capture of a source: a base backup, and its log from before that on."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import partial

from pydantic import SecretStr

from blocks.agent.protocol.parts import Source
from blocks.artifact.manifest import SealedObject
from blocks.engines.engine import Captured
from blocks.engines.postgres import burden, slots, wal
from blocks.engines.postgres.facts import PostgresFacts, SetFacts
from blocks.engines.postgres.plan import BackupTool
from blocks.engines.postgres.psql import CLUSTER, Psql, literal
from blocks.engines.restoration import StepHandle, Steps
from blocks.errors import FarsideError, TransientError
from blocks.hosts.host import Host
from blocks.remote.failures import AgentInterrupted
from blocks.repositories.farside.writer import SetWriter

_PLAN_AGAIN = "was a tablespace {} since the backup was planned? plan it again"
LOG_INTERVAL_SECONDS = 1.0
"""How often the unfinished log segment is sealed: the data at risk while the link is idle."""
SETTLE_SECONDS = 10.0
"""An unfinished segment that nothing of arrived for so long has been sealed as it is."""
_MIN_RATE, _MAX_RATE = 32, 1048576
"""Kilobytes a second: what pg_basebackup takes as --max-rate."""
_POSITION = (
    "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
    " ELSE pg_current_wal_lsn() END)::text"
)


@dataclass(slots=True)
class Remembered:
    """What a process knows of the captures that it made of one source."""

    made_on: dict[str, str] = field(default_factory=dict)
    """Slot -> the server on which it was made; empty where that is not known."""
    has_waited: bool = False
    """Whether a base backup has waited for the source's archiver in vain."""

    def forget(self, slot: str) -> None:
        """The slot is gone."""
        self.made_on.pop(slot, None)

    def note_waiting(self) -> None:
        """A base backup waits for the archiver in vain."""
        self.has_waited = True


@dataclass(frozen=True, slots=True)
class Capture:
    """One capture by one host; `conninfo` is how its clients reach the source to replicate."""

    host: Host
    tool: BackupTool
    secret: SecretStr
    conninfo: str
    slot: str
    superuser: Psql
    sink: SetWriter
    facts: PostgresFacts
    known: Remembered

    def run(self, steps: Steps, clean: Callable[[], object]) -> Captured:
        """Follow the log, take the base backup, and wait for the log that this needs.

        `clean` removes from the source what an attempt before this one left.
        """
        with steps.step("follow log"):
            clean()
            reserved = self._follow()
        taken_at, superuser = datetime.now(UTC), self.superuser
        start = reserved or wal.parse_lsn(str(superuser.value(CLUSTER, _POSITION)))
        self._base_backup(steps)
        with steps.step("log to the backup's end"):
            stop = self._await_log()
            facts = burden.at_end(superuser, self.facts)
        return Captured(taken_at, datetime.now(UTC), self._of_set(facts, start, stop))

    def _of_set(self, facts: PostgresFacts, start: int, stop: int) -> SetFacts:
        size = facts.wal_segment_size
        known = {item.name: getattr(facts, item.name) for item in fields(PostgresFacts)}
        return SetFacts(
            **known,
            start_lsn=wal.format_lsn(start),
            start_segment=wal.segment_of(start, facts.timeline, size),
            stop_lsn=wal.format_lsn(stop),
            stop_segment=wal.segment_of(stop - 1, facts.timeline, size),
        )

    # -- the log ------------------------------------------------------------------------------

    def _follow(self) -> int | None:
        """Follow the log until it streams; the position from which a slot keeps it, if known."""
        host, sink, slot = self.host, self.sink, self.slot
        directory, holding = f"{sink.work(host)}/wal", burden.holding(self.facts, slot)
        receive = [f"{self.tool.bin_dir}/pg_receivewal", "-W", "-d", self.conninfo, *holding]
        # What an attempt before this one received begins in the wrong place.
        host.run(["rm", "-rf", directory])
        host.run(["mkdir", "-p", "-m", "0700", directory])
        making = _Slot(self, receive)
        follow = [*receive, "-D", directory, "--no-loop"]
        sink.follow(
            host,
            [*follow, "--synchronous"] if holding else follow,
            secret=self.secret,
            directory=directory,
            files=wal.FILES,
            interval=LOG_INTERVAL_SECONDS,
            prepare=making.make,
            release_argv=[*receive, "--drop-slot"] if holding else (),
            check=burden.Watch(self.superuser, slot, sink.load, self.known.note_waiting),
            released=partial(self.known.forget, slot),
        )
        streams = (
            f"SELECT count(*) FROM pg_stat_replication WHERE application_name = {literal(slot)}"
            " AND state IN ('catchup', 'streaming')"
        )
        _until(
            lambda: self.superuser.value(CLUSTER, streams) == "1",
            making.check,
            60,
            f"pg_receivewal on {host.name} does not start to stream",
        )
        return making.reserved

    def _await_log(self) -> int:
        """Wait until the log that the base backup needs is stored; the position of its end."""
        facts, sink, superuser = self.facts, self.sink, self.superuser
        # Without the right to switch, as on a standby, the segment is taken unfinished.
        standby = facts.in_recovery or not facts.burden.may_switch
        position = _POSITION if standby else "SELECT pg_switch_wal()::text"
        stop = wal.parse_lsn(str(superuser.value(CLUSTER, position)))
        last = wal.segment_of(stop - 1, facts.timeline, facts.wal_segment_size)
        failure = f"the log up to segment {last} does not reach the store"
        if not standby:
            # The switch has ended the segment, however idle the source is.
            _until(
                lambda: sink.followed(lambda item, _: wal.is_complete(item.name, last)),
                sink.check_follower,
                120,
                failure,
            )
            return stop
        # What was received must have been sealed since.
        received = (
            f"SELECT bool_or(coalesce(flush_lsn, sent_lsn) >= {literal(wal.format_lsn(stop))})"
            f" FROM pg_stat_replication WHERE application_name = {literal(self.slot)}"
            " AND state = 'streaming'"
        )
        _until(lambda: superuser.value(CLUSTER, received) == "t", sink.check_follower, 120, failure)
        since = time.time()

        def sealed(item: SealedObject, at: datetime) -> bool:
            settled = time.time() > since + SETTLE_SECONDS
            late = settled or at.timestamp() > since + 2 * LOG_INTERVAL_SECONDS
            return wal.is_complete(item.name, last) or (late and wal.holds(item.name, last))

        _until(lambda: sink.followed(sealed), sink.check_follower, 120, failure)
        return stop

    # -- the base -----------------------------------------------------------------------------

    def _base_backup(self, steps: Steps) -> None:
        with ExitStack() as current:
            current.enter_context(steps.step("checkpoint"))
            data: list[StepHandle] = []

            def begun() -> None:
                if not data:  # the first bytes come once the server has made its checkpoint
                    current.close()
                    data.append(current.enter_context(steps.step("base backup", grows=True)))

            stored = self.base(begun)
            begun()
            data[0].bytes = stored

    def base(self, begun: Callable[[], None]) -> int | None:
        """Seal a base backup; `begun` is called at its first bytes. Returns the bytes stored."""
        sink, host = self.sink, self.host
        argv = [f"{self.tool.bin_dir}/pg_basebackup", "-W", "-d", self.conninfo, "-F", "tar"]
        in_base = burden.log_in_base(self.facts, has_waited=self.known.has_waited)
        argv += ["-X", in_base, "--no-sync"]
        argv += ["-c", "fast" if sink.load.fast_checkpoint else "spread"]
        kilobytes = sink.load.rate // 1024
        argv += [f"--max-rate={min(max(kilobytes, _MIN_RATE), _MAX_RATE)}"]
        spaces = [space.oid for space in self.facts.tablespaces]
        if not spaces:
            sources = [Source(name="base.tar.zst.age", kind="stdout")]
            argv += ["-D", "-"]
            return sink.seal(host, argv, secret=self.secret, sources=sources, begun=begun)
        # Several archives at once go into named pipes: no tablespace is spooled to a disk.
        directory = f"{sink.work(host)}/base"
        sources = [
            Source(
                name=f"{name}.tar.zst.age",
                kind="fifo",
                path=f"{directory}/{name}.tar",
                hint=_PLAN_AGAIN.format("dropped"),
            )
            for name in (*spaces, "base")
        ]
        manifest = f"{directory}/backup_manifest"
        sources.append(Source(name="backup_manifest.zst.age", kind="file", path=manifest))
        argv += ["-D", directory]
        hint = _PLAN_AGAIN.format("added")
        return sink.seal(host, argv, secret=self.secret, sources=sources, hint=hint, begun=begun)


class _Slot:
    """The making of a capture's slot, in the follower's own thread."""

    def __init__(self, capture: Capture, receive: list[str]) -> None:
        self._capture, self._receive = capture, receive
        self._failure: FarsideError | None = None
        self.reserved: int | None = None
        """The position from which a standby's keeps the log."""

    def make(self) -> None:
        """Make it. Raises AgentInterrupted, which ends the follower."""
        it, slot = self._capture, self._capture.slot
        try:
            if it.facts.in_recovery:
                self.reserved = slots.reserve(it.superuser, slot)
            else:
                it.host.run([*self._receive, "--create-slot"], password=it.secret)
            it.known.made_on[slot] = ""
            it.known.made_on[slot] = slots.server_of(it.superuser, slot)
        except FarsideError as error:
            self._failure = error
            # Not asked again: it may have been made all the same.
            raise AgentInterrupted(error.message, code="aborted") from error

    def check(self) -> None:
        """Raise what went wrong with it, or with the follower."""
        if self._failure is not None:
            raise self._failure
        self._capture.sink.check_follower()


def _until(
    done: Callable[[], bool], still_alive: Callable[[], None], limit: float, failure: str
) -> None:
    give_up = time.monotonic() + limit
    while not done():
        still_alive()
        if time.monotonic() > give_up:
            raise TransientError(failure, operation="snapshot")
        time.sleep(0.1)
