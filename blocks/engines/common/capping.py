"""A record stays readable: of many findings of one id, the first are told and the rest counted."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from blocks.evidence.findings import Finding, finding

NAMED = 20
"""How many findings of one id name their subject."""
OTHERS = "and others"
"""The subject of the finding that counts the rest."""


def capped(found: Iterable[Finding], more: Mapping[str, int] | None = None) -> list[Finding]:
    """The first findings of each id, and one that counts the rest and `more` that was not told."""
    groups, left = defaultdict[str, list[Finding]](list), dict(more or {})
    for item in found:
        groups[item.id].append(item)
    kept = list[Finding]()
    for finding_id, group in groups.items():
        kept += group[:NAMED]
        rest = len(group[NAMED:]) + left.pop(finding_id, 0)
        if rest:
            kept.append(finding(finding_id, OTHERS, f"{rest:,} more like these"))
    return kept
