"""What the agent says while a job runs, and the answers to what it asks."""

from dataclasses import field
from typing import Literal

from blocks.agent.messages import dataclass
from blocks.agent.protocol.parts import Code
from blocks.agent.protocol.results import Result
from blocks.artifact.objects import Part, SealedObject

BEAT_SECONDS = 10.0
"""How often a job that may take long says that it goes on."""


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
    """Make now, in the server, what a FollowJob's `release_argv` gives back. Answer: Ok, once made.

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
    """The server keeps nothing for a FollowJob any more."""

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
    """The job succeeded. `peak_rss` is the agent's own, in bytes."""

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
    """Ends a FollowJob or a WatchJob in good order. May come at any time, also before an answer."""

    answer: Literal["stop"] = "stop"


Answer = Urls | Url | Ok | Stop
