"""What a rehearsal made on a host, noted before it is made: WORK_DIR/REHEARSAL_ID/made.jsonl."""

import os
from collections.abc import Iterable
from pathlib import Path

from blocks.artifact import wire
from blocks.artifact.channel import Channel
from blocks.artifact.job import Made, MadeProcess, MarkJob, MarkResult

FILE = "made.jsonl"


def run(job: MarkJob, _channel: Channel) -> MarkResult:
    """The job `mark`. The marker directory is made if it is missing. Raises OSError."""
    directory = Path(job.work_dir) / job.rehearsal_id
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    note(directory, job.made)
    return MarkResult(added=len(job.made))


def note(directory: Path, made: Iterable[Made]) -> None:
    """Add entries, on disk when it returns. Raises OSError."""
    lines = "".join(wire.dumps(entry) + "\n" for entry in made).encode()
    file = os.open(directory / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, lines)  # one write: lines of two processes do not mix
        os.fsync(file)
    finally:
        os.close(file)


def read(directory: Path) -> list[Made]:
    """The entries; a last line that a crash cut off is left out. Raises OSError."""
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
    return None if start is None else MadeProcess(pid=pid, start=start)


def start_of(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (clock ticks after boot); None for no process, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    state, *rest = stat[stat.rindex(b")") + 2 :].split()
    return None if state in (b"Z", b"X") else int(rest[18])
