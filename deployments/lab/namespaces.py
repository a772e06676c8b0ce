"""The lab's other network: a namespace for each host, a bridge for each domain, one WAN link.

Linux and root only, with iproute2. The names of all namespaces of a lab begin with its own prefix:
what has it is the lab's, whatever else is forgotten. The orchestrator stays outside, with a port
on either bridge; between the domains there is no way but the link, whose rate `tc tbf` limits.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path

from blocks.errors import PermanentError
from deployments.lab.accounts import Account
from deployments.lab.places import Places
from deployments.lab.site import Host, Site

RATE = "1gbit"
"""Of the WAN link, each way, unless somebody sets another one."""
FIRST, LAST = 10, 250
#: Reserved for measuring network devices (RFC 2544): no site has hosts there.
_SPACE = IPv4Network("198.18.0.0/15")
_CONFIGURATIONS = Path("/etc/netns")  # `ip netns exec` mounts what is there over /etc
_GATEWAY, _OPERATOR = 1, 250
#: tbf lets so much through at once: what a timer tick of 4 ms needs at 250 Mbit/s.
_BURST, _LATENCY = "128kb", "50ms"
_TOOLS = {"ip": "iproute2", "tc": "iproute2", "nft": "nftables", "sshd": "openssh-server"}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def check() -> None:
    """Raise PermanentError where namespaces cannot be had, with what is missing."""
    if os.geteuid() != 0:
        raise PermanentError(
            "network namespaces are for root",
            operation="lab up",
            hint="run as root, or leave `--network netns` out: the loopback lab needs no rights",
        )
    missing = sorted({package for name, package in _TOOLS.items() if not _find(name)})
    if missing:
        raise PermanentError(
            f"Debian's {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            operation="lab up",
            hint=f"apt-get install {' '.join(missing)}",
        )


def tool(name: str) -> str:
    """Where a program of the system is, which an ordinary PATH may not show."""
    return _find(name) or name


def claim() -> tuple[str, IPv4Network, IPv4Network]:
    """A prefix that no other lab has, held by its first namespace, and its two networks.

    Raises PermanentError.
    """
    check()
    networks = list(_SPACE.subnets(new_prefix=24))
    taken = {name for name in _listed() if name.startswith("farside-")}
    for number in range(FIRST, LAST, 2):
        prefix = f"farside-{number}"
        if any(name.startswith(f"{prefix}-") for name in taken):
            continue
        with suppress(PermanentError):  # another lab was faster
            _ip("netns", "add", f"{prefix}-east")
            return prefix, networks[number], networks[number + 1]
    raise PermanentError(
        f"every name from farside-{FIRST} to farside-{LAST} is taken",
        operation="lab up",
        hint="take down labs that are not needed: `ip netns` shows their namespaces",
    )


def make(places: Places, sites: tuple[Site, Site], account: Account) -> None:
    """Make whatever is missing of a lab's network, and join the domains. Raises PermanentError."""
    there = set(_listed())
    for site in sites:
        if _router(site) not in there:
            _ip("netns", "add", _router(site))
        if not _has(_router(site), "lan"):
            _make_bridge(site)
        for host in (*site.hosts, site.domain.store):
            if site.namespace(host) not in there:
                _make_host(places, site, host, account)
    if not _has(_router(sites[0]), "wan"):
        _make_link(sites)
    join(sites)


def join(sites: tuple[Site, Site]) -> None:
    """Let the WAN link carry what it is given; it does from the start. Raises PermanentError."""
    for site, other in (sites, sites[::-1]):
        gateway = _ends(sites)[other.name]
        _batch(
            _router(site), "link set wan up", f"route replace {other.network} via {gateway} dev wan"
        )


def cut(sites: tuple[Site, Site]) -> None:
    """Let the WAN link lose everything without a word, as a line that was dug up."""
    for site, other in (sites, sites[::-1]):
        _batch(_router(site), f"route replace blackhole {other.network}", "link set wan down")


def limit(sites: tuple[Site, Site], rate: str) -> None:
    """Give the WAN link a rate each way, in tc's words: 50mbit. Raises PermanentError."""
    for site in sites:
        shape = ("tbf", "rate", rate, "burst", _BURST, "latency", _LATENCY)
        _run("tc", "-netns", _router(site), "qdisc", "replace", "dev", "wan", "root", *shape)


def carried(site: Site) -> int:
    """Bytes, with their frames' headers, that a domain has sent over the WAN link so far."""
    show = ("qdisc", "show", "dev", "wan")
    (shaper,) = json.loads(_run("tc", "-json", "-statistics", "-netns", _router(site), *show))
    return int(shaper["bytes"])


def remove(prefix: str) -> None:
    """Kill what runs in the namespaces of a prefix and delete them. Works a second time."""
    names = [name for name in _listed() if name.startswith(f"{prefix}-")]
    for name in names:
        for pid in map(int, _ip("netns", "pids", name).split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    # At once: a namespace that is deleted goes when the kernel finds the time, with its links.
    for link in json.loads(_ip("-json", "link", "show")):
        if link["ifname"].startswith(f"{_short(prefix)}-"):
            _ip("link", "delete", link["ifname"])
    _remove_files(prefix)
    # The first holds the prefix: with it gone, another lab may have it at once.
    for name in sorted(names, key=lambda name: name == f"{prefix}-east"):
        _ip("netns", "delete", name)


def forget(prefix: str) -> None:
    """Remove the files of namespaces that a restart ended, unless another lab has the prefix."""
    if not any(name.startswith(f"{prefix}-") for name in _listed()):
        _remove_files(prefix)


def _remove_files(prefix: str) -> None:
    for folder in _CONFIGURATIONS.glob(f"{prefix}-*"):
        shutil.rmtree(folder)
    with suppress(OSError):  # others have theirs there, or nobody ever had one
        _CONFIGURATIONS.rmdir()


def entered(namespace: str, account: Account | None) -> tuple[str, ...]:
    """What goes before an argv, so that it runs in a namespace, as an account or as root."""
    enter = (tool("ip"), "netns", "exec", namespace)
    if account is None:
        return enter
    who = (f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups")
    return (*enter, tool("setpriv"), *who)


def _make_bridge(site: Site) -> None:
    """The domain's own network: the router has the bridge, the orchestrator a port on it."""
    router = _router(site)
    port = f"{_short(str(site.namespaces))}-{site.name[0]}"
    _batch(
        None,
        f"link add {port} type veth peer name operator netns {router}",
        f"address add {site.network[_OPERATOR]}/{site.network.prefixlen} dev {port}",
        f"link set {port} up",
    )
    _batch(
        router,
        "link set lo up",
        "link add lan type bridge",
        f"address add {site.network[_GATEWAY]}/{site.network.prefixlen} dev lan",
        "link set operator master lan",
        "link set operator up",
        "link set lan up",
    )
    _ip("netns", "exec", router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")


def _make_host(places: Places, site: Site, host: Host, account: Account) -> None:
    """A namespace with an address on the bridge, and the files of /etc that are its own."""
    name, port = site.namespace(host), f"port{host.number}"
    folder = _CONFIGURATIONS / str(name)
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "hosts": _hosts_file(site),
        "nsswitch.conf": "hosts: files\npasswd: files\nshadow: files\ngroup: files\n",
        "resolv.conf": "# Names are in /etc/hosts; nobody serves them.\n",
        "passwd": f"root:*:0:0::/root:/bin/sh\n{account.name}:*:{account.uid}:{account.gid}::"
        f"{places.host(site.name, host.name)}:/bin/sh\n",
        "shadow": "",  # nobody has a password
    }
    for file, text in files.items():
        (folder / file).write_text(text)
    _ip("netns", "add", str(name))
    _batch(
        None,
        f"link add eth0 netns {name} type veth peer name {port} netns {_router(site)}",
    )
    _batch(_router(site), f"link set {port} master lan", f"link set {port} up")
    _batch(
        str(name),
        "link set lo up",
        f"address add {site.address(host)}/{site.network.prefixlen} dev eth0",
        "link set eth0 up",
        f"route add default via {site.network[_GATEWAY]}",
    )


def _hosts_file(site: Site) -> str:
    """The names of a domain, which the other one does not know."""
    lines = ["127.0.0.1 localhost"]
    for host in (*site.hosts, site.domain.store):
        lines.append(f"{site.address(host)} {host.name}.{site.name}.lab {host.name}")
    return "\n".join(lines) + "\n"


def _make_link(sites: tuple[Site, Site]) -> None:
    east, west = map(_router, sites)
    _batch(None, f"link add wan netns {east} type veth peer name wan netns {west}")
    for site in sites:
        _batch(_router(site), f"address add {_ends(sites)[site.name]}/24 dev wan")
    limit(sites, RATE)


def _ends(sites: tuple[Site, Site]) -> dict[str, str]:
    """The addresses of the link's two ends, seen by nobody else: from the end of the space."""
    number = int(sites[0].network.network_address) - int(_SPACE.network_address)
    network = IPv4Network((int(_SPACE.broadcast_address) - 0xFFFF + number, 24))
    return {sites[0].name: str(network[1]), sites[1].name: str(network[2])}


def _short(prefix: str) -> str:
    """The name of a link has 15 letters at most."""
    return prefix.replace("farside", "fs")


def _router(site: Site) -> str:
    return f"{site.namespaces}-{site.name}"


def _listed() -> Iterator[str]:
    yield from (item["name"] for item in json.loads(_ip("-json", "netns", "list") or "[]"))


def _has(namespace: str, link: str) -> bool:
    links = json.loads(_ip("-json", "-netns", namespace, "link", "show"))
    return any(item["ifname"] == link for item in links)


def _batch(namespace: str | None, *commands: str) -> None:
    where = ("-netns", namespace) if namespace else ()
    _run("ip", *where, "-batch", "-", said="\n".join(commands))


def _ip(*words: str) -> str:
    return _run("ip", *words)


def _run(name: str, *words: str, said: str = "") -> str:
    result = subprocess.run(
        [tool(name), *words],
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": _PATH, "LANG": "C.UTF-8"},
    )
    if result.returncode != 0:
        raise PermanentError(
            f"{name} {' '.join(words)}: {result.stderr.strip()[-500:]}",
            operation="lab network",
            hint="`python -m deployments.lab down`, then `up`",
        )
    return result.stdout


def _find(name: str) -> str | None:
    return shutil.which(name, path=_PATH)
