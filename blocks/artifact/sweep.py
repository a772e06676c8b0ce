"""The job `sweep`: what rehearsals left on a host, by their markers. Standard library only."""

import os
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blocks.artifact import marks
from blocks.artifact.channel import Channel
from blocks.artifact.job import (
    Leftover,
    MadePath,
    MadePidfile,
    MadeProcess,
    SweepJob,
    SweepResult,
)

_PATIENCE = 5.0
_POLL = 0.05


def run(job: SweepJob, _channel: Channel) -> SweepResult:
    """Removes only what a marker names; what could not be removed is in `remaining`."""
    work_dir = Path(job.work_dir)
    found = leftovers(work_dir, job.rehearsal_id)
    if job.remove:
        for leftover in found:
            _remove(work_dir / leftover.rehearsal_id)
    return SweepResult(found=found, remaining=leftovers(work_dir, job.rehearsal_id))


def leftovers(work_dir: Path, rehearsal_id: str | None = None) -> tuple[Leftover, ...]:
    """What is there of one rehearsal, or of all; the marker directory itself counts."""
    if rehearsal_id is not None:
        directories = [work_dir / rehearsal_id]
    else:
        directories = sorted(work_dir.iterdir()) if work_dir.is_dir() else []
    return tuple(
        _leftover(directory) for directory in directories if (directory / marks.FILE).is_file()
    )


@dataclass(frozen=True, slots=True)
class _Running:
    pid: int
    start: int
    polite: signal.Signals


def _leftover(directory: Path) -> Leftover:
    paths, running = _inventory(directory)
    return Leftover(
        rehearsal_id=directory.name,
        paths=tuple(str(path) for path in paths if os.path.lexists(path)),
        processes=tuple(f"{process.pid}: {_command(process.pid)}" for process in running),
    )


def _inventory(directory: Path) -> tuple[list[Path], list[_Running]]:
    """The paths noted, the marker directory last, and the noted processes that still run."""
    paths = [directory]
    processes: list[tuple[int, int | None, signal.Signals]] = []
    for made in marks.read(directory):
        match made:
            case MadePath(path=path):
                if _removable(Path(path), directory):
                    paths.insert(0, Path(path))
            case MadePidfile(pidfile=pidfile):
                if pid := _pid_in(Path(pidfile)):
                    # To a PostgreSQL postmaster: end at once, and take all children along.
                    processes.append((pid, None, signal.SIGQUIT))
            case MadeProcess(pid=pid, start=start):
                processes.append((pid, start, signal.SIGTERM))
    return list(dict.fromkeys(paths)), _still_running(processes, paths)


def _removable(path: Path, marker: Path) -> bool:
    """Not the root, not a directory above the marker, nothing relative: a marker may be damaged."""
    plain = path.is_absolute() and ".." not in path.parts and len(path.parts) > 2
    return plain and path not in marker.parents


def _still_running(
    processes: list[tuple[int, int | None, signal.Signals]], paths: list[Path]
) -> list[_Running]:
    found: dict[int, _Running] = {}
    for pid, noted, polite in processes:
        start = marks.start_of(pid)
        if start is None or noted not in (None, start) or pid == os.getpid():
            continue
        if _refers_to(pid, paths):
            found[pid] = _Running(pid, start, polite)
    return list(found.values())


def _pid_in(pidfile: Path) -> int | None:
    try:
        first = pidfile.read_text("utf-8", "replace").partition("\n")[0].strip()
    except OSError:
        return None
    return int(first) if first.isdecimal() and int(first) > 1 else None


def _refers_to(pid: int, paths: list[Path]) -> bool:
    """Whether it works in one of the paths, or names one: a number alone proves nothing."""
    words = _words(pid)
    with suppress(OSError):
        words.append(os.readlink(f"/proc/{pid}/cwd"))  # noqa: PTH115
    return any(word == str(path) or f"{path}/" in f"{word}/" for word in words for path in paths)


def _words(pid: int) -> list[str]:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [word.decode("utf-8", "replace") for word in line.split(b"\0") if word]


def _command(pid: int) -> str:
    return " ".join(_words(pid))[:200]


def _remove(directory: Path) -> None:
    paths, running = _inventory(directory)
    for process in running:
        _signal(process, process.polite)
    _await_end(running)
    for process in running:
        _signal(process, signal.SIGKILL)
    _await_end(running)
    for path in paths:
        _delete(path)


def _signal(process: _Running, number: signal.Signals) -> None:
    if marks.start_of(process.pid) != process.start:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.kill(process.pid, number)
        if number == signal.SIGKILL and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, number)


def _await_end(running: list[_Running]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if all(marks.start_of(process.pid) != process.start for process in running):
            return
        time.sleep(_POLL)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
