"""What a rehearsal made on a host, noted before it is made: WORK_DIR/REHEARSAL_ID/made.jsonl."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from blocks.agent.protocol.parts import Made, MadeProcess
from blocks.artifact import wire

FILE = "made.jsonl"
VARIABLE = "FARSIDE_REHEARSAL"
"""In the environment of what a job of a rehearsal runs: the rehearsal's id."""


def note(directory: Path, made: Iterable[Made]) -> None:
    """Add entries, on disk when it returns. Raises OSError."""
    lines = "".join(wire.dumps(entry) + "\n" for entry in made).encode()
    file = os.open(directory / FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            lines = b"\n" + lines  # after what a full disk or a crash cut off
        # One write: lines of two processes do not mix.
        if os.write(file, lines) != len(lines):
            raise OSError(28, "a note could not be written whole", str(directory / FILE))
        os.fsync(file)
    finally:
        os.close(file)
    _sync(directory)


def _sync(directory: Path) -> None:
    """The name of a new file is in its directory: it must outlive a loss of power, too."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def read(directory: Path) -> list[Made]:
    """The entries; a line that a crash cut off is left out. Raises OSError."""
    found: list[Made] = []
    for line in (directory / FILE).read_bytes().splitlines():
        try:
            found.append(wire.loads(Made, line))  # type: ignore[arg-type]
        except wire.WireError:
            continue
    return found


def process(pid: int) -> MadeProcess | None:
    """The entry for a process that runs; None if it does not."""
    start = start_of(pid)
    return None if start is None else MadeProcess(pid=pid, start=start, machine=machine())


def runs(made: MadeProcess) -> bool:
    """Whether a process that was noted runs: the same one, on this machine, since its last boot."""
    return made.machine == machine() and start_of(made.pid) == made.start


def machine() -> str:
    """This boot of this machine, and the space in which process ids are given: two words."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return "none"


def start_of(pid: int) -> int | None:
    """When a process began (clock ticks after boot); None for no process, or a zombie."""
    found = look(pid)
    return found.start if found else None


@dataclass(frozen=True, slots=True)
class Seen:
    """A process as /proc/PID/stat has it."""

    parent: int
    session: int
    start: int
    """Clock ticks after boot."""


def look(pid: int) -> Seen | None:
    """A process; None where there is none, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    state, *rest = stat[stat.rindex(b")") + 2 :].split()
    if state in (b"Z", b"X"):
        return None
    return Seen(int(rest[0]), int(rest[2]), int(rest[18]))
