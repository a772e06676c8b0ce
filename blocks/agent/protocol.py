"""What is said between the orchestrator and the helper on a host: typed, spelled once.

Standard input carries one job (a line of JSON), then one line for each question the helper asks.
Standard output carries events, one line each. `Lease*`, `VolumeSealed` and `Stored` are questions:
the helper waits for the answer named in their description, one question at a time. All other
events need none. The last event is `Done` (exit code 0) or `Failed` (exit code 1).
Byte counts are bytes; times are seconds since the epoch by the host's clock.
"""

from dataclasses import field
from typing import Any, Literal

from blocks.agent.messages import dataclass
from blocks.artifact import wire
from blocks.artifact.objects import PART_SIZE, VOLUME_PARTS, Part, SealedObject, Volume
from blocks.ownership import Belongings

__all__ = [
    "BEAT_SECONDS",
    "LARGEST_KEY",
    "Alive",
    "Answer",
    "Caught",
    "ClaimJob",
    "ClaimResult",
    "Code",
    "CopyJob",
    "CopyResult",
    "DirectoryFacts",
    "Done",
    "EtcdKeysJob",
    "EtcdKeysResult",
    "Event",
    "FactsJob",
    "FactsResult",
    "Failed",
    "FileTarget",
    "GetLease",
    "GuardJob",
    "GuardResult",
    "Job",
    "Landed",
    "Leftover",
    "Listening",
    "Made",
    "MadePath",
    "MadePort",
    "MadeProcess",
    "MadeStamp",
    "Ok",
    "OpenItem",
    "OpenJob",
    "OpenResult",
    "Part",
    "PartLanded",
    "PortFacts",
    "Prepare",
    "ProbeJob",
    "ProbeResult",
    "Probed",
    "ProgramTarget",
    "Progress",
    "PutLease",
    "PutObjectLease",
    "Released",
    "Result",
    "SealJob",
    "SealResult",
    "SealedObject",
    "Source",
    "StepTaken",
    "Stop",
    "Stored",
    "SweepJob",
    "SweepResult",
    "TarTarget",
    "Target",
    "ToolFacts",
    "Url",
    "Urls",
    "Volume",
    "VolumeSealed",
    "WalJob",
    "WalResult",
    "WatchJob",
    "WatchResult",
    "from_line",
    "to_line",
]

BEAT_SECONDS = 10.0
"""How often a job that may take long says that it goes on."""

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

# --- what a job is about -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One stream of a sealed child. `name` is the sealed object's, e.g. `base.tar.zst.age`.

    stdout: what the child prints. fifo: what it writes to `path`, whose directory the child makes
    itself. file: the file `path`, read after the child ended well.
    """

    name: str
    kind: Literal["stdout", "fifo", "file"]
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TarTarget:
    """Extract a tar into `directory`, which is made if it is missing.

    It may hold directories and plain files below that; anything else is refused (`untar`).
    """

    kind: Literal["tar"] = "tar"
    directory: str


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
    """The rehearsal's token: in what it makes, and in the environment of what it starts."""

    kind: Literal["stamp"] = "stamp"
    token: str


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

# --- jobs ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SealJob:
    """Run `argv`, and store each of its sources as a sealed object. Result: SealResult.

    `secret` and a line feed are written to the child's standard input. `marker` is the rehearsal's
    marker directory on the host: processes started are noted there, for the sweep.
    """

    job: Literal["seal"] = "seal"
    argv: tuple[str, ...]
    sources: tuple[Source, ...]
    recipients: tuple[str, ...]
    secret: str | None = field(default=None, repr=False)
    cwd: str | None = None
    part_size: int = PART_SIZE
    volume_parts: int = VOLUME_PARTS
    ca_pem: str | None = field(default=None, repr=False)
    marker: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WalJob:
    """Run `argv` (pg_receivewal into `directory`), store what it completes. Result: WalResult.

    A segment that grew is stored every `interval_seconds` as `wal/SEG.partial-NNNNNN.zst.age`,
    counting from `first_partial`; a complete one as `wal/SEG.zst.age`, and then deleted from
    `directory`. Ends when told `Stop`. With `release_argv`, which gives back what the server keeps
    for `argv` (a replication slot), it asks for that first: `Prepare`. However it then ends, `argv`
    is ended first, and `release_argv` is run until it succeeds; then `Released` is said. The job
    fails once files in `directory` take more than `spool_bytes`, and once the lease in `marker` has
    run out.
    """

    job: Literal["follow"] = "follow"
    argv: tuple[str, ...]
    directory: str
    release_argv: tuple[str, ...] = ()
    spool_bytes: int | None = None
    recipients: tuple[str, ...]
    interval_seconds: float
    secret: str | None = field(default=None, repr=False)
    first_partial: int = 1
    part_size: int = PART_SIZE
    ca_pem: str | None = field(default=None, repr=False)
    marker: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyJob:
    """Copy sealed objects from the source's store to the target's. Result: CopyResult.

    `rate` in bytes a second, for all of them together; None is no limit. Parts in `landed` are
    not copied again, a volume whose parts all landed is only reported.
    """

    job: Literal["copy"] = "copy"
    objects: tuple[SealedObject, ...]
    landed: tuple[Landed, ...] = ()
    rate: float | None = None
    parallel: int = 4
    ca_source: str | None = field(default=None, repr=False)
    ca_target: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenJob:
    """Fetch, verify, decrypt and unpack sealed objects, in order. Result: OpenResult.

    What it starts is noted in the directory `marker`.
    """

    job: Literal["open"] = "open"
    items: tuple[OpenItem, ...]
    identity: str = field(repr=False)
    parallel: int = 4
    ca_pem: str | None = field(default=None, repr=False)
    marker: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsJob:
    """Say what the host is and has; changes nothing. Result: FactsResult.

    `tools` are names (looked up in PATH) or absolute paths. `ports` are tried by binding. `names`
    are resolved as programs there do. `files` (patterns; ~ is the account's home) are searched for
    what belongs to `foreign`; where they mention it is told, nothing else of them. So is where the
    directory `vault`, and what is in it, leads to it; with `origins`, all that directories, tools
    and the words of `commands` lead to, and what the account itself runs with.
    """

    job: Literal["facts"] = "facts"
    work_dir: str | None = None
    directories: tuple[str, ...] = ()
    ports: tuple[tuple[str, int], ...] = ()
    tools: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    foreign: Belongings = field(default_factory=Belongings)
    vault: str | None = None
    origins: bool = False


LARGEST_KEY = 3 * 2**19
"""Bytes of a key with its value, where nothing is known of them: as many as etcd takes, unless its
`--max-request-bytes` says more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdKeysJob:
    """Read a whole key space on its host. Result: EtcdKeysResult.

    `snapshot` is the file of one; without it, `argv` (etcdctl and its options) asks a cluster for
    its keys at revision `at` (0: now), and reads `secret` as the first line of its input. No key
    with its value should be larger than `largest` bytes: it decides how many are asked for at once.
    """

    job: Literal["etcd_keys"] = "etcd_keys"
    snapshot: str | None = None
    argv: tuple[str, ...] = ()
    at: int = 0
    largest: int = LARGEST_KEY
    secret: str | None = field(default=None, repr=False)
    foreign: Belongings = field(default_factory=Belongings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeJob:
    """Try to connect to each endpoint and to read each URL, all at once. Result: ProbeResult.

    What accepts and is silent for `patience` seconds is open; with 0, whatever accepts is.
    """

    job: Literal["probe"] = "probe"
    endpoints: tuple[tuple[str, int], ...]
    timeout: float = 2.0
    patience: float = 5.0
    urls: tuple[str, ...] = field(default=(), repr=False)
    ca_pem: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimJob:
    """Take directories and ports for a rehearsal: all, or nothing is changed. Result: ClaimResult.

    A directory is made, or found empty; a port is one that can be bound and that no other
    rehearsal has claimed. Both are marked, durably, for the sweep.
    """

    job: Literal["claim"] = "claim"
    work_dir: str
    rehearsal_id: str
    token: str
    directories: tuple[str, ...]
    ports: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteJob:
    """Mark the process that the plan's own command has left running. Result: NoteResult.

    It is the one in `pidfile`, and younger than the stamp of `directory`: its environment need not
    show the stamp, for a service may write over it.
    """

    job: Literal["note"] = "note"
    work_dir: str
    rehearsal_id: str
    directory: str
    pidfile: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepJob:
    """Find, or remove, what one rehearsal or all left in `work_dir`. Result: SweepResult.

    `own_only` removes nothing outside the rehearsal's own directory there; `keep_marker` leaves
    that directory and its lease, for a rehearsal that goes on. `processes_only` ends what runs, and
    removes nothing.
    """

    job: Literal["sweep"] = "sweep"
    work_dir: str
    rehearsal_id: str | None = None
    remove: bool = False
    own_only: bool = False
    keep_marker: bool = False
    processes_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchJob:
    """Take the calls that a packet filter redirects here, and tell of each. Result: WatchResult.

    Says `Listening` once it can be called, then `Caught` for each call. Ends when told `Stop`.
    """

    job: Literal["watch"] = "watch"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardJob:
    """Leave a process that lifts a packet filter if its rehearsal dies. Result: GuardResult.

    `table` is lifted by `nft_argv`, once the lease has run out and nothing that the rehearsal
    started on this host runs any more.
    """

    job: Literal["guard"] = "guard"
    work_dir: str
    rehearsal_id: str
    nft_argv: tuple[str, ...]
    table: str


Job = (
    SealJob
    | WalJob
    | CopyJob
    | OpenJob
    | FactsJob
    | EtcdKeysJob
    | ProbeJob
    | ClaimJob
    | NoteJob
    | SweepJob
    | WatchJob
    | GuardJob
)

# --- results -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SealResult:
    """What was stored, in the order of the job's sources."""

    job: Literal["seal"] = "seal"
    objects: tuple[SealedObject, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WalResult:
    """How many objects were stored, and the number for the next `first_partial`."""

    job: Literal["follow"] = "follow"
    stored: int
    next_partial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """How much was copied now, and how much an earlier copy had left done."""

    job: Literal["copy"] = "copy"
    copied_bytes: int
    skipped_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenResult:
    """Bytes read from the store and bytes of plaintext after decompression."""

    job: Literal["open"] = "open"
    sealed_bytes: int
    raw_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryFacts:
    """What follows `empty` is of the nearest parent that exists.

    `free_files` is None where a file system makes room for as many as there are bytes for.
    """

    path: str
    exists: bool
    empty: bool
    writable: bool
    free_bytes: int
    device: int
    free_files: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFacts:
    """Whether the port could be bound; if not, `reason` says why."""

    address: str
    port: int
    free: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFacts:
    """`path` is None for a tool that is missing; `version` is the first line it prints.

    `real` is where the path leads, with the server it is mounted from if it is on a network file
    system; `package` is who installed it, where a package manager knows.
    """

    name: str
    path: str | None
    version: str | None
    real: str = ""
    package: str = ""
    lacking: tuple[str, ...] = ()
    """Libraries that it needs and that are not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameFacts:
    """What a name leads to on the host; no address where it leads nowhere.

    `where` is the file and line that uses it, for a name that was found there.
    """

    name: str
    addresses: tuple[str, ...]
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginFacts:
    """Something in use there that comes from another domain.

    `of` is what needs it (a directory, a tool, `Python`), `path` what leads away, `origin` whereto;
    `comment` if no more than a comment says so.
    """

    kind: Literal["storage", "tool"]
    of: str
    path: str
    origin: str
    comment: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A line of a file that mentions what belongs to another domain; a comment does not use it."""

    path: str
    line: int
    text: str
    comment: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """What one rehearsal left: paths that exist, processes that live (`pid: command`).

    `left_alone` is what its marker names and what does not bear its stamp, with the reason. `plan`
    and `state` are what its lease says; `kept` that of a service that `--keep` left running;
    `fences` the marks of the commands with which it has cut its source off.
    """

    rehearsal_id: str
    paths: tuple[str, ...]
    processes: tuple[str, ...]
    left_alone: tuple[str, ...] = ()
    plan: str = ""
    state: Literal["alive", "dead", "unknown"] = "unknown"
    kept: bool = False
    owner: str = ""
    fences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsResult:
    """The host as the preflight sees it. `modules` has None for a Python module it lacks."""

    job: Literal["facts"] = "facts"
    python: str
    modules: dict[str, str | None]
    time: float
    user: str
    uid: int
    hostname: str
    cores: int
    memory_bytes: int
    directories: tuple[DirectoryFacts, ...]
    ports: tuple[PortFacts, ...]
    tools: tuple[ToolFacts, ...]
    leftovers: tuple[Leftover, ...]
    names: tuple[NameFacts, ...] = ()
    more_names: int = 0
    """How many names there are besides those that were resolved."""
    mentions: tuple[Mention, ...] = ()
    unread: tuple[str, ...] = ()
    """Files that were to be searched and could not be read."""
    cut: tuple[str, ...] = ()
    """Files of which only the beginning was searched."""
    more_mentions: int = 0
    """How many mentions there are besides those that are told."""
    origins: tuple[OriginFacts, ...] = ()
    """What of `foreign` is in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdKeysResult:
    """What a key space holds: `keys` of them, as of `revision` (a snapshot's own, else 0).

    `compacted` is the revision up to which a snapshot is, or was to be, compacted: it may lie
    beyond `revision`, which is the newest that the snapshot still keeps.
    `digest` is the SHA-256 of all that etcd keeps of each key, in order; `lasting` that of those
    alone which no lease ends; `largest` are the bytes of the largest key with its value. Of the
    mentions of `foreign` (the key as `path`) there are so many `more` addresses and paths. `hosts`
    are names, none plainly `foreign`, with the first key that uses each; `more_hosts` says whether
    there are others.
    """

    job: Literal["etcd_keys"] = "etcd_keys"
    revision: int
    keys: int
    digest: str
    lasting: str
    compacted: int = 0
    largest: int = 0
    mentions: tuple[Mention, ...] = ()
    more: dict[str, int] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)
    more_hosts: bool = False


ProbeStatus = Literal["open", "reset", "refused", "timeout", "unreachable", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a connection attempt met; `reset` was accepted and hung up on without a word.

    Of a name, `addresses` are those that it leads to, all of which were tried.
    """

    address: str
    port: int
    status: ProbeStatus
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """One entry for each endpoint and for each URL, in order.

    A URL that can be read is `open`; one that its server denies is `refused`.
    """

    job: Literal["probe"] = "probe"
    endpoints: tuple[Probed, ...]
    urls: tuple[ProbeStatus, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimResult:
    """Why nothing was claimed; empty if all was."""

    job: Literal["claim"] = "claim"
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteResult:
    """Why nothing was marked; empty if it was."""

    job: Literal["note"] = "note"
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """`found` before anything was removed; `remaining` after. Not removing leaves them the same."""

    job: Literal["sweep"] = "sweep"
    found: tuple[Leftover, ...]
    remaining: tuple[Leftover, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchResult:
    """How many calls were caught."""

    job: Literal["watch"] = "watch"
    caught: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardResult:
    """The process that keeps watch."""

    job: Literal["guard"] = "guard"
    pid: int


Result = (
    SealResult
    | WalResult
    | CopyResult
    | OpenResult
    | FactsResult
    | EtcdKeysResult
    | ProbeResult
    | ClaimResult
    | NoteResult
    | SweepResult
    | WatchResult
    | GuardResult
)

# --- events: what the helper says ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PutLease:
    """Asks for UploadPart URLs of parts `first` (from 1) to `first + count - 1`. Answer: Urls.

    The first lease of a volume creates its multipart upload, `volume_key(object, volume)`.
    """

    event: Literal["lease"] = "lease"
    what: Literal["put"] = "put"
    object: str
    volume: int
    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PutObjectLease:
    """Asks for a URL that stores the whole object `object` with one PUT. Answer: Url."""

    event: Literal["lease"] = "lease"
    what: Literal["put-object"] = "put-object"
    object: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GetLease:
    """Asks for a URL that reads volume `volume` of `object`, stored as `key`. Answer: Url."""

    event: Literal["lease"] = "lease"
    what: Literal["get"] = "get"
    object: str
    volume: int
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSealed:
    """All parts of a volume are uploaded: complete the multipart upload. Answer: Ok, when done.

    `etags` are as the store gave them, one for each part in order.
    """

    event: Literal["volume"] = "volume"
    object: str
    volume: int
    parts: tuple[Part, ...]
    etags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A log object is stored: index it. Answer: Ok, when the index is stored; then the file goes.

    `segment_time` is the modification time of the file that was sealed.
    """

    event: Literal["stored"] = "stored"
    object: SealedObject
    segment_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Make now, in the server, what `release_argv` of a WalJob gives back. Answer: Ok, once made.

    It is asked when the release is certain, whatever happens from then on.
    """

    event: Literal["prepare"] = "prepare"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartLanded:
    """A copied part is in the target's store; keep it, for a copy that resumes."""

    event: Literal["part"] = "part"
    object: str
    volume: int
    part: int
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """The job goes on, whatever else it has to tell. Said every `BEAT_SECONDS`."""

    event: Literal["alive"] = "alive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far `object` is: bytes before compression (0 for a copy) and bytes moved."""

    event: Literal["progress"] = "progress"
    object: str
    raw: int
    sealed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTaken:
    """A timed part of the job."""

    event: Literal["step"] = "step"
    name: str
    started_at: float
    ended_at: float
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Calls are taken at this port of the host's loopback addresses."""

    event: Literal["listening"] = "listening"
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The server keeps nothing for a WalJob any more."""

    event: Literal["released"] = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caught:
    """A call to `address` and `port`, by a process of the host where it can be seen whose.

    It is dated by how long ago it came: the host's clock may be wrong.
    """

    event: Literal["caught"] = "caught"
    seconds_ago: float
    address: str
    port: int
    pid: int | None
    process: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The job succeeded. `peak_rss` is the helper's own, in bytes."""

    event: Literal["done"] = "done"
    result: Result
    peak_rss: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The job failed; nothing that it started still runs."""

    event: Literal["error"] = "error"
    kind: Literal["permanent", "transient"]
    code: Code
    message: str
    hint: str = ""
    host_errno: int | None = None


Event = (
    PutLease
    | PutObjectLease
    | GetLease
    | VolumeSealed
    | Stored
    | Prepare
    | PartLanded
    | Alive
    | Progress
    | StepTaken
    | Listening
    | Released
    | Caught
    | Done
    | Failed
)

# --- answers: what the orchestrator says ---------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Urls:
    """Presigned URLs, in the order asked for. They grant access: never logged."""

    answer: Literal["urls"] = "urls"
    urls: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """One presigned URL. It grants access: never logged."""

    answer: Literal["url"] = "url"
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ok:
    """Done as asked."""

    answer: Literal["ok"] = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Ends a WalJob or a WatchJob in good order. May be said at any time, also before an answer."""

    answer: Literal["stop"] = "stop"


Answer = Urls | Url | Ok | Stop


def to_line(value: Job | Event | Answer) -> str:
    """One line of JSON, with its line feed."""
    return wire.dumps(value) + "\n"


def from_line(kind: Any, line: str | bytes) -> Any:
    """The Job, Event or Answer that `line` holds: `from_line(Event, line)`. Raises WireError."""
    return wire.loads(kind, line)
