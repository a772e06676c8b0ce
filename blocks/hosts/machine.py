"""What a machine itself says that it is: addresses, network stack, name, SSH host keys."""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from blocks.block import is_ip
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.hosts.host import Host
from blocks.ownership import canonical

_ASK = """\
echo "boot $(cat /proc/sys/kernel/random/boot_id 2>/dev/null)"
echo "network $(readlink /proc/self/ns/net 2>/dev/null)"
echo "name $(cat /etc/machine-id 2>/dev/null) $(uname -n)"
cat /etc/ssh/ssh_host_*_key.pub 2>/dev/null
cat /proc/net/fib_trie /proc/net/if_inet6 2>/dev/null
true"""
_SAID = re.compile(r"^(boot|network|name) (.*)$", re.MULTILINE)
_HOST_KEY = re.compile(r"^((?:ssh|ecdsa|sk)-\S+ AAAA\S+)", re.MULTILINE)
_LOCAL_IPV4 = re.compile(r"\|-- ([\d.]+)\n\s+/32 host LOCAL")
_TCP = re.compile(
    r"^ *\d+: [0-9A-F]+:(?P<own>[0-9A-F]{4}) (?P<address>(?:[0-9A-F]{8}){1,4}):"
    r"(?P<port>[0-9A-F]{4}) (?P<state>01|0A) ",
    re.MULTILINE,
)
_IPV6 = re.compile(r"^([0-9a-f]{32}) [0-9a-f]{2} ", re.MULTILINE)


class MachineUnknown(PermanentError):
    """A host does not show its own addresses: what a fence there would cut off cannot be told."""

    finding = FindingId.FENCE_LEAKS


@dataclass(frozen=True, slots=True)
class Machine:
    """A host's own addresses, loopback ones left out, and what else tells machines apart.

    Two hosts of one `stack` (a kernel's boot, and a network namespace) are one machine, whatever a
    plan calls them; of two stacks they are two, whatever else they share: hosts in containers have
    the machine-id, the name and the keys of an image. Only of a host that does not show its stack
    these three together tell.
    """

    addresses: frozenset[str]
    stack: str = ""
    name: str = ""
    """Its machine-id and host name; empty unless it has both."""
    keys: frozenset[str] = frozenset()
    """Its SSH host keys, as far as they lie where OpenSSH puts them."""

    def is_same(self, other: "Machine") -> bool:
        """Whether both are one machine."""
        if self.stack and other.stack:
            return self.stack == other.stack
        return bool(self.name == other.name != "" and self.keys & other.keys)


def machine(host: Host) -> Machine:
    """Ask a host what it is; writes nothing there.

    Raises MachineUnknown where it shows no address, and as `Host.run`.
    """
    text = host.run(["sh", "-c", _ASK]).text
    said = dict(_SAID.findall(text))
    found = {canonical(item) for item in _LOCAL_IPV4.findall(text)}
    found |= {canonical(":".join(re.findall("....", item))) for item in _IPV6.findall(text)}
    if not found:
        raise MachineUnknown(
            "it shows none of its addresses",
            operation="fence",
            domain=host.domain,
            host=host.name,
            hint="let the account read /proc/net/fib_trie there: farside raises no filter on a "
            "machine that it cannot tell from one of the source's",
        )
    own = frozenset(item for item in found if is_ip(item) and not _loopback(item))
    boot, network = said.get("boot", ""), said.get("network", "")
    name = said.get("name", "").strip()
    return Machine(
        own,
        f"{boot} {network}" if boot and network else "",
        name if len(name.split()) == 2 else "",
        frozenset(_HOST_KEY.findall(text)),
    )


@dataclass(frozen=True, slots=True)
class Connection:
    """An established TCP connection that a host made: from its own port to another machine's."""

    own_port: int
    address: str
    port: int


def connections(host: Host) -> frozenset[Connection]:
    """The TCP connections that a host made to other machines, whatever account has them.

    Those that it was called on are left out: monitoring, an administrator. Raises MachineUnknown
    where it does not show them, and as `Host.run`.
    """
    text = host.run(["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null; true"]).text
    if "local_address" not in text:  # the head of the table
        raise MachineUnknown(
            "it does not show its connections",
            operation="fence",
            domain=host.domain,
            host=host.name,
            hint="let the account read /proc/net/tcp there: farside cuts off nothing that the "
            "source may wait for",
        )
    rows = list(_TCP.finditer(text))
    listens = {row["own"] for row in rows if row["state"] == "0A"}
    found = (
        Connection(int(row["own"], 16), _of_kernel(row["address"]), int(row["port"], 16))
        for row in rows
        if row["state"] == "01" and row["own"] not in listens
    )
    return frozenset(item for item in found if not _loopback(item.address))


def _of_kernel(words: str) -> str:
    """An address as /proc/net/tcp has it: words of 32 bits, each the wrong way round."""
    packed = b"".join(bytes.fromhex(word)[::-1] for word in re.findall("." * 8, words))
    return canonical(str(ip_address(packed)))


def _loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
