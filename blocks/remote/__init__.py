"""The helper on a host, from here: carry it there, run a job, answer what it asks.

The helper holds no credential of a store. It asks for presigned URLs as it needs them, and these
leases are answered here, each for one sealed object under one prefix.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from blocks.agent import marks, stamp
from blocks.agent.bundle import build
from blocks.agent.protocol import (
    BEAT_SECONDS,
    Answer,
    Caught,
    ClaimJob,
    ClaimResult,
    Code,
    Done,
    Event,
    FactsJob,
    FactsResult,
    Failed,
    GetLease,
    Job,
    Landed,
    Listening,
    NoteJob,
    NoteResult,
    Ok,
    PartLanded,
    Prepare,
    ProbeJob,
    ProbeResult,
    Progress,
    PutLease,
    PutObjectLease,
    Released,
    Result,
    StepTaken,
    Stop,
    Stored,
    SweepJob,
    SweepResult,
    Url,
    Urls,
    VolumeSealed,
    from_line,
    to_line,
)
from blocks.artifact.objects import volume_key
from blocks.artifact.wire import WireError
from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.evidence.findings import id_of_code
from blocks.hosts.host import Host, HostUnreachable
from blocks.hosts.process import NOT_RUN, CommandFailed, CommandTimeout, ConnectionLost, Process
from blocks.stores.store import ObjectMissing, ObjectStore

SMALL_JOB_SECONDS = 60.0
"""How long a job that moves no data may take."""
SILENT_SECONDS = 6 * BEAT_SECONDS
"""How long nothing may be heard of any other job, which says every `BEAT_SECONDS` that it runs."""
ABANDON_SECONDS = 10.0
"""How long the end of an abandoned job is waited for."""
PATIENCE_SECONDS = 300.0
"""How long a store that cannot answer now is asked again on a job's behalf."""
STOP_SECONDS = 120.0
"""How long a job that was told to stop may take to seal what is left."""

Question = PutLease | PutObjectLease | GetLease | VolumeSealed | Stored | Prepare
"""What the helper waits for an answer to."""

Moved = Callable[[int, str], None]
"""Told how many bytes, as stored, of which object have moved so far."""

Heard = Callable[[Listening | Caught | Released], None]
"""Told what a WatchJob says, and that a WalJob has released the server."""

_FOLDERLESS = ("facts", "sweep", "watch")
"""Jobs that must leave nothing on their host: they only look, clean up, or outlive a cleaning."""

_SEALED = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./-]*\.age(?:\.\d{3,})?")
_UNTRUSTED = 77
# Nothing that another account could have put there is used: see blocks.agent.trust.
_FOLDER = r"""
umask 077
refuse() { echo "$1" >&2; exit 77; }
uid=$(id -u)
check() {
    set -- "$1" "$2" $(LC_ALL=C ls -ldn "$1")
    [ "$#" -gt 5 ] || refuse "$1 cannot be looked at"
    case $3 in l*) refuse "$1 is a link: give the path that it leads to" ;; esac
    [ "$5" = "$uid" ] || { [ "$2" = above ] && [ "$5" = 0 ]; } ||
        refuse "$1 belongs to another account (uid $5)"
    case $2$3 in
        above?????????[tT]*) ;;
        *) case $3 in ?????w*|????????w*) refuse "other accounts may write to $1" ;; esac ;;
    esac
}
[ -d "$1" ] || mkdir -p "$1" || exit
above=$1
while [ "$above" != / ]; do
    above=${above%/*}
    above=${above:-/}
    check "$above" above
done
check "$1" own
mkdir "$1/$2" 2>/dev/null || [ -d "$1/$2" ] || refuse "$1/$2 cannot be made"
check "$1/$2" own
: >> "$1/$2/$3" || exit
check "$1/$2/$3" own
"""
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


class HelperFailed(PermanentError):
    """A job failed for good. `code` says how, as `blocks.agent.protocol.Code` lists."""

    def __init__(self, message: str, *, code: Code, **where: str) -> None:
        super().__init__(message, **where)
        self.code = code
        self.finding = id_of_code(code)


class HelperInterrupted(TransientError):
    """A job failed and may succeed when it is run again. `code` as for HelperFailed."""

    def __init__(self, message: str, *, code: Code, **where: str) -> None:
        super().__init__(message, **where)
        self.code = code


class WorkDirUntrusted(PermanentError):
    """Another account could have written farside's directory on a host, or what is in it."""

    finding = "work-dir-untrusted"


class TargetOccupied(PermanentError):
    """A directory or port that a restore needs is not free."""

    finding = "target-occupied"


def work_folder(host: Host, rehearsal_id: str) -> str:
    """Make the rehearsal's directory on `host` and the marker in it; returns the directory.

    Mode 0700. Without the marker no sweep would know it. Raises WorkDirUntrusted, and what
    `Host.run` raises.
    """
    root = host.work_root
    try:
        host.run(["sh", "-c", _FOLDER, "sh", root, rehearsal_id, marks.FILE])
    except CommandFailed as error:
        if error.exit_code != _UNTRUSTED:
            raise
        raise WorkDirUntrusted(
            error.stderr,
            operation="work directory",
            domain=host.domain,
            host=host.name,
            hint="give the host a work_dir that only its account can write to",
        ) from None
    return f"{root}/{rehearsal_id}"


class Leases(Protocol):
    """Answers what a job asks."""

    def answer(self, question: Question) -> Answer:
        """The answer to `question`; raises FarsideError, which ends the job."""
        ...

    def landed_part(self, event: PartLanded) -> None:
        """Note a part that a copy uploaded."""
        ...

    def failed(self) -> None:
        """The job ended without success: throw away what cannot be used by another."""
        ...


class NoLeases:
    """For jobs that ask nothing."""

    def answer(self, question: Question) -> Answer:
        """See Leases."""
        raise _not_for_this_job(question)

    def landed_part(self, event: PartLanded) -> None:
        """See Leases."""

    def failed(self) -> None:
        """See Leases."""


class _Uploads:
    """The unfinished multipart uploads of sealed objects under a prefix. Thread-safe."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._lock = threading.Lock()
        self._open: dict[tuple[str, int], str] = {}

    def part_urls(self, lease: PutLease) -> Urls:
        key = self._key(lease)
        with self._lock:
            place = (lease.object, lease.volume)
            if place not in self._open:
                self._open[place] = self._store.create_upload(key)
            upload_id = self._open[place]
        numbers = range(lease.first, lease.first + lease.count)
        return Urls(urls=tuple(self._store.presign_part(key, upload_id, n) for n in numbers))

    def put_url(self, lease: PutObjectLease) -> Url:
        return Url(url=self._store.presign_put(self._prefix + _sealed(lease.object)))

    def complete(self, event: VolumeSealed) -> Ok:
        """Complete a volume; raises ObjectMissing when its upload is gone and it is not there."""
        key, place = self._key(event), (event.object, event.volume)
        with self._lock:
            upload_id = self._open.get(place)
        try:
            if upload_id is None:
                raise ObjectMissing(f"no upload of {key} was begun", operation="complete upload")
            self._store.complete_upload(key, upload_id, event.etags)
        except ObjectMissing:
            self._forget(place)
            # The answer to an earlier call may have been lost on the way.
            found = self._store.head(key)
            if found is None or found.size != sum(part.bytes for part in event.parts):
                raise
        self._forget(place)
        return Ok()

    def _forget(self, place: tuple[str, int]) -> None:
        with self._lock:
            self._open.pop(place, None)

    def abort(self) -> None:
        """Throw away what is open; what the store does not answer to stays there."""
        with self._lock:
            opened, self._open = self._open, {}
        for (name, volume), upload_id in opened.items():
            with suppress(FarsideError):
                self._store.abort_upload(self._prefix + volume_key(name, volume), upload_id)

    def _key(self, what: PutLease | VolumeSealed) -> str:
        return self._prefix + volume_key(_sealed(what.object), what.volume)


class StoreLeases:
    """Leases of one store, for sealing into a prefix of it or opening from there.

    `on_stored` is told of every log object that is stored, and the host keeps its file until
    it returns. `prepare` makes in the server what the host is going to release.
    """

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        on_stored: Callable[[Stored], None] = lambda _event: None,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._on_stored = on_stored
        self._prepare = prepare
        self._uploads = _Uploads(store, prefix)
        self._lost = False

    def lose(self) -> None:
        """The store is about to be lost: from here on it is not called any more."""
        self._lost = True

    def answer(self, question: Question) -> Answer:
        """See Leases."""
        if self._lost:
            raise PermanentError("the store is lost", operation="lease", domain=self._store.domain)
        match question:
            case GetLease():
                return Url(url=self._store.presign_get(self._prefix + _sealed(question.key)))
            case PutLease():
                return self._uploads.part_urls(question)
            case PutObjectLease():
                return self._uploads.put_url(question)
            case VolumeSealed():
                return self._uploads.complete(question)
            case Stored():
                self._on_stored(question)
                return Ok()
            case Prepare():
                self._prepare()
                return Ok()

    def landed_part(self, event: PartLanded) -> None:
        """See Leases."""

    def failed(self) -> None:
        """Throw away the uploads that were not completed: they could not be continued.

        In a store that was lost they stay, for whoever clears it when it is back.
        """
        if not self._lost:
            self._uploads.abort()


class CopyLeases:
    """Leases for copying sealed objects from a prefix of one store to the same one of another.

    Use the same object for every attempt: it knows the parts that landed, so that the next job
    goes on where the last one broke off.
    """

    def __init__(self, source: ObjectStore, target: ObjectStore, prefix: str) -> None:
        self._source = source
        self._prefix = prefix
        self._uploads = _Uploads(target, prefix)
        self._lock = threading.Lock()
        self._landed: dict[tuple[str, int, int], Landed] = {}
        self._complete: set[tuple[str, int]] = set()

    @property
    def landed(self) -> tuple[Landed, ...]:
        """The parts that are in the target store."""
        with self._lock:
            return tuple(self._landed.values())

    def answer(self, question: Question) -> Answer:
        """See Leases."""
        match question:
            case GetLease():
                return Url(url=self._source.presign_get(self._prefix + _sealed(question.key)))
            case PutLease():
                return self._uploads.part_urls(question)
            case PutObjectLease():
                return self._uploads.put_url(question)
            case VolumeSealed():
                return self._completed(question)
        raise _not_for_this_job(question)

    def landed_part(self, event: PartLanded) -> None:
        """See Leases."""
        landed = Landed(object=event.object, volume=event.volume, part=event.part, etag=event.etag)
        with self._lock:
            self._landed[event.object, event.volume, event.part] = landed

    def failed(self) -> None:
        """Keep all: the next job resumes."""

    def abort(self) -> None:
        """Throw away the uploads that were not completed, and start from nothing next time."""
        self._uploads.abort()
        with self._lock:
            unfinished = [key for key in self._landed if key[:2] not in self._complete]
            for key in unfinished:
                del self._landed[key]

    def _completed(self, event: VolumeSealed) -> Ok:
        place = (event.object, event.volume)
        if place in self._complete:
            return Ok()
        try:
            self._uploads.complete(event)
        except ObjectMissing as error:
            with self._lock:
                for key in [key for key in self._landed if key[:2] == place]:
                    del self._landed[key]
            raise HelperInterrupted(
                f"the target store lost the upload of {event.object}; it must be copied anew",
                code="object-missing",
                operation="copy",
                domain=error.domain,
            ) from error
        self._complete.add(place)
        return Ok()


class HelperRun:
    """One job on one host, as a context manager. Leaving it ends the job, whatever its state.

    `steps` are the timed parts that the job reported so far.
    """

    def __init__(
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
        """Start the helper on the host. Raises what `work_folder` and `Host.start` do."""
        python, job = self._host.python, self._job.job
        if job not in _FOLDERLESS:
            work_folder(self._host, self._rehearsal_id)
        image = build()
        # Short, and with the rehearsal's id: whoever sees the process can tell whose it is.
        argv = [python, "-c", _START, str(len(image)), self._rehearsal_id or "-", job]
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
        HelperFailed, HelperInterrupted, HostUnreachable, ConnectionLost, and what answering a
        lease raises.
        """
        process = self._running
        # A helper that could not start does not read: what it leaves behind says why.
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
                f"nothing was heard of its helper for {SILENT_SECONDS:g} s",
                hint="does the host hang, or has it been cut off?",
                **_where(self._host, self._job),
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
            raise RuntimeError("HelperRun is used as a context manager")
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
            except HelperInterrupted:
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


class HelperThread:
    """A job that runs beside everything else until it is told to stop: following a log."""

    def __init__(
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
        self._run = HelperRun(host, rehearsal_id, job, leases, moved, heard)
        self._ended = ended
        self._outcome: Done | BaseException | None = None
        self._run.start()
        name = f"{host.name}-{job.job}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._outcome = self._run.run()
        except BaseException as error:
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
            raise HelperInterrupted("a job was told to stop and did not", code="aborted")
        return self._outcome

    def abandon(self) -> None:
        """End the job at once, whatever state its host is in. Works a second time."""
        self._run.kill()
        self._thread.join(ABANDON_SECONDS)


def run_job(
    host: Host,
    rehearsal_id: str,
    job: Job,
    leases: Leases | None = None,
    moved: Moved | None = None,
    idle: float | None = None,
) -> Result:
    """Run one job on `host` to its end. Raises as HelperRun and its `run` do."""
    with HelperRun(host, rehearsal_id, job, leases, moved) as run:
        return run.run(idle).result


def facts_of(host: Host, rehearsal_id: str, job: FactsJob) -> FactsResult:
    """What the host is and has. Needs no module on it but Python's own."""
    result = run_job(host, rehearsal_id, job, idle=SMALL_JOB_SECONDS)
    assert isinstance(result, FactsResult)
    return result


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


def sweep_host(
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


def remove_unused_folder(host: Host, rehearsal_id: str) -> bool:
    """Remove a rehearsal's directory if its marker names nothing; True if it is not there now.

    For hosts on which the helper cannot run, and so has made nothing. Raises what `Host.run` does.
    """
    script = '[ -s "$1/$2" ] || rm -rf "$1"; [ ! -e "$1" ]'
    folder = f"{host.work_root}/{rehearsal_id}"
    return host.run(["sh", "-c", script, "sh", folder, marks.FILE], check=False).exit_code == 0


def _event(process: Process, line: str) -> Event:
    try:
        event: Event = from_line(Event, line)
    except WireError as error:
        raise PermanentError(
            f"the helper said {line[:200]!r}: {error.message}",
            operation="helper",
            domain=process.domain,
            host=process.host,
            hint="does the account's shell print something when it starts?",
        ) from None
    return event


def _failure(host: Host, job: Job, event: Failed) -> HelperFailed | HelperInterrupted:
    kind = HelperFailed if event.kind == "permanent" else HelperInterrupted
    return kind(event.message, code=event.code, hint=event.hint, **_where(host, job))


def _died(host: Host, job: Job, process: Process) -> HelperFailed | HelperInterrupted:
    """Why a helper ended without a word; raises ConnectionLost where the connection broke."""
    code, said = process.wait(SMALL_JOB_SECONDS), process.stderr_tail()
    if code in NOT_RUN:
        return HelperFailed(
            f"{host.python} cannot be run: {said}",
            code="tool-missing",
            hint="install Python 3.11 or later there, or correct `python` of the host in the plan",
            **_where(host, job),
        )
    if code < 0 or code > 128:
        return HelperInterrupted(
            "the helper was killed",
            code="aborted",
            hint="look at the host's log: was it out of memory?",
            **_where(host, job),
        )
    return HelperFailed(
        f"the helper ended with exit code {code}: {said[-1000:]}",
        code="internal",
        **_where(host, job),
    )


def _where(host: Host, job: Job) -> dict[str, str]:
    return {"operation": job.job, "domain": host.domain, "host": host.name}


def _sealed(key: str) -> str:
    """`key`, if a sealed object can have it: a host gets no lease of anything else."""
    if not _SEALED.fullmatch(key):
        raise PermanentError(
            f"a lease was asked for {key[:100]!r}, which is no sealed object's name",
            operation="lease",
            hint="do not trust the host that asked until you know why",
        )
    return key


def _not_for_this_job(question: Question) -> PermanentError:
    return PermanentError(f"the helper asked for {question.event}, which its job does not need")
