"""The job `guard`: a dead man's switch for a packet filter. Standard library only.

It leaves a process behind that outlives the connection. When the rehearsal's lease has run out, it
first stops what was restored here; only when none of it runs any more it lifts the filter, and then
removes the rest.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

from blocks.agent import lease
from blocks.agent.channel import Channel
from blocks.agent.jobs import sweep
from blocks.agent.protocol.jobs import GuardJob, SweepJob
from blocks.agent.protocol.results import GuardResult, SweepResult

_POLL_SECONDS = 1.0
_AGAIN_SECONDS = 30.0
"""After an attempt that failed: a process may yet end."""
_NFT_SECONDS = 60.0


def run(job: GuardJob, _channel: Channel) -> GuardResult:
    """Start the guard and return at once; the guard ends with the filter or the directory."""
    pid = os.fork()
    if pid:
        return GuardResult(pid=pid)
    try:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        watch(job)
    finally:
        os._exit(0)


def watch(job: GuardJob) -> bool:
    """Wait until the lease has run out, then sweep and lift; whether the filter was lifted.

    Without a directory nothing tells whether the rehearsal lives: the filter stays as it is.
    """
    directory = Path(job.work_dir) / job.rehearsal_id
    while directory.is_dir():
        if lease.state(directory) != "dead":
            time.sleep(_POLL_SECONDS)
            continue
        running = any(left.processes for left in _sweep(job, remove=False).remaining)
        if not running and _lift(job):
            _sweep(job, remove=True)
            return True
        time.sleep(_AGAIN_SECONDS)
    return False


def _sweep(job: GuardJob, *, remove: bool) -> SweepResult:
    ask = SweepJob(
        work_dir=job.work_dir,
        rehearsal_id=job.rehearsal_id,
        processes_only=not remove,
        remove=remove,
    )
    return sweep.run(ask, Channel.__new__(Channel))


def _lift(job: GuardJob) -> bool:
    # Added first: a sweep from elsewhere may have been faster.
    undo = f"add table inet {job.table}\ndelete table inet {job.table}\n"
    done = subprocess.run(
        [*job.nft_argv, "--file", "-"],
        input=undo.encode(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_NFT_SECONDS,
        check=False,
    )
    return done.returncode == 0
