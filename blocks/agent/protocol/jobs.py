"""What the agent can be told to do."""

from dataclasses import field
from typing import Any, Literal

from blocks.agent.messages import dataclass
from blocks.agent.protocol.parts import Ending, Landed, LogFiles, OpenItem, Source
from blocks.artifact.objects import PART_SIZE, VOLUME_PARTS, SealedObject
from blocks.ownership import Belongings


@dataclass(frozen=True, slots=True, kw_only=True)
class SealJob:
    """Run `argv`, and store each of its sources as a sealed object. Result: SealResult.

    `secret` and a line feed are written to the child's standard input. `marker` is the rehearsal's
    marker directory on the host: processes started are noted there, for the sweep. `hint` tells
    what to do where `argv` makes plain files of the kind that its FIFOs are, beside them.
    """

    job: Literal["seal"] = "seal"
    argv: tuple[str, ...]
    sources: tuple[Source, ...]
    recipients: tuple[str, ...]
    secret: str | None = field(default=None, repr=False)
    hint: str = ""
    cwd: str | None = None
    part_size: int = PART_SIZE
    volume_parts: int = VOLUME_PARTS
    ca_pem: str | None = field(default=None, repr=False)
    marker: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowJob:
    """Run `argv`, which receives a log into `directory`, and store it. Result: FollowResult.

    What it writes is named as `files` says. A segment that grew is stored every `interval_seconds`
    as `FOLDER/SEG.partial-NNNNNN.zst.age`, counting from `first_partial`; a complete one as
    `FOLDER/SEG.zst.age`, and then deleted from `directory`. Ends when told `Stop`. With
    `release_argv`, which gives back what the server keeps for `argv` (a replication slot), it asks
    for that first: `Prepare`. However it then ends, `argv` is ended first, and `release_argv` is
    run until it succeeds; then `Released` is said. The job fails once files in `directory` take
    more than `spool_bytes`, and once the lease in `marker` has run out.
    """

    job: Literal["follow"] = "follow"
    argv: tuple[str, ...]
    directory: str
    files: LogFiles
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

    `tools` are names (looked up in PATH) or absolute paths. Those that `version_words` names are
    run with the word that it has for them, and tell their version; of others the digest is told: a
    site's own restore script may ignore its arguments, and restore again. `ports` are tried by
    binding. `names` are resolved as programs there do. `files` (patterns; ~ is the account's home)
    are searched for what belongs to `foreign`; where they mention it is told, nothing else of them.
    So is where the directory `vault`, and what is in it, leads to it; with `origins`, all that
    directories, tools and the words of `commands` lead to, and what the account itself runs with.
    """

    job: Literal["facts"] = "facts"
    work_dir: str | None = None
    directories: tuple[str, ...] = ()
    ports: tuple[tuple[str, int], ...] = ()
    tools: tuple[str, ...] = ()
    version_words: dict[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    foreign: Belongings = field(default_factory=Belongings)
    vault: str | None = None
    origins: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramJob:
    """Have a module that came with the agent answer `request`. Result: ProgramResult.

    `module` is its whole name. It has a function `run`, which takes what `request` is the JSON of,
    and the channel. `name` is what errors call it.
    """

    job: Literal["program"] = "program"
    name: str
    module: str
    request: Any = field(repr=False)


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
    rehearsal has claimed. Both are marked, durably, for the sweep, which ends what is started for
    them by the signal `ended_by`.
    """

    job: Literal["claim"] = "claim"
    work_dir: str
    rehearsal_id: str
    token: str
    directories: tuple[str, ...]
    ports: tuple[tuple[str, int], ...] = ()
    ended_by: Ending = "SIGTERM"


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
    | FollowJob
    | CopyJob
    | OpenJob
    | FactsJob
    | ProgramJob
    | ProbeJob
    | ClaimJob
    | NoteJob
    | SweepJob
    | WatchJob
    | GuardJob
)
