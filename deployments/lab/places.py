"""Where the lab keeps what: its root, its lock."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blocks.errors import PermanentError

Network = Literal["loopback", "netns"]
"""What hosts are: addresses of 127.0.0.0/8, or network namespaces."""
DEFAULT_NETWORK: Network = "loopback"
#: In each directory that the lab made in its root; nothing without it is ever removed.
STAMP = ".farside-lab"


def default_root() -> Path:
    """`$FARSIDE_LAB`, else a directory of this user's in the directory for temporary files."""
    given = os.environ.get("FARSIDE_LAB")
    return Path(given) if given else Path(tempfile.gettempdir()) / f"farside-lab-{os.getuid()}"


@dataclass(frozen=True, slots=True)
class Places:
    """Paths in a lab's root.

    `operator` holds the orchestrator's credentials for each domain, `ledger` and `fence` are
    neutral ground: they outlive the loss of east.
    """

    root: Path

    @classmethod
    def at(cls, root: Path | str | None) -> "Places":
        """The lab in `root`, or in the default place."""
        # Resolved, because that is how /proc tells where a process is.
        return cls(Path(root or default_root()).resolve())

    @property
    def state(self) -> Path:
        """The file that says what the lab is."""
        return self.root / "lab.json"

    @property
    def lock(self) -> Path:
        """The file that is locked by what changes the lab."""
        return self.root / ".lock"

    @property
    def plans(self) -> Path:
        """The directory of the lab's plans."""
        return self.root / "plans"

    @property
    def ledger(self) -> Path:
        """The directory of what the writers had confirmed."""
        return self.root / "ledger"

    @property
    def fence(self) -> Path:
        """The directory of the lab's fence."""
        return self.root / "fence"

    @property
    def processes(self) -> Path:
        """The directory of notes about the lab's processes."""
        return self.root / "processes"

    def operator(self, domain: str) -> Path:
        """The orchestrator's credentials for a domain."""
        return self.root / "operator" / domain

    def tree(self, domain: str) -> Path:
        """All that belongs to a domain, and is lost with it."""
        return self.root / domain

    def host(self, domain: str, host: str) -> Path:
        """The directory that stands for a host's own disk."""
        return self.tree(domain) / "hosts" / host

    def runtime(self, domain: str) -> Path:
        """The domain's own copy of the tools."""
        return self.tree(domain) / "runtime"

    def python(self, domain: str) -> Path:
        """The domain's own interpreter."""
        return self.runtime(domain) / "python" / "bin" / "python3"

    def packet_filter(self, domain: str) -> Path:
        """The domain's own nft, which needs no root."""
        return self.runtime(domain) / "nft"

    def secrets(self, domain: str) -> Path:
        """The vault: each secret is one file."""
        return self.host(domain, "vault") / "secrets"

    def store(self, domain: str) -> Path:
        """The objects in the domain's store."""
        return self.tree(domain) / "store"

    def logs(self, domain: str) -> Path:
        """What the domain's services say."""
        return self.tree(domain) / "logs"

    @property
    def tops(self) -> tuple[Path, ...]:
        """All directories that the lab makes in its root."""
        return (
            self.tree("east"),
            self.tree("west"),
            self.root / "operator",
            self.plans,
            self.ledger,
            self.fence,
            self.processes,
        )


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file by its new content at once."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def locked(places: Places) -> Iterator[None]:
    """One command at a time. The lock's file is in the root, so that `down` can remove it.

    Raises PermanentError where there is no lab, or somebody else's.
    """
    while True:
        check_owner(places)
        if not places.root.is_dir():
            raise no_lab(places)
        descriptor = os.open(places.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_still(places.lock, descriptor):
                yield
                return
        finally:
            os.close(descriptor)
        # Else a `down` removed the file while this command waited for it: look again.


def check_owner(places: Places) -> None:
    """Raise PermanentError if the root is somebody else's."""
    try:
        owner = places.root.stat().st_uid
    except FileNotFoundError:
        return
    except OSError as error:
        raise _not_ours(places, error.strerror or str(error)) from None
    if owner != os.getuid():
        raise _not_ours(places, "belongs to somebody else")


def no_lab(places: Places) -> PermanentError:
    """The error of a command that needs a lab."""
    return PermanentError(
        f"there is no lab in {places.root}",
        operation="lab",
        hint="`python -m deployments.lab up` makes it",
    )


def _not_ours(places: Places, why: str) -> PermanentError:
    return PermanentError(
        f"{places.root}: {why}",
        operation="lab",
        hint="give a directory of your own: --root, or FARSIDE_LAB",
    )


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
