"""Who may connect: the source's access rules, tried on the recovery domain's clients."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from blocks.engines.postgres.rows import Login, Rule
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding, finding
from blocks.ownership import Belongings

FILE = "regexp_replace(to_jsonb(r)->>'file_name', '^.*/', '')"
"""The name of the file that a rule is in; null before 16, which lets a file include others."""

RULES = f"""
SELECT {FILE} AS file, to_jsonb(r)->>'file_name' AS path, line_number AS line, type, database,
       user_name AS users, address, netmask, auth_method AS method
FROM pg_hba_file_rules r WHERE type LIKE 'host%' AND error IS NULL
ORDER BY coalesce((to_jsonb(r)->>'rule_number')::int, line_number)
"""
"""pg_hba.conf as the source reads it, in its order; rules for TCP only."""

_BY_CERTIFICATE = "cert"
_Network = IPv4Network | IPv6Network


def from_source_only(  # noqa: PLR0913 (the rules, the clients, and what is the source's)
    rules: Iterable[Rule],
    role: str,
    database: str,
    networks: Sequence[_Network],
    addresses: Iterable[str],
    foreign: Belongings,
) -> Iterator[Finding]:
    """Rules that let the application in from the source's networks and from nowhere else.

    `networks` and `addresses` are the recovery domain's: one client of them that is let in is
    enough. What cannot be told (names of hosts, groups of roles) counts as letting in.
    """
    admitting, near = _fitting(rules, role, database, foreign)
    clients = _clients(networks, addresses)
    if not admitting or not clients or any(_admitted(near, client) for client in clients):
        return
    # What the source refuses everybody is no fault of the recovery side.
    own = [rule for rule in admitting if _of(rule, foreign)]
    if own:
        lines = ", ".join(f"{place(rule)} {_client(rule)}" for rule in own[:5])
        text = (
            f"{role} may connect to {database} by {lines}, which is of the source; nothing lets the"
            " recovery domain in"
        )
        yield finding(FindingId.ACCESS_FROM_SOURCE_ONLY, f"role {role}", text)


def untold(  # noqa: PLR0913 (as from_source_only)
    rules: Iterable[Rule],
    role: str,
    database: str,
    networks: Sequence[_Network],
    addresses: Iterable[str],
    foreign: Belongings,
) -> Iterator[str]:
    """What these rules leave open of the application's clients in the recovery domain.

    Arguments as of `from_source_only`, which finds what is certain.
    """
    admitting, near = _fitting(rules, role, database, foreign)
    clients = _clients(networks, addresses)
    if not admitting or not clients:
        return
    if not any(_admitted(near, client) for client in clients):
        if not any(_of(rule, foreign) for rule in admitting):
            lines = ", ".join(f"{place(rule)} {rule.address}" for rule in admitting[:5])
            yield (
                f"whether {role} is let in from the recovery domain: at the source it may connect"
                f" to {database} from {lines} only, which the plan lists as neither domain's"
            )
        return
    without = [
        replace(rule, method="reject") if rule.method == _BY_CERTIFICATE else rule for rule in near
    ]
    if not any(_admitted(without, client) for client in clients):
        asking = [rule for rule in near if rule.method == _BY_CERTIFICATE]
        lines = ", ".join(f"{place(rule)} {rule.address}" for rule in asking[:5])
        yield (
            f"whether {role} has a certificate in the recovery domain: from there, the source lets"
            f" it into {database} by one only ({lines})"
        )


def _client(rule: Rule) -> str:
    """Address and mask of a rule, as far as it has them."""
    return "/".join(part for part in (rule.address, rule.netmask) if part)


def place(rule: Rule | Login) -> str:
    """File and line of a rule, as `pg_hba.conf:7`."""
    return f"{rule.file or 'pg_hba.conf'}:{rule.line}"


def _fitting(
    rules: Iterable[Rule], role: str, database: str, foreign: Belongings
) -> tuple[list[Rule], list[Rule]]:
    """Of the rules for a role in a database, those that let in, and those a client may meet that
    is not called as one of the source's.
    """
    fitting = [rule for rule in rules if _fits(rule, role, database)]
    admitting = [rule for rule in fitting if rule.method != "reject"]
    return admitting, [rule for rule in fitting if not _elsewhere(rule, foreign)]


def _clients(networks: Iterable[_Network], addresses: Iterable[str]) -> list[_Network]:
    return [*networks, *(ip_network(address) for address in addresses if address)]


def _fits(rule: Rule, role: str, database: str) -> bool:
    databases, users = rule.database or (), rule.users or ()
    return any(_named(item, database, role, ("all",)) for item in databases) and any(
        item.startswith("+") or _named(item, role, role, ("all",)) for item in users
    )


def _named(item: str, name: str, role: str, every: Sequence[str]) -> bool:
    if item.startswith("/"):
        try:
            return re.search(item[1:], name) is not None
        except re.error:
            return True
    if item in ("sameuser", "samerole", "samegroup"):
        return item != "sameuser" or name == role
    return item in every or item == name


def _elsewhere(rule: Rule, foreign: Belongings) -> bool:
    """Whether a rule is for clients by a name of the source's."""
    return _network(rule) is None and _of(rule, foreign)


def _admitted(rules: Sequence[Rule], client: _Network) -> bool:
    """Whether the first rule that some address of a network meets lets it in."""
    for rule in rules:
        network = _network(rule)
        if network is None or _covers(network, client):
            return rule.method != "reject"
        if rule.method != "reject" and client.version == network.version:
            inside = network.overlaps(client)  # a part of them is enough
            if inside and _admitted_as(rules, network):
                return True
    return False


def _admitted_as(rules: Sequence[Rule], network: _Network) -> bool:
    for rule in rules:
        other = _network(rule)
        if other is None or _covers(other, network):
            return rule.method != "reject"
    return False


def _covers(network: _Network, client: _Network) -> bool:
    if network.version != client.version:
        return False
    return (
        network.network_address <= client.network_address  # type: ignore[operator]
        and client.broadcast_address <= network.broadcast_address  # type: ignore[operator]
    )


def _network(rule: Rule) -> _Network | None:
    """The network of a rule; None for one that follows the host, or is a name."""
    address, mask = rule.address or "", rule.netmask or ""
    try:
        return ip_network(f"{address}/{_bits(mask)}", strict=False)
    except ValueError:
        return None


def _bits(mask: str) -> int:
    return bin(int(ip_address(mask))).count("1")


def _of(rule: Rule, foreign: Belongings) -> bool:
    address = rule.address or ""
    return foreign.owns_name(address) or foreign.owns_name(address.lstrip("."))
