"""The job `facts`: what the host is and has. Standard library only; changes nothing."""

import glob
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
from blocks.artifact.job import (
    DirectoryFacts,
    FactsJob,
    FactsResult,
    Mention,
    NameFacts,
    PortFacts,
    ToolFacts,
)

_MODULES = ("cryptography", "zstandard")
_PATIENCE = 10.0
_SEARCHED = 2**20
_VERSION_IS_A_COMMAND = frozenset({"etcdctl", "etcdutl"})


def run(job: FactsJob, _channel: Channel) -> FactsResult:
    """Never raises for what is missing: that is what it is asked about."""
    mentions, unread = _searched(job)
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
        names=tuple(_resolved(name) for name in job.names),
        mentions=mentions,
        unread=unread,
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
    if path is None:
        return ToolFacts(name=name, path=None, version=None)
    real = os.path.realpath(path)
    return ToolFacts(
        name=name,
        path=path,
        version=_version(path),
        real=" on ".join(filter(None, (real, _server(real)))),
        package=_package(real) or (_package(path) if real != path else ""),
    )


def _server(path: str) -> str:
    """The server of the network file system that a path is on; empty for a disk of the host's."""
    best = ("", "", "")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        at, (kind, device, *_) = before.split()[4], after.split()
        if (path == at or path.startswith(at.rstrip("/") + "/")) and len(at) >= len(best[0]):
            best = (at, kind, device)
    _, kind, device = best
    return device if kind.startswith(("nfs", "cifs", "smb", "ceph", "gluster", "fuse")) else ""


def _package(path: str) -> str:
    """The distribution's package that a file is from; empty where nobody knows."""
    for argv in (["dpkg-query", "-S", path], ["rpm", "-qf", path]):
        if shutil.which(argv[0]) is not None:
            said = _said(argv)
            if said is not None and "\n" not in said.strip():
                return said.partition(": ")[0].strip()
    return ""


def _resolved(name: str) -> NameFacts:
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(name, None)}
    except OSError:
        found = set()
    return NameFacts(name=name, addresses=tuple(sorted(found)))


def _searched(job: FactsJob) -> tuple[tuple[Mention, ...], tuple[str, ...]]:
    mentions, unread = [], []
    for pattern in job.files:
        places = glob.glob(os.path.expanduser(pattern), recursive=True, include_hidden=True)  # noqa: PTH111, PTH207 (a text)
        for path in sorted(places):
            try:
                with open(path, "rb") as file:  # noqa: PTH123 (a text)
                    text = file.read(_SEARCHED).decode("utf-8", "replace")
            except IsADirectoryError:
                continue
            except OSError:
                unread.append(path)
                continue
            for line, found in job.foreign.lines(text):
                mentions.append(Mention(path=path, line=line, text=found))
    return tuple(mentions), tuple(unread)


def _version(path: str) -> str | None:
    word = "version" if Path(path).name in _VERSION_IS_A_COMMAND else "--version"
    said = _said([path, word], anyhow=True)
    lines = (said or "").strip().splitlines()
    return lines[0] if lines else None


def _said(argv: list[str], *, anyhow: bool = False) -> str | None:
    """What a program prints; None if it failed, unless that does not matter."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if anyhow else subprocess.DEVNULL,
            timeout=_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if anyhow or done.returncode == 0 else None
