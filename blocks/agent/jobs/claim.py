"""The job `claim`: take directories and ports for a rehearsal, in one step or not at all."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blocks.agent import lease, marks, stamp, trust
from blocks.agent.channel import Channel
from blocks.agent.protocol.jobs import ClaimJob
from blocks.agent.protocol.parts import MadePath, MadePort, MadeStamp
from blocks.agent.protocol.results import ClaimResult


def run(job: ClaimJob, _channel: Channel) -> ClaimResult:
    """Raises OSError. What is refused leaves everything as it was, and no mark."""
    work = Path(job.work_dir)
    marker = work / job.rehearsal_id
    trust.check(marker)
    paths = [Path(path) for path in job.directories]
    with _locked(work):
        try:
            for path in paths:
                _look(path)
            for address, port in job.ports:
                _free(address, port, marker)
            intended = [MadePath(path=str(path)) for path in paths]
            ports = [MadePort(address=address, port=port) for address, port in job.ports]
            mark = MadeStamp(token=job.token, ended_by=job.ended_by)
            marks.note(marker, [mark, *ports, *intended])
            _take(paths, marker, stamp.text(job.rehearsal_id, job.token))
        except stamp.Occupied as error:
            return ClaimResult(refused=str(error))
    return ClaimResult()


def _take(paths: list[Path], marker: Path, mark: str) -> None:
    taken: list[MadePath] = []
    try:
        for path in paths:
            taken.append(stamp.take(path, mark))
    except BaseException:
        for made in taken:
            stamp.remove(made)
        raise
    marks.note(marker, taken)


def _look(path: Path) -> None:
    if path.is_symlink():
        raise stamp.Occupied(f"{path} is a link")
    with suppress(FileNotFoundError):
        if any(path.iterdir()):
            raise stamp.Occupied(f"{path} is not empty")


def _free(address: str, port: int, marker: Path) -> None:
    for other in marker.parent.iterdir():
        if other == marker or not (other / marks.FILE).is_file():
            continue
        claimed = MadePort(address=address, port=port) in marks.read(other)
        if claimed and lease.state(other) != "dead":
            raise stamp.Occupied(f"port {port} of {address} is taken by {other.name}")
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((address, port))
    except OSError as error:
        raise stamp.Occupied(f"port {port} of {address}: {error.strerror}") from None


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """One claim at a time: two rehearsals that look at once would both find a port free."""
    directory = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)
