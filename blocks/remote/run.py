"""Runs a job on a host, and hears what becomes of it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from blocks.agent.bundle import build
from blocks.agent.protocol import from_line, to_line
from blocks.agent.protocol.events import (
    BEAT_SECONDS,
    Answer,
    Caught,
    Done,
    Event,
    Failed,
    GetLease,
    Listening,
    PartLanded,
    Prepare,
    Progress,
    PutLease,
    PutObjectLease,
    Released,
    StepTaken,
    Stop,
    Stored,
    VolumeSealed,
)
from blocks.agent.protocol.jobs import Job, ProgramJob
from blocks.agent.protocol.results import Result
from blocks.artifact.wire import WireError
from blocks.errors import PermanentError, TransientError
from blocks.hosts.host import Host, HostUnreachable
from blocks.hosts.process import NOT_RUN, CommandTimeout, ConnectionLost, Process
from blocks.remote.failures import AgentFailed, AgentInterrupted
from blocks.remote.folder import work_folder
from blocks.remote.leases import Leases, Moved, NoLeases, Question

SMALL_JOB_SECONDS = 60.0
"""How long a job that moves no data may take."""

SILENT_SECONDS = 6 * BEAT_SECONDS
"""Heartbeat timeout of any other job, which says every `BEAT_SECONDS` that it runs."""
ABANDON_SECONDS = 10.0
"""How long to wait for the end of an abandoned job."""
PATIENCE_SECONDS = 300.0
"""How long a store that cannot answer now is asked again on a job's behalf."""
STOP_SECONDS = 120.0
"""How long a job that was told to stop may take to seal what is left."""
Heard = Callable[[Listening | Caught | Released], None]
"""Told what a WatchJob says, and that a FollowJob has released the server."""
_FOLDERLESS = ("facts", "sweep", "watch")
"""Jobs that must leave nothing on their host: they only look, clean up, or outlive a cleaning."""
# Reads itself into memory from standard input: what lies on a host could have been changed, and a
# sweep must work on a full disk.
_START = "import sys; exec(eval(sys.stdin.buffer.raw.readline()))"
_FROM_INPUT = """
import os, runpy, sys
left, image = int(sys.argv.pop(1)), os.memfd_create("farside")
while left:
    chunk = os.read(0, min(left, 65536)) or sys.exit("cut off")
    left -= len(chunk)
    while chunk:
        chunk = chunk[os.write(image, chunk):]
runpy.run_path(f"/proc/self/fd/{image}", run_name="__main__")
"""


class AgentRun:
    """One job on one host, as a context manager. Leaving it ends the job, whatever its state.

    `steps` are the timed parts that the job reported so far.
    """

    def __init__(  # noqa: PLR0913 (the job, where it runs, and what it calls)
        self,
        host: Host,
        rehearsal_id: str,
        job: Job,
        leases: Leases | None = None,
        moved: Moved | None = None,
        heard: Heard | None = None,
    ) -> None:
        self.steps: list[StepTaken] = []
        self._host = host
        self._rehearsal_id = rehearsal_id
        self._job = job
        self._leases = leases or NoLeases()
        self._moved = moved
        self._heard = heard
        self._write_lock = threading.Lock()
        self._process: Process | None = None
        self._done = False
        self._killed = threading.Event()

    def start(self) -> None:
        """Start the agent on the host. Raises what `work_folder` and `Host.start` do."""
        python, job = self._host.python, self._job
        if job.job not in _FOLDERLESS:
            work_folder(self._host, self._rehearsal_id)
        image = build(job.module if isinstance(job, ProgramJob) else "")
        # Short, and with the rehearsal's id: the list of processes shows whose it is.
        argv = [python, "-c", _START, str(len(image)), self._rehearsal_id or "-", name_of(job)]
        self._process = self._host.start(argv)
        with suppress(ConnectionLost):
            self._process.write(f"{_FROM_INPUT!r}\n".encode() + image)

    def close(self) -> None:
        """End the job, whatever its state; what it left unfinished in a store is thrown away."""
        try:
            self._running.close()
        finally:
            if not self._done:
                self._leases.failed()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, idle: float | None = None) -> Done:
        """Run the job to its end; silence of more than `idle` seconds is a CommandTimeout.

        Without `idle`, of a job that says that it goes on, silence is a host that hangs. Raises
        AgentFailed, AgentInterrupted, HostUnreachable, ConnectionLost, and what answering a
        lease raises.
        """
        process = self._running
        # An agent that could not start does not read: what it leaves behind says why.
        with suppress(ConnectionLost):
            self._say(self._job)
        for line in self._lines(process, idle):
            event = _event(process, line)
            if isinstance(event, Done):
                self._done = True
                return event
            if isinstance(event, Failed):
                raise _failure(self._host, self._job, event)
            self._handle(event)
        raise _died(self._host, self._job, process)

    def _lines(self, process: Process, idle: float | None) -> Iterator[str]:
        try:
            yield from process.lines(SILENT_SECONDS if idle is None else idle)
        except CommandTimeout as error:
            if idle is not None:
                raise
            raise HostUnreachable(
                f"its agent sent no heartbeat for {SILENT_SECONDS:g} s",
                hint="does the host hang, or has it been cut off?",
                **where(self._host, self._job),
            ) from error

    def stop(self) -> None:
        """Tell a job to end in good order; `run` then returns. From any thread."""
        with suppress(ConnectionLost):
            self._say(Stop())

    def kill(self) -> None:
        """End the job at once; `run` then raises. From any thread."""
        self._killed.set()
        self._running.kill()

    @property
    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError("AgentRun is used as a context manager")
        return self._process

    def _say(self, what: Job | Answer) -> None:
        with self._write_lock:
            self._running.write(to_line(what).encode())

    def _answer(self, question: Question) -> Answer:
        """What is asked, again while a store cannot answer: a job of hours is not to end by it."""
        give_up, pause = time.monotonic() + PATIENCE_SECONDS, 1.0
        while True:
            try:
                return self._leases.answer(question)
            except AgentInterrupted:
                raise
            except TransientError:
                if time.monotonic() > give_up or self._killed.wait(pause):
                    raise
                pause = min(2 * pause, 15.0)

    def _handle(self, event: Event) -> None:
        match event:
            case Progress():
                if self._moved is not None:
                    self._moved(event.sealed, event.object)
            case StepTaken():
                self.steps.append(event)
            case Listening() | Caught() | Released():
                if self._heard is not None:
                    self._heard(event)
            case PartLanded():
                self._leases.landed_part(event)
            case PutLease() | PutObjectLease() | GetLease() | VolumeSealed() | Stored() | Prepare():
                self._say(self._answer(event))


class AgentThread:
    """A job that runs next to everything else until it is told to stop: following a log."""

    def __init__(  # noqa: PLR0913 (as AgentRun, and what is called at its end)
        self,
        host: Host,
        rehearsal_id: str,
        job: Job,
        leases: Leases | None = None,
        moved: Moved | None = None,
        heard: Heard | None = None,
        ended: Callable[[BaseException | None], None] = lambda _error: None,
    ) -> None:
        """`ended` is told, on the job's thread, what ended the job if it failed."""
        self._run = AgentRun(host, rehearsal_id, job, leases, moved, heard)
        self._ended = ended
        self._outcome: Done | BaseException | None = None
        self._run.start()
        name = f"{host.name}-{job.job}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._outcome = self._run.run()
        except BaseException as error:  # noqa: BLE001 (raised again where the outcome is asked for)
            self._outcome = error
        finally:
            failed = self._outcome if isinstance(self._outcome, BaseException) else None
            self._ended(failed)
            self._run.close()

    def check(self) -> None:
        """Raise what ended the job, if it failed."""
        if isinstance(self._outcome, BaseException):
            raise self._outcome

    def is_running(self) -> bool:
        """Whether the job has not ended yet."""
        return self._outcome is None

    def tell_stop(self) -> None:
        """Tell the job to end in good order; returns at once."""
        self._run.stop()

    def stop(self, timeout: float = STOP_SECONDS) -> Done:
        """Tell the job to end in good order and wait for it.

        Raises what ended it if it failed; after `timeout` seconds it is killed, which raises too.
        """
        self._run.stop()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.abandon()
        self.check()
        if not isinstance(self._outcome, Done):
            raise AgentInterrupted("a job was told to stop and did not", code="aborted")
        return self._outcome

    def abandon(self) -> None:
        """End the job at once, whatever state its host is in. Idempotent."""
        self._run.kill()
        self._thread.join(ABANDON_SECONDS)


def run_job(  # noqa: PLR0913 (as AgentRun, and how long it may be silent)
    host: Host,
    rehearsal_id: str,
    job: Job,
    leases: Leases | None = None,
    moved: Moved | None = None,
    idle: float | None = None,
) -> Result:
    """Run one job on `host` to its end. Raises as AgentRun and its `run` do."""
    with AgentRun(host, rehearsal_id, job, leases, moved) as run:
        return run.run(idle).result


def _event(process: Process, line: str) -> Event:
    try:
        event: Event = from_line(Event, line)
    except WireError as error:
        raise PermanentError(
            f"the agent said {line[:200]!r}: {error.message}",
            operation="agent",
            domain=process.domain,
            host=process.host,
            hint="does the account's shell print something when it starts?",
        ) from None
    return event


def _failure(host: Host, job: Job, event: Failed) -> AgentFailed | AgentInterrupted:
    kind = AgentFailed if event.kind == "permanent" else AgentInterrupted
    return kind(event.message, code=event.code, hint=event.hint, **where(host, job))


def _died(host: Host, job: Job, process: Process) -> AgentFailed | AgentInterrupted:
    """Why an agent ended without a word; raises ConnectionLost where the connection broke."""
    code, said = process.wait(SMALL_JOB_SECONDS), process.stderr_tail()
    if code in NOT_RUN:
        return AgentFailed(
            f"{host.python} cannot be run: {said}",
            code="tool-missing",
            hint="install Python 3.11 or later there, or correct `python` of the host in the plan",
            **where(host, job),
        )
    if code < 0 or code > 128:
        return AgentInterrupted(
            "the agent was killed",
            code="aborted",
            hint="look at the host's log: was it out of memory?",
            **where(host, job),
        )
    return AgentFailed(
        f"the agent ended with exit code {code}: {said[-1000:]}",
        code="internal",
        **where(host, job),
    )


def where(host: Host, job: Job) -> dict[str, str]:
    """The place of a job, as errors take it."""
    return {"operation": name_of(job), "domain": host.domain, "host": host.name}


def name_of(job: Job) -> str:
    """What errors and a host's list of processes call it."""
    return job.name if isinstance(job, ProgramJob) else job.job
