"""What every object store can do, and how it fails.

Hosts move the bulk data themselves, through URLs that `presign_*` makes; only manifests and other
small objects pass here.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from blocks.block import DomainPart
from blocks.errors import PermanentError, TransientError
from blocks.evidence.catalogue import FindingId

URL_SECONDS = 6 * 3600
"""How long a presigned URL works, unless asked otherwise."""
PUT_SECONDS = 900
"""How long one works with which something is written. The agent asks for another when one has
expired; one that outlived its rehearsal would let a host replace what has been stored."""


class ObjectMissing(PermanentError):
    """No object of that key, no such multipart upload, or no such bucket."""

    finding = FindingId.OBJECT_MISSING


class ObjectArchived(PermanentError):
    """The object is in an archive class: it must be restored there before it can be read."""

    finding = FindingId.COPY_IS_COLD


class AccessDenied(PermanentError):
    """The store refuses the credentials, or there are none."""

    finding = FindingId.CREDENTIAL_REFUSED


class StoreUntrusted(PermanentError):
    """The store's TLS certificate does not hold."""

    finding = FindingId.CA_UNKNOWN


class StoreRefused(PermanentError):
    """The store refuses the request for another reason."""


class StoreUnavailable(TransientError):
    """The store does not answer, or says that it cannot now."""

    finding = FindingId.STORE_UNREACHABLE


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing shows it. `size` in bytes, `modified` in UTC."""

    key: str
    size: int
    modified: datetime
    storage_class: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload that is neither completed nor aborted."""

    key: str
    upload_id: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file on farside's own machine with which a store is used.

    `field` is the plan's, `finding` the id of what it is if it leads to the lost domain.
    """

    field: str
    path: Path
    finding: FindingId


@dataclass(frozen=True, slots=True)
class LoginLine:
    """A line of a file of credentials that says where those come from. It holds no secret."""

    file: Path
    number: int
    text: str


class ObjectStore(DomainPart, ABC):
    """Keeps objects under keys. Every key given and returned is without the store's prefix.

    Every method raises AccessDenied, StoreUntrusted, StoreRefused (permanent) and StoreUnavailable
    (transient).
    """

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Store a small object, replacing an older one."""

    @abstractmethod
    def get(self, key: str) -> bytes:
        """A small object's bytes. Raises ObjectMissing, ObjectArchived."""

    @abstractmethod
    def head(self, key: str) -> ObjectInfo | None:
        """What is known of an object, None if there is none."""

    @abstractmethod
    def now(self) -> datetime:
        """The time by the store's own clock; this machine's where it tells none."""

    @abstractmethod
    def age(self, key: str) -> float | None:
        """How many seconds ago an object was written, by the store's own clock; None if missing."""

    @abstractmethod
    def objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose keys begin with `prefix`, in the order of their keys."""

    @abstractmethod
    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is not there is no error."""

    @abstractmethod
    def create_upload(self, key: str) -> str:
        """Begin a multipart upload; returns its id."""

    @abstractmethod
    def complete_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> None:
        """Make the object out of its parts, whose `etags` come in the order of the parts, from 1.

        Raises ObjectMissing where there is no such upload.
        """

    @abstractmethod
    def abort_upload(self, key: str, upload_id: str) -> None:
        """Throw a multipart upload away; one that is not there is no error."""

    @abstractmethod
    def uploads(self, prefix: str = "") -> list[Upload]:
        """Unfinished uploads; empty where the store cannot list them."""

    @abstractmethod
    def presign_get(self, key: str, expires: int = URL_SECONDS) -> str:
        """A URL that gets the object, for `expires` seconds."""

    @abstractmethod
    def presign_put(self, key: str, expires: int = PUT_SECONDS) -> str:
        """A URL that puts the object, for `expires` seconds."""

    @abstractmethod
    def presign_part(
        self, key: str, upload_id: str, part_number: int, expires: int = PUT_SECONDS
    ) -> str:
        """A URL that puts part `part_number` (from 1) of an upload, for `expires` seconds."""

    @property
    @abstractmethod
    def ca_pem(self) -> str | None:
        """The certificate authority of the store's TLS, None for the system's."""

    @abstractmethod
    def endpoints(self) -> list[tuple[str, int]]:
        """Address and port where the store answers."""

    @property
    @abstractmethod
    def short_name(self) -> str:
        """By which name people call it, such as that of its bucket."""

    @property
    @abstractmethod
    def address_field(self) -> str:
        """The field of a plan that says where it answers."""

    @abstractmethod
    def fetch_commands(self, folder: str) -> tuple[str, ...]:
        """Lines of a runbook, for a shell: `fetch KEY...` then prints objects of `folder`.

        They work without farside, and say which file each secret is to be put into.
        """

    def own_files(self) -> Iterator[OwnFile]:
        """Files on this machine with which it is used: authorities, credentials."""
        yield from ()

    def login_lines(self) -> Iterator[LoginLine]:
        """What its files of credentials say of where those come from; nothing if unreadable."""
        yield from ()

    @abstractmethod
    def close(self) -> None:
        """Close what is open; the next use opens it again."""
