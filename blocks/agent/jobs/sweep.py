"""The job `sweep`: what rehearsals left on a host, by their markers. Standard library only.

Nothing is removed, and no process signalled, for its path or number: it must bear the stamp.
"""

import fcntl
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from blocks.agent import lease, marks, origins, stamp, trust
from blocks.agent.channel import Channel
from blocks.agent.protocol.jobs import SweepJob
from blocks.agent.protocol.parts import Made, MadePath, MadeProcess, MadeStamp
from blocks.agent.protocol.results import Leftover, SweepResult
from blocks.agent.redaction import command_of

_PATIENCE = 5.0
_POLL = 0.05
_ID = re.compile(r"r[0-9]{8}-[0-9]{6}-[0-9a-f]{6}", re.ASCII)
_OTHERS = 60.0
"""Seconds that another sweep of the same rehearsal is waited for."""


def run(job: SweepJob, _channel: Channel) -> SweepResult:
    """Ends and removes only what a marker names; what is still there is in `remaining`."""
    work_dir = Path(job.work_dir)
    found = leftovers(work_dir, job.rehearsal_id, own_only=job.own_only)
    for leftover in found if job.remove or job.processes_only else ():
        directory = work_dir / leftover.rehearsal_id
        with suppress(FileNotFoundError), _locked(directory) as alone:  # another sweep was faster
            if alone:
                _end(directory, job)
            if alone and job.remove:
                _remove(directory, job)
    remaining = leftovers(work_dir, job.rehearsal_id, own_only=job.own_only)
    return SweepResult(found=found, remaining=remaining)


def leftovers(
    work_dir: Path, rehearsal_id: str | None = None, *, own_only: bool = False
) -> tuple[Leftover, ...]:
    """What is there of one rehearsal, or of all; the marker directory itself counts.

    Raises trust.Untrusted where another account may have put the markers there.
    """
    if not os.path.lexists(work_dir):
        return ()
    trust.check(work_dir)
    if rehearsal_id is not None:
        directories = [work_dir / rehearsal_id]
    else:
        directories = sorted(work_dir.iterdir())
    found = []
    for directory in directories:
        with suppress(FileNotFoundError, NotADirectoryError):  # another sweep has removed it since
            if os.path.lexists(directory / marks.FILE):
                trust.check(directory / marks.FILE)
            elif not (rehearsal_id or _ID.fullmatch(directory.name)) or any(directory.iterdir()):
                continue  # nothing of farside's
            trust.check(directory)
            found.append(_leftover(directory, own_only=own_only))
    return tuple(found)


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Whether no other sweep changes the same rehearsal's meanwhile, such as its guard's.

    Another is waited for; one that does not end has the directory to itself. Where the file system
    has no locks, sweeps are not kept apart. Raises FileNotFoundError.
    """
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def free() -> bool:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    try:
        yield _await(free, _OTHERS)
    finally:
        os.close(opened)


@dataclass(frozen=True, slots=True)
class _Running:
    pid: int
    start: int
    polite: signal.Signals


@dataclass(frozen=True, slots=True)
class _Inventory:
    """What a rehearsal made and is still there, and what it named that is not its own (now)."""

    paths: tuple[MadePath, ...]
    running: tuple[_Running, ...]
    left_alone: tuple[str, ...]
    users: tuple[int, ...]
    """Processes that work in what is its own, and that it is not known to have started."""
    mounted: bool
    """Whether something is mounted in what is its own: to be removed once that is not so."""


def _leftover(directory: Path, *, own_only: bool) -> Leftover:
    there = _inventory(directory, own_only=own_only)
    told, state = lease.read(directory)
    return Leftover(
        rehearsal_id=directory.name,
        paths=(*(made.path for made in there.paths), str(directory)),
        processes=tuple(
            f"{pid}: {_command(pid)}"
            for pid in (*(process.pid for process in there.running), *there.users)
        ),
        left_alone=there.left_alone,
        plan=told.plan if told else "",
        state=state,
        kept=told is not None and told.kept,
        owner=told.owner if told else "",
        fences=told.fences if told else (),
    )


def _inventory(directory: Path, *, own_only: bool) -> _Inventory:
    entries = marks.read(directory) if (directory / marks.FILE).exists() else []
    stamps = {
        stamp.text(directory.name, entry.token): _signal_named(entry.ended_by)
        for entry in entries
        if isinstance(entry, MadeStamp)
    }
    running = {process.pid: process for process in _stamped(stamps)}
    # An entry with an inode is written after the one without: the last one of a path counts.
    named = {entry.path: entry for entry in entries if isinstance(entry, MadePath)}
    for entry in entries:
        if isinstance(entry, MadeProcess) and marks.runs(entry):
            running.setdefault(entry.pid, _Running(entry.pid, entry.start, signal.SIGTERM))
    for process in _in_sessions(directory.name, entries):
        running.setdefault(process.pid, process)
    running.pop(os.getpid(), None)
    ours: list[MadePath] = []
    left_alone: list[str] = []
    users = list[int]()
    mounted = bool(origins.mounted_in(str(directory)))
    for made in named.values():
        if not os.path.lexists(made.path):
            continue
        if own_only and directory not in Path(made.path).parents:
            left_alone.append(f"{made.path}: not in farside's own directory")
        elif not any(stamp.bears(made, mark) for mark in stamps):
            left_alone.append(f"{made.path}: it does not bear the stamp of {directory.name}")
        elif not _removable(Path(made.path), directory):
            left_alone.append(f"{made.path}: not a path that a rehearsal makes")
        elif held := origins.mounted_in(made.path):
            left_alone.append(f"{made.path}: {held} is mounted there: what it holds is not ours")
            mounted = True
        elif working := _users(Path(made.path), running):
            users += working
            who = ", ".join(f"{pid} ({_command(pid)})" for pid in working)[:300]
            left_alone.append(f"{made.path}: in use by what the rehearsal did not start: {who}")
        else:
            ours.append(made)
    return _Inventory(
        tuple(ours), tuple(running.values()), tuple(left_alone), tuple(users), mounted
    )


def _removable(path: Path, marker: Path) -> bool:
    """Not the root, not a directory above the marker, nothing relative: a marker may be damaged."""
    plain = path.is_absolute() and ".." not in path.parts and len(path.parts) > 2
    return plain and path not in marker.parents


def _processes() -> Iterator[int]:
    return (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal())


def _signal_named(name: str) -> signal.Signals:
    return signal.Signals.__members__.get(name, signal.SIGTERM)


def _stamped(stamps: Mapping[str, signal.Signals]) -> Iterator[_Running]:
    """Processes that were started with one of the stamps in their environment."""
    wanted = {f"{stamp.VARIABLE}={text}".encode(): number for text, number in stamps.items()}
    for pid in _processes() if wanted else ():
        with suppress(OSError):
            start = marks.start_of(pid)
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            polite = next((wanted[word] for word in words if word in wanted), None)
            if start is not None and polite is not None:
                yield _Running(pid, start, polite)


def _in_sessions(rehearsal_id: str, entries: list[Made]) -> Iterator[_Running]:
    """What a program of a job's has started, also where the program itself was killed.

    What has left its session, as a service does that a site's command starts, is not ours.
    """
    here = marks.machine()
    programs = {e.pid: e for e in entries if isinstance(e, MadeProcess) and e.machine == here}
    wanted = f"{marks.VARIABLE}={rehearsal_id}".encode()
    for pid in _processes() if programs else ():
        seen = marks.look(pid)
        if seen and (program := programs.get(seen.session)) and seen.start >= program.start:
            with suppress(OSError):
                if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    yield _Running(pid, seen.start, signal.SIGTERM)


def _users(path: Path, ours: dict[int, _Running]) -> list[int]:
    """Processes that work in a directory, or write there, and are neither ours nor of ours."""
    found = []
    for pid in _processes():
        if pid != os.getpid() and _works_in(pid, path) and not _descends(pid, ours):
            found.append(pid)
    return found


def _works_in(pid: int, path: Path) -> bool:
    places = []
    with suppress(OSError):
        places.append(os.readlink(f"/proc/{pid}/cwd"))  # noqa: PTH115 (a deleted one, too)
        for opened in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if opened.lstat().st_mode & 0o200:  # open for writing
                    places.append(os.readlink(opened))  # noqa: PTH115
    return any(f"{path}/" in f"{place}/" for place in places)


def _descends(pid: int, ours: dict[int, _Running]) -> bool:
    while pid > 1:
        if pid in ours:
            return True
        seen = marks.look(pid)
        if seen is None:
            return True  # it has ended
        pid = seen.parent
    return False


def _command(pid: int) -> str:
    try:
        return command_of(pid)[:200]
    except OSError:
        return ""


def _end(directory: Path, job: SweepJob) -> None:
    running = _inventory(directory, own_only=job.own_only).running
    for process in running:
        _signal(process, process.polite)
    _await(lambda: _ended(running))
    for process in running:
        _signal(process, signal.SIGKILL)
    _await(lambda: _ended(running))
    if running:  # their children, which may have written over the stamp, take a moment to notice
        _await(lambda: not _inventory(directory, own_only=job.own_only).users)


def _remove(directory: Path, job: SweepJob) -> None:
    before = _inventory(directory, own_only=job.own_only)
    # Without its marker, nothing would tell what is left, and whose it is.
    gone = [stamp.remove(made) for made in before.paths]
    if before.mounted or before.users or not all(gone):
        return
    _clear_marker(directory, keep=(lease.FILE, marks.FILE) if job.keep_marker else ())


def _clear_marker(directory: Path, keep: tuple[str, ...]) -> None:
    """The rehearsal's own directory; with something to keep, its marks begin anew."""
    if not keep:
        with suppress(OSError):
            if stamp.empty(directory, marks.FILE):
                directory.rmdir()
        return
    for entry in directory.iterdir():
        if entry.name in keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    (directory / marks.FILE).write_bytes(b"")


def _signal(process: _Running, number: signal.Signals) -> None:
    if marks.start_of(process.pid) != process.start:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.kill(process.pid, number)
        if number == signal.SIGKILL and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, number)


def _ended(running: tuple[_Running, ...]) -> bool:
    return all(marks.start_of(process.pid) != process.start for process in running)


def _await(done: Callable[[], bool], seconds: float = _PATIENCE) -> bool:
    deadline = time.monotonic() + seconds
    while not (ready := done()) and time.monotonic() < deadline:
        time.sleep(_POLL)
    return ready
