"""How much of a kind a record holds: a record is read, signed and kept, so it has a size.

A source with a hundred thousand mentions has one cause. The first of each kind are kept, the rest
is counted, and the worst of what is counted still counts.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from blocks.evidence.findings import Finding
from blocks.evidence.record import Check
from blocks.evidence.uses import Use

FINDINGS = 50
"""Findings of one id, accepted ones counted apart."""
USES = 200
"""Uses of one kind in one stage, of one domain."""
LINES = 200
"""Lines of a list of texts, and subjects of a check."""
TEXT = 2000
"""Characters of one text."""

THE_REST = "further subjects"


def text(value: str) -> str:
    """The beginning of a text that is too long, and how long it is."""
    if len(value) <= TEXT:
        return value
    return f"{value[:TEXT]}... ({len(value):,} characters)"


def lines(values: Iterable[str]) -> tuple[str, ...]:
    """The first lines, each of bounded length, and how many more there are."""
    found = tuple(values)
    more = (f"and {len(found) - LINES:,} more",) if len(found) > LINES else ()
    return (*map(text, found[:LINES]), *more)


def findings(values: Iterable[Finding]) -> tuple[Finding, ...]:
    """The first findings of each id; one more for the rest, as severe as the worst of them."""
    kept, rest = list[Finding](), dict[tuple[str, bool], list[Finding]]()
    seen: Counter[tuple[str, bool]] = Counter()
    for item in values:
        kind = item.id, item.accepted is not None
        seen[kind] += 1
        if seen[kind] <= FINDINGS:
            kept.append(replace(item, subject=text(item.subject), evidence=text(item.evidence)))
        else:
            rest.setdefault(kind, []).append(item)
    for group in rest.values():
        worst = min(group, key=lambda item: item.severity.rank)
        more = f"{len(group):,} more, such as {text(worst.subject)}: {text(worst.evidence)}"
        kept.append(replace(worst, subject=THE_REST, evidence=more))
    return tuple(sorted(kept, key=lambda item: item.severity.rank))


def checks(values: Iterable[Check]) -> tuple[Check, ...]:
    """Checks whose texts have a bounded length."""
    return tuple(
        replace(
            item,
            expected=item.expected and text(item.expected),
            actual=item.actual and text(item.actual),
            detail=item.detail and text(item.detail),
            subjects=lines(item.subjects),
        )
        for item in values
    )


def uses(values: Iterable[Use]) -> tuple[Use, ...]:
    """The first uses of each kind; the last one kept says how many more there are."""
    kept, seen = dict[tuple[str, str, str, int], Use](), Counter[tuple[str, str, str]]()
    for item in values:
        kind = item.stage, item.kind, item.domain
        seen[kind] += 1
        if seen[kind] <= USES:
            kept[(*kind, seen[kind])] = replace(
                item, name=text(item.name), detail=text(item.detail)
            )
    for of, count in seen.items():
        if count > USES:
            last = (*of, USES)
            more = f"{count - USES + 1:,} more"
            kept[last] = replace(kept[last], name=more, detail="")
    return tuple(kept.values())
