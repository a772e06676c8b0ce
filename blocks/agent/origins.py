"""Where what a path names truly is: every link and mount on the way, and what a program loads.

Standard library only: hosts and the orchestrator ask it of themselves.
"""

import codecs
import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from blocks import readings
from blocks.agent.redaction import command_of, redacted
from blocks.ownership import Belongings

_LINKS = 40
_DEEPEST = 40
_LAYERS = re.compile(r"\b(?:lowerdir\+?|upperdir)=([^,)\s]+)")
"""The directories that an overlay shows as one, in the options of its mount."""
_ENTRIES = 20_000
_PATIENCE = 10.0
_LISTED = re.compile(r"(?:^|=>)\s*(/\S+) \(0x", re.MULTILINE)
_LACKING = re.compile(
    r"(?:loading shared librar(?:y|ies):? )([^:\s]+)|(\S+) => not found", re.IGNORECASE
)
_PATH = re.compile(r"(?<![\w.$}/-])/[\w.@+-]+(?:/[\w.@+-]+)+")
_WORD = r"""(?:"(?:\$\([^)\n]*\)|\$(?!\()|[^"\n$])*"|'[^'\n]*'|\$(?:\([^)\n]*\))?|[^\s;&|"'$])+"""
_TAKEN_IN = re.compile(
    rf"""(?:^|[;&|({{`]) [ \t]* (?:(?:then|do|else|if|while|exec|command|nohup|sudo|!)[ \t]+)*
      (?: (?:\.|source) [ \t]+ (?P<taken>{_WORD})
        | (?:[\w/]*/)?(?:ba|da|k|z)?sh (?:[ \t]+-\w+)* [ \t]+ (?P<run>{_WORD})
        | (?P<called>{_WORD}) )""",
    re.MULTILINE | re.VERBOSE,
)
"""A shell's `. FILE`, `sh FILE` and `DIRECTORY/FILE`, however that directory is spelled."""
_SETTINGS = re.compile(
    r"[\w.@+/~-]*[\w@+-]\.(?:conf|cfg|cnf|env|ini|json|properties|rc|toml|ya?ml)\b"
)
"""Files by whose names it is plain that a program reads them: not those that it may write."""
_OF_SHELL = re.compile(r"\$\{\w+(?::?[-=]([^{}\s]*))?\}|\$\w+")
"""A variable; one that is given a value for want of another most likely has that."""
_IMPORTED = re.compile(
    r"""^[ \t]*(?:import|from|use|require)[ \t]+["']?([\w./:]+(?:,[ \t]*[\w./:]+)*)""",
    re.MULTILINE,
)
"""Python's and Perl's: what of it lies beside the script is its own."""
_INCLUDED = re.compile(
    r"""^[ \t]*(?:\.|source|include|include_dir|include_if_exists|!include(?:dir)?|\\i|path[ \t]*=)
        [ \t=]+["']?([^\s"';&|]+)""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
"""Another file that one of settings, or for a shell, takes in."""
_RUN = re.compile(r"^[ \t]*credential_process[ \t]*=[ \t]*(.+)", re.MULTILINE)
_NAMED = re.compile(r"[\w.@+/-]*[\w@+-]")
_SCRIPTS = 50
_OF_NETWORKS = (
    *("nfs", "cifs", "smb", "ceph", "gluster", "lustre", "beegfs", "afs"),
    *("fuse.sshfs", "fuse.gluster", "fuse.ceph", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse"),
)
"""How the kinds of file systems begin that several machines may have at once."""
_TOO_WIDE = ("/", "/usr", "/usr/local", "/opt")


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/self/mountinfo."""

    device: str
    root: str
    at: str
    kind: str
    source: str
    options: str


def trail(path: str) -> tuple[str, ...]:
    """What a path leads through: each link's target, its real place, and what that is mounted from.

    Texts in which a domain can be looked for, the path itself first.
    """
    found, looked, waiting = dict[str, None](), set[str](), [path]
    while waiting and len(looked) < _DEEPEST:
        place = waiting.pop(0)
        if place in looked:
            continue
        looked.add(place)
        real = os.path.realpath(place)
        texts = [place, *_links(place), real]
        texts += [text for there in dict.fromkeys((place, real)) for text in _mounted(there)]
        found |= dict.fromkeys(texts)
        # What it lies on, an image or layers, may lie on something else again.
        layers = (
            layer for text in texts for few in _LAYERS.findall(text) for layer in few.split(":")
        )
        waiting += [item for item in (*texts, *layers) if item[:1] == "/" and os.path.lexists(item)]
    return tuple(found)


def origin(path: str, foreign: Belongings) -> str:
    """What of `foreign` a path leads to, as `PATH is SOURCE`; empty for nothing of it."""
    for text in trail(path):
        if found := [*foreign.paths_in(text), *foreign.places_in(text), *foreign.hosts_of(text)]:
            return f"{path} is {text}" if text != path else f"it lies in {found[0]}"
    return ""


def below(directory: str, foreign: Belongings) -> Iterator[tuple[str, str]]:
    """Links and mounts in a directory tree that lead to `foreign`: each, and where it leads."""
    seen = 0
    for folder, directories, files in os.walk(directory):
        for name in (*directories, *files):
            path = f"{folder}/{name}"
            seen += 1
            if seen > _ENTRIES:
                return
            if os.path.islink(path) and (found := origin(path, foreign)):  # noqa: PTH114 (a text)
                yield path, found
    real = os.path.realpath(directory)
    for mount in mounts():
        if mount.at.startswith(real.rstrip("/") + "/") and (found := origin(mount.at, foreign)):
            yield mount.at, found


def installation(program: str) -> str:
    """The directory that a program is installed in with what belongs to it; empty if that is /usr.

    /opt/db/bin/server is part of /opt/db, where its libraries and extensions are.
    """
    folder = Path(program).parent
    home = folder.parent
    return str(home) if folder.name in ("bin", "sbin") and str(home) not in _TOO_WIDE else ""


def loaded(program: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paths of what a program needs to run, and names of libraries that are not there.

    Of a script: its interpreters, what these load, and the paths in its text. Nothing is run but
    the dynamic loader, which lists and starts nothing.
    """
    paths: list[str] = []
    lacking: list[str] = []
    waiting = [program]
    while waiting and len(paths) < 500:
        path = waiting.pop()
        if path in paths:
            continue
        paths.append(path)
        head = _head(path)
        if head.startswith(b"#!"):
            words = head[2:].splitlines()[0].decode("utf-8", "replace").split()
            waiting += [tool for word in words if (tool := shutil.which(word))]
            if path == program:
                for script in scripts(program):
                    named = _PATH.findall(text_of(script))
                    paths += [name for name in (script, *named) if os.path.exists(name)]  # noqa: PTH110
        elif head.startswith(b"\x7fELF"):
            found, missed = _libraries(path)
            paths += [item for item in found if item not in paths]
            lacking += missed
    return tuple(dict.fromkeys(paths[1:])), tuple(dict.fromkeys(lacking))


def scripts(program: str) -> tuple[str, ...]:
    """A script, those that it takes in or runs, and theirs, and what they read their settings from.

    None for another program.
    """
    return _texts_of(program) if _head(program).startswith(b"#!") else ()


def named_in(words: Iterable[str]) -> tuple[str, ...]:
    """What the words of commands name and is there: programs, files, directories, links."""
    found: dict[str, None] = {}
    for word in words:
        for name in (word, *_PATH.findall(word)):  # `sh -c` has a whole script for a word
            path = os.path.expanduser(name) if "/" in name else shutil.which(name)  # noqa: PTH111
            if path and os.path.lexists(path):
                found[path] = None
    return tuple(found)


def of_commands(words: Iterable[str]) -> tuple[str, ...]:
    """Text files that commands are made of: scripts, as `scripts`, and what their words name."""
    found: dict[str, None] = {}
    for path in filter(_is_text, named_in(words)):
        found |= dict.fromkeys(_texts_of(path))
    return tuple(found)


def _texts_of(program: str) -> tuple[str, ...]:
    found = dict.fromkeys([program])
    waiting = [program]
    while waiting and len(found) < _SCRIPTS:
        script = waiting.pop()
        beside = os.path.dirname(os.path.realpath(script))  # noqa: PTH120 (a text)
        text = text_of(script)
        for match in _TAKEN_IN.finditer(text):
            word = match[match.lastgroup or 0]
            if match["called"] and "/" not in word:
                continue  # found by PATH
            for name in _NAMED.findall(_OF_SHELL.sub(_default, word)):
                for path in _paths_of(name, beside):
                    if path not in found and _is_text(path):
                        found[path] = None
                        waiting.append(path)
        for name in _SETTINGS.findall(_OF_SHELL.sub(_default, text)):
            found |= dict.fromkeys(filter(_is_text, _paths_of(name, beside)))
        for path in _imported(text, beside):
            if path not in found and _is_text(path):
                found[path] = None
                waiting.append(path)
    return tuple(found)


def _default(variable: re.Match[str]) -> str:
    return variable[1] or ""


def _imported(text: str, beside: str) -> Iterator[str]:
    for name in re.split(r",[ \t]*", ",".join(_IMPORTED.findall(text))):
        stem = name.replace("::", "/") if "/" in name or "::" in name else name.replace(".", "/")
        for end in (f"{stem}.py", f"{stem}/__init__.py", f"{stem}.pm", name):
            yield os.path.normpath(f"{beside}/{end}")


def included(path: str, text: str) -> tuple[str, ...]:
    """Files that one of settings, or for a shell, takes in, and programs that it has run."""
    beside, found = os.path.dirname(path), dict[str, None]()  # noqa: PTH120 (a text)
    for name in _INCLUDED.findall(_OF_SHELL.sub(_default, text)):
        whole = os.path.expanduser(name)  # noqa: PTH111 (a text)
        for pattern in (f"{beside}/{whole}",) if whole[:1] != "/" else (whole,):
            places = (pattern, f"{pattern}/*")
            inside = (file for place in places for file in sorted(glob.glob(place)))  # noqa: PTH207 (a text)
            found |= dict.fromkeys(map(os.path.normpath, inside))
    for command in _RUN.findall(text):
        found |= dict.fromkeys(of_commands(command.split()))
    return tuple(found)


def _paths_of(name: str, beside: str) -> tuple[str, ...]:
    """What a name in a script may stand for: `$HERE/lib.sh` is most likely the one beside it."""
    whole = os.path.expanduser(name)  # noqa: PTH111 (a text)
    return whole, *(os.path.normpath(f"{beside}/{end}") for end in (name, _last(name)))


def _is_text(path: str) -> bool:
    return os.path.isfile(path) and "\0" not in text_of(path)  # noqa: PTH113 (a text)


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def text_of(path: str) -> str:
    """The beginning of a file, 256 KiB of it; empty where it cannot be read."""
    return decoded(_head(path))


def decoded(data: bytes) -> str:
    """Bytes of a file as text: unpacked, and in UTF-16 where a mark at its beginning says so."""
    data = readings.unpacked(data)
    if readings.is_certificate(data):
        return readings.urls_of(data)
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if wide else "utf-8", "replace")


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (a text)
            return file.read(2**18)
    except OSError:
        return b""


@cache
def _libraries(path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    loader = _loader(path)
    if not loader:
        return (), ()
    try:
        done = subprocess.run(
            [loader, "--list", path],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return (loader,), ()
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    lacking = (a or b for a, b in _LACKING.findall(text))
    return (loader, *_LISTED.findall(text)), tuple(lacking)


def _loader(path: str) -> str:
    """The program header INTERP of an ELF file; empty for one that is linked statically."""
    head = _head(path)
    wide, order = head[4:5] == b"\x02", "little" if head[5:6] == b"\x01" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(head[at : at + size], order)  # type: ignore[arg-type]

    start, size, count = (
        (number(32, 8), number(54, 2), number(56, 2))
        if wide
        else (number(28, 4), number(42, 2), number(44, 2))
    )
    for header in range(start, start + size * count, size or 1):
        if number(header, 4) == 3:
            at, length = (
                (number(header + 8, 8), number(header + 32, 8))
                if wide
                else (number(header + 4, 4), number(header + 16, 4))
            )
            return head[at : at + length].rstrip(b"\0").decode("utf-8", "replace")
    return ""


def _links(path: str) -> list[str]:
    """The targets of all symbolic links on the way to a path."""
    found: list[str] = []
    left = [part for part in path.split("/") if part]
    at = "" if path.startswith("/") else os.getcwd()  # noqa: PTH109 (a text)
    while left and len(found) < _LINKS:
        part = left.pop(0)
        at = os.path.normpath(f"{at}/{part}")
        try:
            target = os.readlink(at)  # noqa: PTH115 (a text)
        except OSError:
            continue
        whole = os.path.normpath(os.path.join(os.path.dirname(at), target))  # noqa: PTH118, PTH120
        found.append(whole)
        left = [*(item for item in whole.split("/") if item), *left]
        at = ""
    return found


def mounts() -> tuple[Mount, ...]:
    """What is mounted here, in the order of mounting."""
    try:
        return _mounts_of(Path("/proc/self/mountinfo").read_text("utf-8", "replace"))
    except OSError:
        return ()


@lru_cache(maxsize=1)  # it is asked for each of some hundred paths
def _mounts_of(text: str) -> tuple[Mount, ...]:
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, source, *options) = before.split(), after.split()
        root, at = (_unescaped(text) for text in fields[3:5])
        found.append(
            Mount(fields[2], root, at, kind, _unescaped(source), _unescaped(" ".join(options)))
        )
    return tuple(found)


def mounted_in(directory: str) -> str:
    """A place below a directory at which something else is mounted; empty if there is none."""
    below = f"{os.path.realpath(directory)}/"
    return next(
        (
            mount.at
            for mount in mounts()
            if f"{mount.at}/".startswith(below) and f"{mount.at}/" != below
        ),
        "",
    )


def server_of(path: str) -> str:
    """The server of the network file system that a path is on; empty for what is not on one."""
    mount = _mount_of(path)
    return mount.source if mount is not None and mount.kind.startswith(_OF_NETWORKS) else ""


def _unescaped(text: str) -> str:
    return re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), text)


def _mount_of(path: str) -> Mount | None:
    best: Mount | None = None
    for mount in mounts():
        inside = path == mount.at or path.startswith(mount.at.rstrip("/") + "/")
        if inside and (best is None or len(mount.at) >= len(best.at)):
            best = mount
    return best


def _mounted(path: str) -> Iterator[str]:
    """What a path is mounted from: server and export, device, image, or the directory bound."""
    mount = _mount_of(path)
    if mount is None or (mount.at == "/" and not mount.kind.startswith("nfs")):
        return
    yield redacted(f"{mount.source} ({mount.kind} {mount.options})")
    inner = os.path.normpath(f"{mount.root}/{path[len(mount.at.rstrip('/')) :]}")
    for other in mounts():
        if other is mount or other.device != mount.device or other.at == mount.at:
            continue
        if inner == other.root or inner.startswith(other.root.rstrip("/") + "/"):
            yield os.path.normpath(f"{other.at}/{inner[len(other.root.rstrip('/')) :]}")
    if not mount.kind.startswith(("nfs", "cifs", "fuse", "overlay", "tmpfs")):
        yield from _devices(mount.device)


def _devices(number: str) -> Iterator[str]:
    """How a block device is reached: its names, and those of what is below it."""
    waiting, seen = [Path("/sys/dev/block") / number], set[str]()
    while waiting:
        place = Path(os.path.realpath(waiting.pop()))
        if place.name in seen:
            continue
        seen.add(place.name)
        for name in ("loop/backing_file", "dm/name", "pid"):
            try:
                said = (place / name).read_text("utf-8", "replace").strip()
                if name == "pid":  # of the client of a network block device
                    said = command_of(int(said))
                yield said
            except (OSError, ValueError):
                continue
        for link in Path("/dev/disk/by-path").glob("*"):
            if os.path.realpath(link).rpartition("/")[2] == place.name:
                yield link.name
        waiting += place.glob("slaves/*")
        if (place / "partition").exists():
            waiting.append(place.parent)
