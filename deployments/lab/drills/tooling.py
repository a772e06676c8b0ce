"""Drills of tooling and hosts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployments.lab.drills.board import POSTGRES, drill
from deployments.lab.drills.ground import Ground


@drill("tool-missing", "preflight")
def tool_missing(ground: Ground) -> Iterator[None]:
    """A program of the database's is not installed in west."""
    with ground.file(ground.live.bin("west") / ground.live.tools[0], None):
        yield


@drill("engine-version", "preflight", plans=POSTGRES)
def engine_version(ground: Ground) -> Iterator[None]:
    """West has PostgreSQL 16, east has 18."""
    ground.target["bin_dir"] = str(ground.places.postgres_bin("west", 16))
    yield


@drill("extension-missing", "preflight", select="fresh", plans=POSTGRES)
def extension_missing(ground: Ground) -> Iterator[None]:
    """An extension is installed in east alone."""
    share = ground.places.postgres_bin("east").parent / "share"
    folder = next(path for path in share.rglob("extension") if path.is_dir())
    control = "default_version = '1.0'\nrelocatable = true\n"
    with (
        ground.file(folder / "shop_rules.control", control),
        ground.file(
            folder / "shop_rules--1.0.sql",
            "CREATE FUNCTION rule_one() RETURNS int\nLANGUAGE sql IMMUTABLE AS 'SELECT 1';\n",
        ),
        ground.postgres.sql_undone(
            "CREATE EXTENSION shop_rules", undo=("DROP EXTENSION shop_rules",)
        ),
    ):
        yield


@drill("library-preloaded", "preflight", select="fresh", plans=POSTGRES)
def library_preloaded(ground: Ground) -> Iterator[None]:
    """East preloads a library that west does not have."""
    known = next((ground.places.postgres_bin("east").parent / "lib").rglob("pgoutput.so"))
    path = known.with_name("shop_audit.so")
    with ground.file(path, known.read_bytes(), 0o755):
        ground.postgres.sql("ALTER SYSTEM SET shared_preload_libraries = 'shop_audit'")
        ground.postgres.restart()
        try:
            yield
        finally:
            ground.postgres.sql("ALTER SYSTEM RESET shared_preload_libraries")
            ground.postgres.restart()


@drill("locale-changed", "verify", plans=POSTGRES)
def locale_changed(ground: Ground) -> Iterator[None]:
    """The source sorted by another version of the collation than west does."""

    # What the facts say differs from what the machine has, as after a move to a newer C library:
    # one machine has only one.
    def older(facts: Any) -> None:
        shop = next(item for item in facts["databases"] if item["name"] == "shop")
        shop["actual_version"] = shop["recorded_version"] = "0.9"

    with ground.facts(older):
        yield


@drill("locale-missing", "preflight", plans=POSTGRES)
def locale_missing(ground: Ground) -> Iterator[None]:
    """A database of east has a locale that west does not know."""

    def foreign(facts: Any) -> None:
        shop = next(item for item in facts["databases"] if item["name"] == "shop")
        shop["collate"] = "xx_XX.UTF-8"

    with ground.facts(foreign):
        yield


@drill("setting-too-low", "preflight", plans=POSTGRES)
def setting_too_low(ground: Ground) -> Iterator[None]:
    """West's own configuration allows fewer connections than east's."""
    ground.target["settings"] = {"max_connections": "20"}
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
