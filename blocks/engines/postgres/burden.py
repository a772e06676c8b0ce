"""What a rehearsal costs a live source, and what of the source makes that dangerous."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

from blocks.engines.postgres.facts import PostgresFacts
from blocks.engines.postgres.findings import PostgresFinding
from blocks.engines.postgres.psql import CLUSTER, Psql, literal
from blocks.engines.postgres.rows import CaptureConditions, rows_of
from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.evidence.findings import Finding, finding
from blocks.remote.following import LogInterrupted
from blocks.repositories.farside.writer import Load

STUCK_SECONDS = 600
"""A segment that has been waiting for the archiver for so long is not being archived."""
ARCHIVER_CHECKS = 12
"""For so many checks in a row the end of a base backup may wait for the archiver."""
ARCHIVER_SECONDS = 10.0
"""How long the archiver is given at the end of a backup to store what there is, or to fail."""
_PAUSE = 1.0
STUCK_COMMIT_SECONDS = 10
"""A commit that has waited for a standby for so long waits for one that is not there."""
ABSENT_CHECKS = 4
"""A receiver that the server does not know for so many checks in a row streams nothing."""

SURVEY = """
SELECT current_setting('max_slot_wal_keep_size') = '-1' AS unbounded,
       current_setting('synchronous_standby_names') AS synchronous_standby_names,
       current_setting('archive_mode') AS archive_mode,
       current_setting('archive_command') NOT IN ('', '(disabled)')
         OR coalesce(current_setting('archive_library', true), '') <> '' AS archive_configured,
       a.last_failed_wal,
       coalesce(a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), false)
         AS archive_failing,
       has_function_privilege('pg_catalog.pg_ls_archive_statusdir()', 'EXECUTE') AS queue_is_seen,
       has_function_privilege('pg_catalog.pg_switch_wal()', 'EXECUTE') AS may_switch
FROM pg_stat_archiver a
"""
_QUEUE = """
SELECT count(*) AS waiting,
       coalesce(extract(epoch FROM now() - min(modification)), 0)::int AS oldest
FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'
"""


_NAMES = re.compile(r'"([^"]+)"|([A-Za-z_][\w$]*|\*)')


class Burden(PermanentError):
    """Following the log costs the source more than it may."""


class ArchiverAwaited(LogInterrupted):
    """A base backup waits for an archiver that does not archive; another need not."""


def survey(psql: Psql) -> CaptureConditions:
    """What bears on a capture. Raises as Psql.rows."""
    (known,) = rows_of(CaptureConditions, psql.rows(CLUSTER, SURVEY))
    if not known.queue_is_seen:
        return known
    (queue,) = psql.rows(CLUSTER, _QUEUE)
    return replace(known, archive_queue=queue["waiting"], archive_oldest=queue["oldest"])


def at_end(psql: Psql, facts: PostgresFacts) -> PostgresFacts:
    """The facts of a source whose backup ends now: an archiver may have begun to fail meanwhile.

    What cannot be told of it is noted as unread.
    """
    known, give_up = facts, time.monotonic() + ARCHIVER_SECONDS
    try:
        while True:
            known = replace(known, burden=survey(psql))
            waiting = known.burden.archive_queue
            if not archives(known) or not_archiving(known) or not waiting:
                return known
            if time.monotonic() > give_up:
                break
            time.sleep(_PAUSE)
        if (known.burden.archive_oldest or 0) < ARCHIVER_SECONDS:
            return known  # others have come since: it works
        why = f"{waiting} segments wait for it, and it has neither stored them nor failed"
    except FarsideError as error:
        if not archives(facts):
            return known
        why = error.message
    unread = {**facts.unread, "whether the source's archiver works": why}
    return replace(known, unread=unread)


def archives(facts: PostgresFacts) -> bool:
    """Whether a base backup of this source waits for its archiver at the end."""
    wanted = ("always",) if facts.in_recovery else ("on", "always")
    return facts.burden.archive_mode in wanted


def not_archiving(facts: PostgresFacts) -> str:
    """Why the source's own archiving does not work; empty if it seems to."""
    known = facts.burden
    if not archives(facts):
        return ""
    if not known.archive_configured:
        return f"archive_mode is {known.archive_mode}, without a command or a library"
    if known.archive_failing:
        return f"the archiver has failed since it last archived, on {known.last_failed_wal}"
    if (oldest := known.archive_oldest or 0) > STUCK_SECONDS:
        return f"{known.archive_queue} segments wait for the archiver, one for {oldest} s"
    return ""


def log_in_base(facts: PostgresFacts, *, has_waited: bool = False) -> Literal["none", "fetch"]:
    """Whether a base backup holds its log, which is followed in any case: then it does not wait.

    A backup without log ends when the archiver has stored that log. Its log can be put in where
    the server keeps it that long: for a slot, or for an archiver that does not work. A standby's
    begins at its last restart point, which lies behind what is followed without a slot.
    `has_waited` is whether a former one has waited for the archiver in vain.
    """
    if facts.in_recovery and not may_hold(facts):
        return "fetch"
    if archives(facts) and (may_hold(facts) or not_archiving(facts) or has_waited):
        return "fetch"
    return "none"


def findings(facts: PostgresFacts, subject: str) -> Iterator[Finding]:
    """What of a live source its owner should know before it is backed up."""
    if why := not_archiving(facts):
        yield finding(PostgresFinding.SOURCE_NOT_ARCHIVING, subject, why)
    if facts.burden.unbounded:
        text = (
            "max_slot_wal_keep_size is -1: a slot that nothing reads fills the server's disk. The "
            "log is followed without one; where the server does not keep it long enough, the "
            "backup fails"
        )
        yield finding(PostgresFinding.LOG_RETENTION_UNBOUNDED, subject, text)


def may_be_chosen(facts: PostgresFacts) -> bool:
    """Whether the receiver of the log, if it reported what it has, could become a standby that
    commits wait for: its name is its own, but `*` is any. A standby chooses none.
    """
    return not facts.in_recovery and "*" in facts.burden.synchronous_standby_names


def awaited_names(facts: PostgresFacts) -> frozenset[str]:
    """Names of standbys that commits wait for, or may, and that are not there now."""
    names = {
        (quoted or plain).lower()
        for quoted, plain in _NAMES.findall(facts.burden.synchronous_standby_names)
    }
    there = {peer.name.lower() for peer in facts.connected}
    return frozenset(names - there - {"*", "any", "first"})


def may_hold(facts: PostgresFacts) -> bool:
    """Whether the receiver may have the server keep the log for it, by a slot.

    It then reports how far it is, and could be chosen as a synchronous standby: not where any name
    may be. A loss of power takes along all that would drop the slot: not where the server itself
    does not limit it.
    """
    return not may_be_chosen(facts) and not facts.burden.unbounded


def holding(facts: PostgresFacts, slot: str) -> list[str]:
    """Arguments with which a receiver has the server keep the log for it.

    Without them the server keeps what it keeps anyway; a segment that the receiver misses ends it.
    """
    return ["-S", slot] if may_hold(facts) else []


class Watch:
    """Asks the source what following its log costs; called every few seconds."""

    def __init__(
        self, psql: Psql, name: str, load: Load, waits: Callable[[], None] = lambda: None
    ) -> None:
        """`name` is that of the slot, and of the sessions, of a rehearsal.

        `waits` is told that the base backup waits for the archiver in vain.
        """
        self._psql = psql
        self._tell_waits = waits
        self._load = load
        self._absent = self._waiting = 0
        who = f"application_name = {literal(name)}"
        self._question = f"""
SELECT (SELECT count(*) FROM pg_stat_replication
        WHERE {who} AND state IN ('catchup', 'streaming')) AS receivers,
       (SELECT count(*) FROM pg_stat_replication
        WHERE {who} AND sync_state IN ('sync', 'quorum', 'potential')) AS chosen,
       (SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
               ELSE pg_current_wal_lsn() END, restart_lsn)::bigint
        FROM pg_replication_slots WHERE slot_name = {literal(name)}) AS retained,
       (SELECT count(*) FROM pg_stat_progress_basebackup JOIN pg_stat_activity USING (pid)
        WHERE {who} AND phase LIKE 'waiting for wal archiving%') AS waiting,
       (SELECT count(*) FROM pg_stat_activity
        WHERE wait_event = 'SyncRep' AND now() - state_change > interval '{STUCK_COMMIT_SECONDS} s'
       ) AS stuck,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender')
         >= current_setting('max_wal_senders')::int AS full
"""

    def __call__(self) -> None:
        """Raises Burden where following must end, ArchiverAwaited where it can begin again.

        TransientError where the source does not say.
        """
        try:
            (now,) = self._psql.rows(CLUSTER, self._question)
        except PermanentError as error:
            raise TransientError(error.message, operation="follow log") from error
        self._absent = 0 if now["receivers"] else self._absent + 1
        if self._absent >= ABSENT_CHECKS:
            raise Burden("the server knows of no receiver of its log any more")
        self._waiting = self._waiting + 1 if now["waiting"] else 0
        if self._waiting >= ARCHIVER_CHECKS:
            self._tell_waits()
            raise ArchiverAwaited(
                "the base backup waits for the source's archiver, which does not archive",
                hint="see to archive_command; a backup that begins while it fails does not wait",
            )
        if now["stuck"] and now["full"]:
            raise Burden(
                f"{now['stuck']} commits wait for a standby, and the source has no WAL sender left"
                " for it while it is backed up",
                hint="raise max_wal_senders: a rehearsal takes two",
            )
        if now["chosen"]:
            raise Burden(
                "the receiver of the log has become a standby that commits may wait for",
                hint="synchronous_standby_names has changed; rehearse again",
            )
        limit, retained = self._load.retained, now["retained"] or 0
        if limit is not None and retained > limit:
            raise Burden(
                f"the server keeps {retained:,} bytes of log for the receiver,"
                f" {limit:,} are allowed",
                hint="why is the receiver behind? or raise backup.retained of the plan",
            )
