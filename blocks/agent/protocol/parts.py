"""What jobs, results and events are made of."""

from typing import Literal

from blocks.agent.messages import dataclass
from blocks.artifact.objects import SealedObject

Code = Literal[
    "object-missing",  # the store has no such object
    "object-corrupt",  # a part's length or SHA-256 is not the manifest's
    "age-no-identity",  # the private key is none of the recipients'
    "age-malformed",  # not an age file, cut off, or changed
    "no-space",  # a disk of the host is full
    "url-expired",  # the store refused a fresh presigned URL (HTTP 403)
    "tool-missing",  # a program or Python module is not on the host
    "child-failed",  # a program ended with an error; its last words are in the message
    "network",  # the store could not be reached, or kept failing
    "untrusted",  # another account could have written farside's directory, or what is in it
    "aborted",  # standard input ended: the orchestrator is gone or gave up
    "internal",  # a bug, or a request that cannot be
]

Ending = Literal["SIGTERM", "SIGINT", "SIGQUIT"]
"""The signal by which a service ends, within seconds and with all that it has started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One stream of a sealed child. `name` is the sealed object's, e.g. `base.tar.zst.age`.

    stdout: what the child prints. fifo: what it writes to `path`, whose directory the child makes
    itself. file: the file `path`, read after the child ended well. `hint` tells what to do where
    nothing is ever written to a FIFO.
    """

    name: str
    kind: Literal["stdout", "fifo", "file"]
    path: str | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFiles:
    """How a receiver names the files of a log, as patterns of whole names; stored below `folder`.

    `segment` is a complete segment, `beside` a complete file that is stored and stays. A segment
    that is being written has `growing` behind its name; there is no log in it yet while its first
    `magic_bytes` are all zero.
    """

    folder: str
    segment: str
    growing: str
    beside: str
    magic_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TarTarget:
    """Extract a tar into `directory`, which is made if it is missing.

    It may hold directories and plain files below that; symbolic links whose whole path matches the
    pattern `left_out` are not extracted; anything else is refused (`untar`), pax headers and GNU's
    long names too.
    """

    kind: Literal["tar"] = "tar"
    directory: str
    left_out: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramTarget:
    """Have `argv` extract what it reads, into `directory`, which is made if it is missing."""

    kind: Literal["program"] = "program"
    argv: tuple[str, ...]
    directory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTarget:
    """Write to `path`, under a temporary name until the last byte is authenticated."""

    kind: Literal["file"] = "file"
    path: str


Target = TarTarget | ProgramTarget | FileTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenItem:
    """One sealed object, and where its plaintext goes."""

    object: SealedObject
    target: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """A part that an earlier copy already uploaded: `part` counts from 1."""

    object: str
    volume: int
    part: int
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MadePath:
    """Marks a directory (absolute) that a rehearsal takes, by its stamp: see `stamp.bears`.

    `device` and `inode` follow in a second entry, once it is there; `found` is one that was there
    before, and empty, and `mode` the permissions that it had; `parents` are the directories above
    it that were made for it, the nearest first.
    """

    kind: Literal["path"] = "path"
    path: str
    device: int | None = None
    inode: int | None = None
    found: bool = False
    mode: int | None = None
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeStamp:
    """The rehearsal's token: in what it makes, and in the environment of what it starts.

    `ended_by` is the signal (an Ending) that ends what was started so. A marker that does not say
    is of a farside that sent SIGQUIT to all.
    """

    kind: Literal["stamp"] = "stamp"
    token: str
    ended_by: str = "SIGQUIT"  # no Literal: by those the kinds of Made are told apart


@dataclass(frozen=True, slots=True, kw_only=True)
class MadePort:
    """Marks a port that a rehearsal listens at, or is going to."""

    kind: Literal["port"] = "port"
    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeProcess:
    """Marks a process; `start` is field 22 of /proc/PID/stat, so that a reused id is told apart.

    Of another `machine` (or an earlier boot) the same numbers name another process.
    """

    kind: Literal["process"] = "process"
    pid: int
    start: int
    machine: str = ""


Made = MadePath | MadeStamp | MadePort | MadeProcess
