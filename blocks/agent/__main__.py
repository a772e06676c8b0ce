"""The agent that runs on a host: one job from standard input, events on standard output."""

import contextlib
import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from blocks.agent import ending, marks
from blocks.agent.channel import Channel
from blocks.agent.failure import JobFailed
from blocks.agent.protocol import from_line
from blocks.agent.protocol.events import BEAT_SECONDS, Alive, Done
from blocks.agent.protocol.jobs import Job
from blocks.agent.protocol.results import Result

_CONVERSING = ("seal", "follow", "copy", "open", "watch", "program")
_LONG = (*_CONVERSING, "sweep")


def main() -> int:
    """Exit code 0 after `done`, 1 after `error`. Never returns while a thread still works."""
    line = sys.stdin.buffer.readline()
    channel = Channel(sys.stdin.buffer, sys.stdout.fileno())
    try:
        job: Job = from_line(Job, line)
        if job.job in _CONVERSING:
            # The rest answers at once and asks nothing: for those, the input may end here.
            _watch(channel)
        if job.job in _LONG:
            threading.Thread(target=_beat, args=(channel,), daemon=True).start()
        _note_self(job)
        result = _run(job, channel)
    except BaseException as error:
        ending.fail(channel, error)
        raise  # it has ended
    ending.finish(channel, Done(result=result, peak_rss=_peak_rss()))
    return 0


def _run(job: Job, channel: Channel) -> Result:
    """Imports only what the job needs: half of the jobs do without `cryptography`."""
    module = importlib.import_module(f"blocks.agent.jobs.{job.job}")
    result: Result = module.run(job, channel)
    return result


def _watch(channel: Channel) -> None:
    def lost() -> None:
        ending.fail(channel, JobFailed("aborted", "the input ended"))

    def told(_number: int, _frame: FrameType | None) -> None:
        if not ending.is_acting():
            lost()

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, told)
    channel.listen(lost)


def _beat(channel: Channel) -> None:
    with contextlib.suppress(OSError):  # nobody reads any more: that is noticed elsewhere
        while True:
            time.sleep(BEAT_SECONDS)
            channel.tell(Alive())


def _note_self(job: Job) -> None:
    marker = getattr(job, "marker", None)
    if marker is not None and (entry := marks.process(os.getpid())):
        marks.note(Path(marker), [entry])


def _peak_rss() -> int:
    """Bytes. Not from getrusage: that would start with the peak of the process that forked us."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    sys.exit(main())
