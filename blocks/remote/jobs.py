"""Jobs that move no data, as functions."""

import typing
from collections.abc import Callable
from typing import TypeVar, cast

from blocks.agent import stamp
from blocks.agent.channel import Channel
from blocks.agent.protocol.jobs import (
    ClaimJob,
    FactsJob,
    NoteJob,
    ProbeJob,
    ProgramJob,
    SweepJob,
)
from blocks.agent.protocol.results import (
    ClaimResult,
    FactsResult,
    NoteResult,
    ProbeResult,
    ProgramResult,
    SweepResult,
)
from blocks.artifact import wire
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.hosts.host import Host
from blocks.remote.run import SMALL_JOB_SECONDS, run_job, where

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class TargetOccupied(PermanentError):
    """A directory or port that a restore needs is not free."""

    finding = FindingId.TARGET_OCCUPIED


def facts_of(host: Host, rehearsal_id: str, job: FactsJob) -> FactsResult:
    """What the host is and has. Needs no module on it but Python's own."""
    result = run_job(host, rehearsal_id, job, idle=SMALL_JOB_SECONDS)
    assert isinstance(result, FactsResult)
    return result


def run_program(
    host: Host,
    rehearsal_id: str,
    name: str,
    program: Callable[[Request, Channel], Answer],
    request: Request,
) -> Answer:
    """What `program` answers on `host`: `run` of a module that is brought there with the agent.

    It may import what the agent does, and nothing else. Errors call it `name`. Raises as `run_job`.
    """
    module, answer = program.__module__, typing.get_type_hints(program)["return"]
    job = ProgramJob(name=name, module=module, request=wire.encode(request))
    result = run_job(host, rehearsal_id, job)
    assert isinstance(result, ProgramResult)
    try:
        return cast(Answer, wire.decode(answer, result.answer))
    except wire.WireError as error:
        raise PermanentError(f"it answers otherwise: {error.message}", **where(host, job)) from None


def probe_from(host: Host, rehearsal_id: str, job: ProbeJob) -> tuple[str, ...]:
    """What a connection from `host` to each endpoint meets: open, reset, refused, ..."""
    return tuple(probed.status for probed in probe(host, rehearsal_id, job).endpoints)


def probe(host: Host, rehearsal_id: str, job: ProbeJob) -> ProbeResult:
    """What a connection from `host` to each endpoint meets, and a request of each URL."""
    result = run_job(host, rehearsal_id, job, idle=job.timeout + SMALL_JOB_SECONDS)
    assert isinstance(result, ProbeResult)
    return result


def claim(host: Host, job: ClaimJob) -> None:
    """Take what a restore needs on `host`, or nothing. Raises TargetOccupied."""
    result = run_job(host, job.rehearsal_id, job, idle=SMALL_JOB_SECONDS)
    assert isinstance(result, ClaimResult)
    if result.refused:
        raise TargetOccupied(
            result.refused,
            operation="claim",
            domain=host.domain,
            host=host.name,
            hint="name an empty directory and a free port, or move away what is there; nothing "
            "was touched",
        )


def note_process(host: Host, rehearsal_id: str, directory: str, pidfile: str) -> None:
    """Mark the process in `pidfile` as what a rehearsal has started for a claimed directory.

    Raises PermanentError where the file names none, or one that is older.
    """
    job = NoteJob(
        work_dir=host.work_root, rehearsal_id=rehearsal_id, directory=directory, pidfile=pidfile
    )
    result = run_job(host, rehearsal_id, job, idle=SMALL_JOB_SECONDS)
    assert isinstance(result, NoteResult)
    if result.refused:
        raise PermanentError(
            f"what the restore has started is not known: {result.refused}",
            operation="restore",
            domain=host.domain,
            host=host.name,
            hint="have restore_argv leave the process id of the service in the plan's pidfile",
        )


def sweep_host(  # noqa: PLR0913 (each is an option of the sweep, by name)
    host: Host,
    rehearsal_id: str | None,
    *,
    remove: bool,
    own_only: bool = False,
    keep_marker: bool = False,
    processes_only: bool = False,
) -> SweepResult:
    """Find, end or remove what one rehearsal (None: every one) left on `host`: see SweepJob.

    Writes nothing there, so that it also works on a full disk.
    """
    job = SweepJob(
        work_dir=host.work_root,
        rehearsal_id=rehearsal_id,
        remove=remove,
        own_only=own_only,
        keep_marker=keep_marker,
        processes_only=processes_only,
    )
    result = run_job(host, rehearsal_id or "", job)
    assert isinstance(result, SweepResult)
    return result


def end_processes(host: Host, rehearsal_id: str) -> tuple[str, ...]:
    """End what a rehearsal started on `host`, remove nothing; returns what still runs there."""
    swept = sweep_host(host, rehearsal_id, remove=False, processes_only=True)
    return tuple(process for left in swept.remaining for process in left.processes)


def bears_stamp(host: Host, directory: str, rehearsal_id: str) -> bool:
    """Whether a directory on `host` is a rehearsal's now. Raises as Host.run.

    It need not be, for one that was suspended for longer than its lease: it may have been swept,
    and what lies there since is another's.
    """
    argv = ["grep", "-q", f"^{rehearsal_id}:", f"{directory}/{stamp.FILE}"]
    return host.run(argv, check=False).exit_code == 0


def kill_started(host: Host, work: str, pidfile: str) -> None:
    """Kill what a rehearsal started, by its file in `work`; no other process of that number.

    Without effect where there is none. `work` is the rehearsal's directory, named by its id.
    """
    script = (
        'pid=$(cat "$1/$2" 2>/dev/null) || exit 0;'
        ' tr "\\0" "\\n" <"/proc/$pid/environ" 2>/dev/null | grep -q "^$3=${1##*/}:" || exit 0;'
        ' kill -9 "$pid" 2>/dev/null || true'
    )
    host.run(["sh", "-c", script, "sh", work, pidfile, stamp.VARIABLE])
