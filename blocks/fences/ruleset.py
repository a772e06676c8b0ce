"""What a fence says to nftables, and what nftables says of those who ran into it."""

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from blocks.artifact import wire
from blocks.ids import id_in

Network = IPv4Network | IPv6Network

#: How long a denied call is remembered: longer than any rehearsal takes.
MEMORY_SECONDS = 7 * 24 * 3600

# Calls over TCP go to the watcher, which sees whose they are. What is left is noted and rejected:
# by account, other protocols and connections that are older than the fence; without one, what the
# kernel sends itself or passes on (for a container, say), and protocols that have no ports.
_TABLE = """\
add table inet {table}
delete table inet {table}
table inet {table} {{
  counter redirected {{ }}
  counter denied {{ }}
  counter refused {{ }}
{sets}
  chain catch {{
    type nat hook output priority -100; policy accept;
{catch}
  }}
  chain leave {{
    type filter hook output priority 0; policy accept;
{leave}
  }}
  chain enter {{
    type filter hook input priority 0; policy accept;
{enter}
  }}
  chain through {{
    type filter hook forward priority 0; policy accept;
{through}
  }}
}}
"""
_SET = """\
  set called_{family} {{
    typeof {family} daddr . meta l4proto . th dport . meta skuid
    flags dynamic,timeout
    timeout {memory}s
    counter
  }}
  set passed_{family} {{
    typeof {family} daddr . meta l4proto . th dport
    flags dynamic,timeout
    timeout {memory}s
    counter
  }}
  set portless_{family} {{
    typeof {family} daddr . meta l4proto
    flags dynamic,timeout
    timeout {memory}s
    counter
  }}"""
# Only what opens a connection: a packet of an older one is nothing to a watcher.
_CATCH = (
    "    {to} tcp flags & (fin | syn | rst | ack) == syn"
    " counter name redirected redirect to :{port}"
)
# A packet without an account ends the rule that asks for it, and meets the next one. Of TCP, that
# is the end of an older connection that is closed already: no call.
_LEAVE = """\
    {to} meta l4proto {{ tcp, udp, sctp }} update @called_{family} \
{{ {family} daddr . meta l4proto . th dport . meta skuid }} counter name denied reject
    {to} meta l4proto {{ udp, sctp }} update @passed_{family} \
{{ {family} daddr . meta l4proto . th dport }}
    {to} meta l4proto != {{ tcp, udp, sctp }} update @portless_{family} \
{{ {family} daddr . meta l4proto }}
    {to} counter name denied reject"""
# What the watcher answers seems to come from the source, by the loopback interface.
_ENTER = '    iifname != "lo" {off} counter name refused drop'
_THROUGH = """\
    {to} meta l4proto {{ tcp, udp, sctp }} update @passed_{family} \
{{ {family} daddr . meta l4proto . th dport }}
    {to} meta l4proto != {{ tcp, udp, sctp }} update @portless_{family} \
{{ {family} daddr . meta l4proto }}
    {to} counter name denied drop
    {off} counter name refused drop"""


@dataclass(frozen=True, slots=True)
class DeniedCall:
    """A destination that was denied: by which protocol and account, how often, how long ago.

    A protocol without ports has port 0. No account: the kernel's own packet, or one passed on.
    """

    address: str
    protocol: str
    port: int
    account: str | None
    packets: int
    seconds_ago: float


def ruleset(table: str, networks: Collection[Network], port: int) -> str:
    """Commands for `nft -f -` that make the table again, all at once.

    Nothing reaches `networks` or comes from there; TCP calls are redirected to `port`.
    """
    families = {
        family: text
        for family, version in (("ip", 4), ("ip6", 6))
        if (text := ", ".join(str(net) for net in networks if net.version == version))
    }

    def rules(template: str) -> str:
        return "\n".join(
            template.format(
                family=family,
                to=f"{family} daddr {{ {text} }}",
                off=f"{family} saddr {{ {text} }}",
                port=port,
                memory=MEMORY_SECONDS,
            )
            for family, text in families.items()
        )

    return _TABLE.format(
        table=table,
        sets=rules(_SET),
        catch=rules(_CATCH),
        leave=rules(_LEAVE),
        enter=rules(_ENTER),
        through=rules(_THROUGH),
    )


@wire.reading("a list of tables")
def handles(listing: str) -> dict[str, int]:
    """The tables of rehearsals in what `nft -j list tables` prints, with their handles.

    A table that is deleted and made again has another handle. Raises WireError.
    """
    found = [item["table"] for item in wire.parsed(listing)["nftables"] if "table" in item]
    return {
        table["name"]: int(table["handle"])
        for table in found
        if table["family"] == "inet" and id_in(table["name"])
    }


def tables(listing: str) -> list[str]:
    """The names alone. Raises as `handles`."""
    return list(handles(listing))


@wire.reading("a list of rules")
def denied_calls(listing: str, name: str | None = None) -> list[DeniedCall]:
    """The calls of table `name`, or of all, in what `nft -j list ruleset inet` prints.

    Raises WireError.
    """
    found = []
    for item in wire.parsed(listing)["nftables"]:
        if name is not None and item.get("set", {}).get("table") != name:
            continue
        for element in item.get("set", {}).get("elem", []):
            value = element["elem"]
            address, protocol, *more = value["val"]["concat"]
            call = DeniedCall(
                address=str(address),
                protocol=str(protocol),
                port=int(more[0]) if more else 0,
                account=str(more[1]) if len(more) > 1 else None,
                packets=int(value["counter"]["packets"]),
                seconds_ago=float(MEMORY_SECONDS - value["expires"]),
            )
            found.append(call)
    return found
