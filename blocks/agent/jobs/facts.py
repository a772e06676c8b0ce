"""The job `facts`: what the host is and has. Standard library only; changes nothing."""

import contextlib
import glob
import hashlib
import importlib
import importlib.metadata
import os
import platform
import pwd
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Literal

from blocks import readings
from blocks.agent import origins
from blocks.agent.channel import Channel
from blocks.agent.jobs import sweep
from blocks.agent.protocol.events import BEAT_SECONDS, Alive
from blocks.agent.protocol.jobs import FactsJob
from blocks.agent.protocol.results import (
    DirectoryFacts,
    FactsResult,
    Mention,
    NameFacts,
    OriginFacts,
    PortFacts,
    ToolFacts,
)
from blocks.ownership import Belongings, hosts_in

_MODULES = ("cryptography", "zstandard")
_PATIENCE = 10.0
_RESOLVING = 8.0
"""How long all names together may take; those without an answer by then lead nowhere."""
NAMES = 300
"""How many names are resolved at once."""
_SEARCHED = 2**20
_MENTIONS = 1000
_PLACES = 5
"""In how many places a host is used, of those that are told of."""


def run(job: FactsJob, channel: Channel) -> FactsResult:
    """Never raises for what is missing: that is what it is asked about."""
    found = _searched(job, channel)
    names = dict.fromkeys(job.names, "") | found.used
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
        tools=_tools(job.tools, job.version_words),
        leftovers=sweep.leftovers(Path(job.work_dir)) if job.work_dir else (),
        names=resolved(dict(islice(names.items(), NAMES))),
        more_names=max(0, len(names) - NAMES),
        mentions=tuple(sorted(found.mentions, key=lambda item: (item.path, item.line))),
        unread=tuple(found.unread),
        cut=tuple(found.cut),
        more_mentions=found.more,
        origins=(*_in_vault(job), *(_origins(job) if job.origins else ())),
    )


def _in_vault(job: FactsJob) -> Iterator[OriginFacts]:
    """The vault's directory and what is in it, as far as it leads to another domain."""
    if job.vault is None:
        return
    if found := origins.origin(job.vault, job.foreign):
        yield OriginFacts(kind="storage", of=job.vault, path=job.vault, origin=found)
    for path, found in origins.below(job.vault, job.foreign):
        yield OriginFacts(kind="storage", of=job.vault, path=path, origin=found)


def _origins(job: FactsJob) -> Iterator[OriginFacts]:
    """What in use leads to another domain: each path once, by the first that needs it."""
    seen: set[str] = set()

    def leading(kind: Literal["storage", "tool"], of: str, path: str) -> Iterator[OriginFacts]:
        if path not in seen and (found := origins.origin(path, job.foreign)):
            seen.add(path)
            yield OriginFacts(kind=kind, of=of, path=path, origin=found)

    for path in dict.fromkeys((*job.directories, *_own_directories())):
        yield from leading("storage", path, path)
        for inner, found in origins.below(path, job.foreign) if path in job.directories else ():
            yield OriginFacts(kind="storage", of=path, path=inner, origin=found)
    for path in _own_programs():
        yield from leading("tool", "Python", path)
    for path in _path_files():
        yield from _named("Python", path, job.foreign)
    for folder in os.environ.get("PATH", "").split(":"):
        yield from leading("tool", "PATH", folder)
    for path in origins.named_in(job.commands):
        # What a command itself names in the source's directories is told of the plan.
        if not (job.foreign.paths_in(path) or _is_tool(path, job)):
            yield from leading("tool", "the plan's commands", path)
    for path in origins.of_commands(job.commands):
        for item in _named("the plan's commands", path, job.foreign):
            seen.add(path)
            yield item
    homes: set[str] = set()
    for name in job.tools:
        program = shutil.which(name)
        if program is None:
            continue
        # The program itself is known as a tool of its own: this is what it needs beside.
        seen.update((program, os.path.realpath(program)))
        for path in origins.loaded(program)[0]:
            yield from leading("tool", name, path)
        for path in origins.scripts(program):
            yield from _named(name, path, job.foreign)
        home = origins.installation(program)
        if home and home not in homes:
            homes.add(home)
            programs = (program, os.path.realpath(program))
            for path, found in origins.below(home, job.foreign):
                if path not in seen and path not in programs and not _is_tool(path, job):
                    seen.add(path)
                    yield OriginFacts(kind="tool", of=name, path=path, origin=found)


def _named(of: str, path: str, foreign: Belongings) -> Iterator[OriginFacts]:
    """Lines of a script, or of its settings, that name another domain."""
    text = origins.text_of(path)
    comments = readings.comments(text)
    for line, found in foreign.lines(text):
        said = f"its line {line} names {found}"
        comment = line in comments
        yield OriginFacts(kind="tool", of=of, path=path, origin=said, comment=comment)


def _is_tool(path: str, job: FactsJob) -> bool:
    """Whether a path is one of the tools asked for, each of which is told of by itself."""
    return path in job.tools or any(shutil.which(name) == path for name in job.tools)


def _own_directories() -> tuple[str, ...]:
    """Where the account's own files are."""
    return (os.path.expanduser("~"), tempfile.gettempdir())  # noqa: PTH111 (a text)


def _own_programs() -> tuple[str, ...]:
    """What this very process runs with: interpreter, modules, libraries."""
    modules = [getattr(module, "__file__", None) for module in sys.modules.values()]
    mapped = [line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()]
    found = (sys.executable, sys.prefix, sys.base_prefix, *sys.path, *modules, *mapped)
    return tuple(dict.fromkeys(item for item in found if item and item.startswith("/")))


def _path_files() -> Iterator[str]:
    """Files that Python reads as it starts, for places to look for modules in and code to run."""
    for folder in sys.path:
        yield from sorted(glob.glob(f"{glob.escape(folder)}/*.pth"))  # noqa: PTH207 (a text)


def _module(name: str) -> str | None:
    """Its version; None where it cannot be imported, whatever its package says."""
    try:
        importlib.import_module(name)
        return importlib.metadata.version(name)
    except Exception:  # noqa: BLE001 (the import runs a package's own code)
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
        device=nearest.stat().st_dev,
        free_files=disk.f_favail if disk.f_files else None,
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


def _tools(names: Sequence[str], version_words: Mapping[str, str]) -> tuple[ToolFacts, ...]:
    found = {name: path for name in names if (path := shutil.which(name))}
    real = {path: os.path.realpath(path) for path in found.values()}
    packages = _packages({*real, *real.values()})
    words = {path: version_words.get(Path(path).name) for path in real}
    return tuple(
        ToolFacts(name=name, path=None, version=None)
        if (path := found.get(name)) is None
        else ToolFacts(
            name=name,
            path=path,
            version=_version(path, word) if (word := words.get(path)) else _digest(path),
            real=" on ".join(filter(None, (real[path], origins.server_of(real[path])))),
            lacking=origins.loaded(path)[1],
            package=packages.get(real[path]) or packages.get(path, ""),
        )
        for name in names
    )


def _packages(paths: set[str]) -> dict[str, str]:
    """The distribution's package of each file that is from one."""
    found: dict[str, str] = {}
    # Of a merged /usr, older packages know their files without it.
    names = {path.removeprefix("/usr"): path for path in paths} | {path: path for path in paths}
    if paths and shutil.which("dpkg-query"):  # all at once: each run reads all lists of files
        for line in (_said(["dpkg-query", "-S", *sorted(names)], anyhow=True) or "").splitlines():
            package, _, name = line.partition(": ")
            if name in names and " " not in package.replace(", ", ""):  # no "diversion by"
                found[names[name]] = package
    for path in paths - set(found) if shutil.which("rpm") else ():
        said = (_said(["rpm", "-qf", path]) or "").strip()
        if said and "\n" not in said:
            found[path] = said
    return found


def resolved(names: Mapping[str, str]) -> tuple[NameFacts, ...]:
    """What names lead to, all at once: a resolver that is silent costs its time limit once.

    Each with where it is used.
    """
    found: dict[str, tuple[str, ...]] = {}

    def ask(name: str) -> None:
        with contextlib.suppress(OSError, UnicodeError):
            infos = socket.getaddrinfo(name, None)
            found[name] = tuple(sorted({str(info[4][0]) for info in infos}))

    asking = [threading.Thread(target=ask, args=(name,), daemon=True) for name in names]
    give_up = time.monotonic() + _RESOLVING
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(max(0.0, give_up - time.monotonic()))
    return tuple(
        NameFacts(name=name, addresses=found.get(name, ()), where=where)
        for name, where in names.items()
    )


@dataclass(slots=True)
class _Found:
    """The first mentions and how many more there are, files that were not read, or not to their
    end, hosts that files use, with the places, and all files that were looked at.
    """

    mentions: list[Mention] = field(default_factory=list)
    more: int = 0
    unread: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    used: dict[str, str] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    def use(self, name: str, where: str) -> None:
        """Note that a host is used; a few places of each are told of."""
        known = self.used.get(name, "")
        if known.count(", ") < _PLACES - 1:
            self.used[name] = f"{known}, {where}" if known else where


def _searched(job: FactsJob, channel: Channel) -> _Found:
    """All files of a job.

    A tree of any size streams by, and a file that was read is a sign of life: a mount that hangs
    gives none.
    """
    seen, told = _Found(), time.monotonic()
    if job.files:
        for name, value in os.environ.items():
            if name.startswith("SSH_") or name in ("PATH", "PWD", "OLDPWD", "HOME"):
                continue  # who asks, and what is looked at as a directory
            named = job.foreign.lines(value)
            seen.mentions += [Mention(path=f"${name}", line=1, text=text) for _, text in named]
            if name.lower().endswith("_proxy"):
                for host in hosts_in(value):
                    seen.use(host, f"${name}")
    for path in _files(job):
        if time.monotonic() - told > BEAT_SECONDS:
            channel.tell(Alive())
            told = time.monotonic()
        waiting = [path]
        while waiting:
            waiting += _search(waiting.pop(), job, seen)
    return seen


def _files(job: FactsJob) -> Iterator[str]:
    """What a job names, and the settings of each installation that its tools are from."""
    homes = {origins.installation(found) for name in job.tools if (found := shutil.which(name))}
    own = [f"{home}/etc/**" for home in sorted(filter(None, homes)) if job.files]
    for pattern in (*job.files, *own):
        places = glob.iglob(os.path.expanduser(pattern), recursive=True, include_hidden=True)  # noqa: PTH111, PTH207 (a text)
        # A pattern that ends in ** stands for its own directory, too, were there none.
        yield from (path for path in places if not path.endswith("/"))


def _search(path: str, job: FactsJob, seen: _Found) -> tuple[str, ...]:
    """A file, each once; what it takes in is for the caller to search, too."""
    if path in seen.read:
        return ()
    seen.read.add(path)
    data = b""
    try:
        # What is no file (a pipe, say) might never end, or never begin.
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (a text)
            return ()
        with open(path, "rb") as file:  # noqa: PTH123 (a text)
            data = file.read(_SEARCHED)
            if file.read(1):
                seen.cut.append(path)
    except OSError:
        if not (job.origins and origins.origin(path, job.foreign)):
            seen.unread.append(path)
            return ()
    if readings.is_packed(data):
        seen.unread.append(path)
        data = b""
    text = origins.decoded(data)
    if path.endswith("authorized_keys"):
        text = _options(text)
    named = job.foreign.lines(text)
    if job.origins and (target := origins.origin(path, job.foreign)):
        named = chain(named, [(0, target)])
    comments = readings.comments(text)
    for line, found in named:
        if len(seen.mentions) < _MENTIONS:
            item = Mention(path=path, line=line, text=found, comment=line in comments)
            seen.mentions.append(item)
        else:
            seen.more += 1
    if job.origins:
        for name, where in _hosts_used(path, text, job.foreign):
            seen.use(name, where)
        return origins.included(path, text)
    return ()


def _digest(path: str) -> str | None:
    """The digest of a program's file, in place of a version; None where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError:
        return None


def _hosts_used(path: str, text: str, foreign: Belongings) -> Iterator[tuple[str, str]]:
    """Hosts that a file uses, by names that say nothing of whose they are, and where."""
    for number, line in readings.lines(text):
        for name in hosts_in(line.partition("#")[0]):
            if not foreign.owns_name(name):
                yield name, f"{path}:{number}"


def _options(text: str) -> str:
    """Authorised keys without the key material and the comments, which name people."""
    return "\n".join(re.split(r"(?:^|\s)(?:ssh-|ecdsa-|sk-)", line)[0] for line in text.split("\n"))


def _version(path: str, word: str) -> str | None:
    said = _said([path, word], anyhow=True, errors=True)
    lines = (said or "").strip().splitlines()
    return lines[0] if lines else None


def _said(argv: list[str], *, anyhow: bool = False, errors: bool = False) -> str | None:
    """What a program prints, perhaps its errors, too; None if it failed, but for `anyhow`."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors else subprocess.DEVNULL,
            timeout=_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if anyhow or done.returncode == 0 else None
