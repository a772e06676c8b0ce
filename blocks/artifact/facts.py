"""The job `facts`: what the host is and has. Standard library only; changes nothing."""

import importlib.metadata
import os
import platform
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

from blocks.artifact import sweep
from blocks.artifact.channel import Channel
from blocks.artifact.job import DirectoryFacts, FactsJob, FactsResult, PortFacts, ToolFacts

_MODULES = ("cryptography", "zstandard")
_PATIENCE = 10.0


def run(job: FactsJob, _channel: Channel) -> FactsResult:
    """Never raises for what is missing: that is what it is asked about."""
    return FactsResult(
        python=platform.python_version(),
        modules={name: _module(name) for name in _MODULES},
        time=time.time(),
        user=_user(),
        uid=os.geteuid(),
        hostname=socket.gethostname(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        directories=tuple(_directory(Path(path)) for path in job.directories),
        ports=tuple(_port(address, port) for address, port in job.ports),
        tools=tuple(_tool(name) for name in job.tools),
        leftovers=sweep.leftovers(Path(job.work_dir)) if job.work_dir else (),
    )


def _module(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _directory(path: Path) -> DirectoryFacts:
    nearest = path
    while not os.path.exists(nearest) and nearest != nearest.parent:  # noqa: PTH110
        nearest = nearest.parent
    disk = os.statvfs(nearest)
    exists = nearest == path
    return DirectoryFacts(
        path=str(path),
        exists=exists,
        empty=not exists or _is_empty(path),
        writable=os.access(nearest, os.W_OK | os.X_OK),
        free_bytes=disk.f_bavail * disk.f_frsize,
    )


def _is_empty(path: Path) -> bool:
    try:
        return next(path.iterdir(), None) is None
    except OSError:
        return False


def _port(address: str, port: int) -> PortFacts:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # What waits for old connections to time out does not hold a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            return PortFacts(address=address, port=port, free=False, reason=reason)
    return PortFacts(address=address, port=port, free=True)


def _tool(name: str) -> ToolFacts:
    path = shutil.which(name)
    return ToolFacts(name=name, path=path, version=None if path is None else _version(path))


def _version(path: str) -> str | None:
    try:
        said = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return lines[0] if lines else None
