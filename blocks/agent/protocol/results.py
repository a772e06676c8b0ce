"""What a job has done."""

from typing import Any, Literal

from blocks.agent.messages import dataclass
from blocks.artifact.objects import SealedObject


@dataclass(frozen=True, slots=True, kw_only=True)
class SealResult:
    """What was stored, in the order of the job's sources."""

    job: Literal["seal"] = "seal"
    objects: tuple[SealedObject, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowResult:
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
class ProgramResult:
    """What the module has answered, as JSON."""

    job: Literal["program"] = "program"
    answer: Any


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
    | FollowResult
    | CopyResult
    | OpenResult
    | FactsResult
    | ProgramResult
    | ProbeResult
    | ClaimResult
    | NoteResult
    | SweepResult
    | WatchResult
    | GuardResult
)
