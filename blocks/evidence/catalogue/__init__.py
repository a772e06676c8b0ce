"""Every assumption that a rehearsal can break: its id, severity, title and remedy.

The general ones are in this package. A part registers those that only it can break, as
`blocks/engines/NAME/findings.py` does.
"""

from blocks.evidence.catalogue import integrity, isolation, keys, timing, tooling, topology
from blocks.evidence.catalogue.assumption import Assumption, Category, FindingId, Severity

__all__ = ["LOADED", "Assumption", "Category", "FindingId", "Severity", "id_of_code", "register"]

LOADED: dict[str, Assumption] = {}
"""The general assumptions, and those of the parts that are loaded, by id.

`blocks.engines.registry.catalogue` loads all parts first.
"""
_BY_CODE = {
    "object-missing": FindingId.OBJECT_MISSING,
    "object-corrupt": FindingId.OBJECT_CORRUPT,
    "age-no-identity": FindingId.KEY_STALE,
    "age-malformed": FindingId.OBJECT_CORRUPT,
    "no-space": FindingId.DISK_TOO_SMALL,
    "tool-missing": FindingId.TOOL_MISSING,
    "untrusted": FindingId.WORK_DIR_UNTRUSTED,
}


def register(*assumptions: Assumption) -> None:
    """Add assumptions to the catalogue. Raises ValueError where another one has the id."""
    for item in assumptions:
        if LOADED.setdefault(str(item.id), item) != item:
            raise ValueError(f"two assumptions are called {item.id}")


def id_of_code(code: str) -> str | None:
    """The finding that an error code of the agent stands for; None if it is none."""
    return _BY_CODE.get(code)


for _part in (keys, tooling, topology, timing, integrity, isolation):
    register(*_part.ASSUMPTIONS)
