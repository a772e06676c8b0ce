"""Findings for what a restored service names: the source itself, and names that lead there."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from blocks.agent.jobs.facts import NAMES
from blocks.agent.protocol.jobs import FactsJob
from blocks.evidence.catalogue import FindingId, Severity
from blocks.evidence.findings import Finding, finding
from blocks.hosts.host import Host
from blocks.ownership import Belongings, hosts_in
from blocks.remote.jobs import facts_of

MOST = 3000
"""Names that are resolved for one service."""
_NAMED = 5
"""Of what may be much, how many a record tells of one by one."""


def hard_coded(
    subject: str,
    evidence: str,
    mention: str,
    foreign: Belongings,
    severity: Severity | None = None,
) -> Finding:
    """The finding for a part of a service that names `mention`, a path or a place of `foreign`."""
    finding_id = (
        FindingId.PATH_HARD_CODED if mention in foreign.paths else FindingId.ADDRESS_HARD_CODED
    )
    return finding(finding_id, subject, evidence, severity=severity)


def used_by(texts: Iterable[tuple[str, str]], foreign: Belongings) -> dict[str, str]:
    """Hosts that objects use in their texts and that are not plainly `foreign`, each with the
    objects that do.
    """
    found: dict[str, dict[str, None]] = {}
    for subject, text in texts:
        for name in hosts_in(text):
            if not foreign.owns_name(name):
                found.setdefault(name, {})[subject] = None
    return {name: _some(list(subjects)) for name, subjects in found.items()}


def leading_to(
    host: Host,
    rehearsal_id: str,
    used: Mapping[str, str],
    foreign: Belongings,
    unseen: list[str],
) -> Iterator[Finding]:
    """Of names with what uses them, those that `host` resolves to an address of `foreign`.

    That there are too many, and those that it does not resolve, are added to `unseen`. Raises as
    `facts_of`.
    """
    if len(used) > MOST:
        unseen.append(f"where {len(used) - MOST} of {len(used)} names lead that it uses as hosts")
    left, lost = iter(islice(used, MOST)), list[str]()
    while names := tuple(islice(left, NAMES)):
        for item in facts_of(host, rehearsal_id, FactsJob(names=names)).names:
            leading = [address for address in item.addresses if foreign.owns_address(address)]
            if leading:
                text = f"used by {used[item.name]}; on {host.domain}/{host.name} it leads to"
                yield finding(
                    FindingId.NAME_RESOLVES_TO_SOURCE, item.name, f"{text} {', '.join(leading)}"
                )
            elif not item.addresses and item.name.lower() in foreign.aliases:
                text = f"used by {used[item.name]}; only the source has it"
                yield finding(FindingId.ADDRESS_HARD_CODED, item.name, text)
            elif not item.addresses:
                # Without its name: what looks like a host may be a part of a password.
                lost.append(used[item.name])
    if lost:
        where = f"{host.domain}/{host.name}"
        users = _some(list(dict.fromkeys(lost)))
        unseen.append(f"where {len(lost)} names lead that {where} does not resolve, in {users}")


def _some(items: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return f"{', '.join(items[:_NAMED])}{more}"
