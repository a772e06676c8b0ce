"""The lab's processes: start them so that they outlive us, find them, kill them, all of them.

A process belongs to a domain if it was started as one of its services, or if its environment,
its program or its working directory is in the domain's tree, or if a process that belongs to it
started it. So what was started over SSH is found as well, and what a killed lab left behind.
"""

import ctypes
import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from blocks.errors import PermanentError
from deployments.lab import namespaces
from deployments.lab.accounts import Account
from deployments.lab.places import Places, write
from deployments.lab.site import Endpoint

#: In the environment of everything that runs in a domain: the domain's tree.
MARK = "FARSIDE_LAB_DOMAIN"
#: The whole environment of a service, besides the mark and its own additions.
PLAIN = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    # The lab has no names that a resolver knows: one that drops a question costs a second.
    "RES_OPTIONS": "timeout:1 attempts:1",
}
_KILL_PASSES = 20
_GONE_SECONDS = 5.0
_LOG_TAIL = 2000
_TOOL_SECONDS = 600
_DATABASE_SHARED_FILES = re.compile(r"/dev/shm/PostgreSQL\.\d+")
_POLL_SECONDS = 0.005
_READY_SECONDS = 60.0
_READY_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Service:
    """A process that the lab keeps running. `ready` says whether it does its work.

    It runs in the network namespace `namespace`, or in the caller's.
    """

    name: str
    tree: Path
    argv: tuple[str, ...]
    cwd: Path
    log: Path
    ready: Callable[[], bool]
    endpoint: Endpoint | None = None
    namespace: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def start(places: Places, service: Service, account: Account | None = None) -> None:
    """Start a service in a session of its own, with nothing inherited, and note its identity.

    It runs as `account`, or as the caller.
    """
    environment = {**PLAIN, "HOME": str(service.cwd), MARK: str(service.tree)}
    argv, identity = service.argv, account.identity if account else {}
    if service.namespace:
        # Only root may enter: it becomes somebody else inside.
        argv, identity = (*namespaces.entered(service.namespace, account), *argv), {}
    with service.log.open("ab") as log:
        child = subprocess.Popen(
            argv,
            cwd=service.cwd,
            env={**environment, **service.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=0o077,
            **identity,
        )
    note = {"pid": child.pid, "started": psutil.Process(child.pid).create_time()}
    write(places.processes / f"{service.name}.json", json.dumps(note))
    # Whether it lives is asked of the kernel, by identity; it is not waited for.
    child.returncode = 0


def tool(
    argv: Sequence[Path | str],
    cwd: Path,
    account: Account,
    said: str = "",
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a database's program as an account, with an input. Returns what it wrote to stderr.

    Raises PermanentError if it fails.
    """
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**PLAIN, "HOME": str(cwd), "TMPDIR": str(cwd), **(environment or {})},
        input=said.encode(),
        capture_output=True,
        timeout=_TOOL_SECONDS,
        start_new_session=True,
        check=False,
        **account.identity,
    )
    text = done.stderr.decode(errors="replace")
    if done.returncode != 0:
        raise PermanentError(
            f"{Path(argv[0]).name} failed:\n{text.strip()[-_LOG_TAIL:]}",
            operation="lab up",
            domain="east",
        )
    return text


def running(places: Places, name: str) -> int | None:
    """The process id of a service, or None if it does not run."""
    process = _noted(places.processes / f"{name}.json")
    return process.pid if process else None


def stop(places: Places, service: Service, number: signal.Signals) -> None:
    """Ask a service to end and wait until it has. Raises PermanentError."""
    process = _noted(places.processes / f"{service.name}.json")
    if process is None:
        return
    process.send_signal(number)
    deadline = time.monotonic() + _READY_SECONDS
    while _alive(process):
        if time.monotonic() > deadline:
            raise failure(service, "does not stop")
        time.sleep(_POLL_SECONDS)
    (places.processes / f"{service.name}.json").unlink(missing_ok=True)


def wait_ready(places: Places, services: Iterable[Service]) -> None:
    """Wait until all do their work. Raises PermanentError for one that has stopped."""
    deadline = time.monotonic() + _READY_SECONDS
    for service in services:
        while not service.ready():
            if running(places, service.name) is None:
                raise failure(service, "has stopped")
            if time.monotonic() > deadline:
                raise failure(service, f"is not ready after {_READY_SECONDS:.0f} s")
            time.sleep(_READY_POLL_SECONDS)


def failure(service: Service, what: str) -> PermanentError:
    """An error that shows the end of the service's log."""
    try:
        tail = service.log.read_text(errors="replace")[-_LOG_TAIL:].strip()
    except OSError:
        tail = ""
    return PermanentError(
        f"{service.name} {what}" + (f"; its log ends with:\n{tail}" if tail else ""),
        operation="lab up",
        hint=f"read {service.log}; `down`, then `up` builds the lab anew",
    )


def kill_service(places: Places, name: str) -> None:
    """Kill one service and its children."""
    process = _noted(places.processes / f"{name}.json")
    if process:
        with suppress(psutil.NoSuchProcess):
            _kill([process, *process.children(recursive=True)])


def kill_domain(places: Places, tree: Path) -> None:
    """Kill every process of a domain, and free the shared memory of its databases.

    Raises PermanentError if one survives.
    """
    killed = {note["pid"] for note in _notes(places, tree.name)}
    for _ in range(_KILL_PASSES):
        found = members(places, tree)
        if not found:
            _free_shared_memory(killed)
            return
        killed |= {process.pid for process in found}
        _kill(found)
    left = ", ".join(str(process.pid) for process in members(places, tree))
    raise PermanentError(
        f"processes of {tree.name} survive being killed: {left}",
        operation="lab",
        hint="see what they wait for in /proc/PID/wchan",
    )


def members(places: Places, tree: Path) -> list[psutil.Process]:
    """Every living process of a domain, except the caller and its ancestors."""
    me = psutil.Process()
    spared = {me.pid, *(parent.pid for parent in me.parents())}
    everyone = [p for p in psutil.process_iter() if p.pid not in spared]
    found = {p.pid for p in everyone if _belongs(p, tree)}
    noted = map(_noted, places.processes.glob(f"{tree.name}-*.json"))
    found |= {process.pid for process in noted if process}
    return _with_descendants(everyone, found)


def _belongs(process: psutil.Process, tree: Path) -> bool:
    try:
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            if process.environ().get(MARK) == str(tree):
                return True
            if _inside(process.exe(), tree):
                return True
            # A person's shell may stand in the tree; it has a terminal.
            return _inside(process.cwd(), tree) and process.terminal() is None
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _inside(path: str, tree: Path) -> bool:
    return path == str(tree) or path.startswith(f"{tree}/")


def _with_descendants(everyone: list[psutil.Process], found: set[int]) -> list[psutil.Process]:
    parents = {process.pid: _parent(process) for process in everyone}
    size = -1
    while len(found) > size:
        size = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return [process for process in everyone if process.pid in found and _alive(process)]


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill(processes: list[psutil.Process]) -> None:
    segments = {path for process in processes for path in _shared_files(process)}
    # All of them stop before the first one dies: a standby would call its dead primary at once.
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
    # Not psutil.wait_procs: a zombie that nobody collects is dead enough.
    deadline = time.monotonic() + _GONE_SECONDS
    while any(map(_alive, processes)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for path in segments:
        path.unlink(missing_ok=True)


def _shared_files(process: psutil.Process) -> list[Path]:
    """POSIX shared memory of a database, which outlives it when it is killed."""
    try:
        if process.name() != "postgres":
            return []
        maps = Path(f"/proc/{process.pid}/maps").read_text()
    except (psutil.NoSuchProcess, OSError):
        return []
    return [Path(path) for path in set(_DATABASE_SHARED_FILES.findall(maps))]


def _notes(places: Places, domain: str) -> list[dict[str, int]]:
    return [
        note
        for path in places.processes.glob(f"{domain}-*.json")
        if (note := _read(path)) is not None
    ]


def _read(path: Path) -> dict[str, int] | None:
    try:
        note = json.loads(path.read_text())
        return {"pid": int(note["pid"]), "started": note["started"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _noted(path: Path) -> psutil.Process | None:
    note = _read(path)
    if note is None:
        return None
    try:
        process = psutil.Process(note["pid"])
        same = abs(process.create_time() - note["started"]) < 0.5
        return process if same and _alive(process) else None
    except psutil.NoSuchProcess:
        return None


def _free_shared_memory(creators: set[int]) -> None:
    """A killed PostgreSQL leaves a small System V segment, which no file system shows."""
    try:
        lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    except OSError:
        return
    library = ctypes.CDLL(None)
    for line in lines:
        fields = line.split()
        segment, creator, attached = int(fields[1]), int(fields[4]), int(fields[6])
        if creator in creators and attached == 0:
            library.shmctl(segment, 0, None)  # 0 is IPC_RMID
