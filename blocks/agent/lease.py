"""The sign that a rehearsal runs: WORK_DIR/REHEARSAL_ID/lease.json. Standard library only.

Its modification time is what counts, judged by the clock of the host that it lies on; the file
says how long it is good for. An object in each store says the same by the store's clock.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from blocks.agent import marks
from blocks.artifact import wire

FILE = "lease.json"

_BARE_SECONDS = 60.0

State = Literal["alive", "dead", "unknown"]


@dataclass(frozen=True, slots=True)
class Lease:
    """Who runs, or keeps, a rehearsal: its plan, how long each renewal is good for in seconds.

    `kept` is that of a service left running by `--keep`: nothing renews it. `owner` names the
    process that renews it, in its own machine's terms. `fences` are the marks of the commands with
    which the rehearsal has cut its source off. `ended` is that of a rehearsal known to be dead.
    """

    plan: str
    seconds: float
    kept: bool = False
    owner: str = ""
    fences: tuple[str, ...] = ()
    ended: bool = False

    def dumps(self) -> bytes:
        """As it is stored."""
        return json.dumps(asdict(self)).encode()

    def judge(self, age: float) -> State:
        """What an age in seconds means; one from the future means that a clock was set back."""
        if self.ended:
            return "dead"
        if age < -self.seconds:
            return "unknown"
        return "alive" if age <= self.seconds else "dead"


def loads(data: bytes) -> Lease:
    """The lease that was stored. Raises ValueError for anything else."""
    try:
        told = wire.parsed(data)
        seconds, kept = float(told["seconds"]), told.get("kept") is True
        fences = tuple(map(str, told.get("fences", ())))
        owner, ended = str(told.get("owner", "")), told.get("ended") is True
        lease = Lease(str(told["plan"]), seconds, kept, owner, fences, ended)
    except (wire.WireError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a lease: {error}") from None
    if not lease.seconds > 0:
        raise ValueError(f"a lease of {lease.seconds} seconds")
    return lease


def write(directory: Path, lease: Lease) -> None:
    """Write or renew it. Raises OSError."""
    draft = directory / f".{FILE}.{os.getpid()}"
    try:
        draft.write_bytes(lease.dumps())
        draft.replace(directory / FILE)
    finally:
        draft.unlink(missing_ok=True)


def read(directory: Path) -> tuple[Lease | None, State]:
    """The lease in a rehearsal's directory and what it means; unknown where it cannot be read."""
    try:
        with (directory / FILE).open("rb") as file:
            age = time.time() - os.fstat(file.fileno()).st_mtime
            lease = loads(file.read(65536))
    except FileNotFoundError:
        return None, "dead" if _is_bare(directory) else "unknown"
    except (OSError, ValueError):
        return None, "unknown"
    return lease, lease.judge(age)


def _is_bare(directory: Path) -> bool:
    """Whether a directory was made and nothing in it for a while: its rehearsal ended meanwhile.

    Whoever enters a host for one that runs writes the lease at once, and the marker with what it
    makes.
    """
    try:
        age = time.time() - directory.stat().st_mtime
        return age > _BARE_SECONDS and not any(
            path.name != marks.FILE or path.stat().st_size for path in directory.iterdir()
        )
    except OSError:
        return False


def state(directory: Path) -> State:
    """Whether the rehearsal of a directory runs: "alive", "dead" or "unknown"."""
    return read(directory)[1]
