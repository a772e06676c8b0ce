"""The job `note`: mark the process of a service that a plan's own command has started."""

import os
import time
from pathlib import Path

from blocks.agent import marks, stamp, trust
from blocks.agent.channel import Channel
from blocks.agent.protocol.jobs import NoteJob
from blocks.agent.protocol.results import NoteResult

_TICK = os.sysconf("SC_CLK_TCK")


def run(job: NoteJob, _channel: Channel) -> NoteResult:
    """Raises OSError. What is refused leaves no mark."""
    marker = Path(job.work_dir) / job.rehearsal_id
    trust.check(marker)
    try:
        pid = int(Path(job.pidfile).read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError) as error:
        return NoteResult(refused=f"{job.pidfile} holds no process id: {error}")
    entry = marks.process(pid)
    if entry is None:
        return NoteResult(refused=f"process {pid} of {job.pidfile} does not run")
    if _began(entry.start) < (Path(job.directory) / stamp.FILE).stat().st_mtime - 1:
        return NoteResult(refused=f"process {pid} of {job.pidfile} ran before the restore")
    marks.note(marker, [entry])
    return NoteResult()


def _began(start: int) -> float:
    """When a process began, by the clock of files; `start` is in clock ticks after boot."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + start / _TICK
