"""Drills of tooling and hosts."""

from collections.abc import Iterator
from pathlib import Path

from deployments.lab.drills.board import drill
from deployments.lab.drills.ground import Ground


@drill("tool-missing", "preflight")
def tool_missing(ground: Ground) -> Iterator[None]:
    """A program of the database's is not installed in west."""
    with ground.file(ground.live.bin("west") / ground.live.tools[0], None):
        yield


@drill("tool-fetched-from-source", "preflight")
def tool_fetched_from_source(ground: Ground) -> Iterator[None]:
    """A program of west is a link into a directory of east."""
    _, program = ground.live.tools
    path = ground.live.bin("west") / program
    with ground.file(path, None):
        path.symlink_to(ground.live.bin("east") / program)
        yield


@drill("control-plane-in-source", "preflight")
def control_plane_in_source(ground: Ground) -> Iterator[None]:
    """The ledger of acknowledged commits lies in east."""
    heartbeat = ground.document["heartbeat"]
    path = ground.places.tree("east") / "ledger.tsv"
    with ground.file(path, Path(heartbeat["ledger"]).read_text()):
        heartbeat["ledger"] = str(path)
        yield


@drill("disk-too-small", "preflight")
def disk_too_small(ground: Ground) -> Iterator[None]:
    """The database has outgrown the disks of west."""
    with ground.facts(ground.live.grow):
        yield


@drill("clock-skew", "preflight")
def clock_skew(ground: Ground) -> Iterator[None]:
    """The clock of west's hosts is half a minute ahead: less than a lease, by which guards go."""
    site = next(ground.places.runtime("west").glob("python/lib/python3*/site-packages"))
    # Not sitecustomize: Debian's Python has one of its own, which goes first.
    # In a virtual environment, Python 3.11 runs it twice.
    ahead = "import time; time.real = getattr(time, 'real', time.time);"
    ahead += " time.time = lambda real=time.real: real() + 30\n"
    with ground.file(site / "ahead.pth", ahead):
        yield


@drill("host-unreachable", "preflight")
def host_unreachable(ground: Ground) -> Iterator[None]:
    """The SSH server of a host of west is down."""
    with ground.without(f"west-ssh-{ground.node.host}"):
        yield


@drill("store-unreachable", "preflight")
def store_unreachable(ground: Ground) -> Iterator[None]:
    """West's object store is down."""
    with ground.without("west-store"):
        yield


@drill("tool-linked-to-source", "preflight")
def tool_linked_to_source(ground: Ground) -> Iterator[None]:
    """A wrapper around a program of west's reads its settings from a directory of east."""
    settings = ground.places.tree("east") / "tools.env"
    script = f'if [ -r "{settings}" ]; then . "{settings}"; fi\nexec "$REAL" "$@"'
    with ground.wrapped_openly(ground.live.tools[1], script):
        yield
