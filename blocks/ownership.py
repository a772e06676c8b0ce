"""What belongs to a failure domain by address, name or path, and where a text mentions it.

Standard library only: hosts search their own files with it, so that no file has to leave them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from blocks import readings

# Letters are ASCII's: other scripts put no space around an address. No version of five numbers is
# one, nor is that of a library's file; one that a letter follows may be in a binary format.
_IPV4 = re.compile(
    r"(?<![A-Za-z0-9])(?<!\d\.)\d{1,3}(?:\.\d{1,3}){3}(?!\.?\d|\.[A-Za-z_])", re.ASCII
)
_IPV6 = re.compile(
    r"(?<![A-Za-z0-9])(?<![0-9A-Fa-f:]:)[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}"
    r"(?:(?<=::)|(?<!:))(?![A-Za-z0-9]|:[0-9A-Fa-f]|\.\d)",
    re.ASCII,
)
_NAME = re.compile(
    r"(?<!\w)(?<!\w-)(?<![\w-]\.)[A-Za-z0-9_][\w-]*(?:\.[\w-]+)*\.[A-Za-z][\w-]*", re.ASCII
)
_NAT64 = ip_network("64:ff9b::/96")
# Where a text says that something is a host, whatever it is called: in a URL, a connection string,
# an option, a variable, a remote path, or next to a port.
_LIST = r"[A-Za-z0-9_][\w.-]*(?:,[A-Za-z0-9_][\w.-]*)*"
_A_NAME = r"[A-Za-z][\w.-]*"
_HOSTS = re.compile(
    rf"""://(?:[^\s/@'"]*@)?(?P<url>[A-Za-z0-9_][\w.-]*(?:(?::\d+)?,[A-Za-z0-9_][\w.-]*)*)
      | \b(?:host|hostaddr|hostname|server|servers|dbserver|nodename|proxy|peer|pool|nameserver|kdc
           |admin_server|mirror|endpoint|origin|data\s?source|addr|address)
        ["']?\s*(?:=>?|:|\s)\s*[\\"'\[]*(?P<option>{_LIST})(?![\w.-]*://)
      | (?<!\w)\w*(?:host|hostaddr|hostname|server|addr|address|endpoint)
        (?: ["']?\s*(?:=>?|:)\s*[\\"'\[]*(?P<variable>{_A_NAME})(?![\w.-]*://)
          | ["']\s*,\s*["'](?P<else>{_A_NAME}) | \s*\|\s*default\(\s*["'](?P<default>{_A_NAME}) )
      | (?<![\w-])(?:-h|(?<!-e\s)ssh)\s+["']?(?P<called>{_A_NAME})(?![\w.-]*@)
      | (?<![\w.-])[\w.-]+@(?P<remote>[A-Za-z0-9_][\w.-]*)(?=[:\s'"/,;)]|$)
      | (?<![\w.:/-])(?P<port>{_A_NAME}):(?:\d{{2,5}}(?![\w.]|:\d)|/(?!/))""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_OF_ADDRESS = re.compile(
    r"(?:[\w-]+\.)*(?:[a-z][a-z0-9]*-)?(?:(\d{1,3}(?:-\d{1,3}){3})(?:\.[\w-]+)+"
    r"|(\d{1,3}(?:\.\d{1,3}){3})\.(?:nip|sslip|xip)\.io)",
    re.ASCII,
)
"""As ip-10-1-0-4.ec2.internal, 10-1-0-4.ns.pod.cluster.local, db.10.1.0.4.nip.io."""
_REVERSED = re.compile(r"((?:\d{1,3}\.){2,4})in-addr\.arpa", re.ASCII)
_FILE = re.compile(r"\.(?:bak|conf|csv|dump|gz|json|log|lz4|sql|so|tar|txt|tgz|xz|zip|zst|\d+)$")
_RETURN = re.compile(r"(?<!/)/++(?:\./+)*(?!\.{1,2}/)[\w.@+-]{1,255}/++(?:\./+)*\.\.(?=/)")
_RETURNS = 5
_LEADS = "(?:://|@|host|server|addr|endpoint|peer|pool|proxy|mirror|origin|source|kdc|ssh|-h)"
"""Before a name that a text uses as a host; what is found has all of `_HOSTS` to match."""
_WORDS = frozenset(
    {
        *("and", "as", "by", "false", "from", "in", "is", "no", "none", "not", "null", "of", "off"),
        *("on", "or", "true", "yes"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """Networks (10.1.0.0/16), DNS suffixes, single places (addresses or names), directories.

    `aliases`: short names that only this domain's hosts have, and its bucket; in lower case. They
    are its own where they lead nowhere else.
    """

    networks: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    def owns_address(self, address: str) -> bool:
        """Whether an IP address is one of the domain's."""
        try:
            ip = ip_address(canonical(address))
        except ValueError:
            return False
        own = {canonical(place) for place in self.places}
        return str(ip) in own or any(ip in _network(text) for text in self.networks)

    def owns_name(self, name: str) -> bool:
        """Whether a DNS name, or an IP address given as one, is one of the domain's."""
        wanted = canonical(name)
        suffixes = [canonical(suffix) for suffix in self.suffixes]
        return (
            wanted in {canonical(place) for place in self.places}
            or any(wanted == suffix or wanted.endswith(f".{suffix}") for suffix in suffixes)
            or self.owns_address(_address_in(wanted))
        )

    def paths_in(self, text: str) -> list[str]:
        """Those of the domain's directories that `text` names, or has a file of."""
        plain = readings.of(text)
        texts = [*plain, *map(_without_returns, plain)]
        return [own for own in self.paths if any(map(_path(own).search, texts))]

    def places_in(self, text: str) -> list[str]:
        """The domain's addresses and names that `text` holds; none twice."""
        found = dict[str, None]()
        for reading in readings.of(text):
            bare = readings.bare(reading)
            for pattern, where in ((_IPV4, reading), (_IPV6, reading), (_NAME, bare)):
                found |= dict.fromkeys(match[0] for match in pattern.finditer(where))
        starts = (
            start
            for network in self.networks
            if (start := _plain_start(network)).count(".") > 1
            and any(map(_beginning(network).search, readings.of(text)))
        )
        return [*(place for place in found if self.owns_name(place)), *starts]

    def hosts_of(self, text: str) -> list[str]:
        """The domain's hosts that `text` uses as such, names without a dot among them."""
        return [name for name in hosts_in(text) if self.owns_name(name)]

    def lines(self, text: str) -> Iterator[tuple[int, str]]:
        """Number (from 1) of each line that mentions the domain, and what it mentions.

        Comments are passed over; variables that were given a value above are read as that.
        """
        for number, line in readings.lines(text):
            found = (*self.places_in(line), *self.hosts_of(line), *self.paths_in(line))
            for mention in dict.fromkeys(found):
                yield number, mention

    def likely(self) -> str:
        """A regular expression, Python's and PostgreSQL's: whatever mentions the domain matches it.

        Without regard to case. What it matches need not mention the domain.
        """
        parts = [*map(_start_of, self.networks), *map(_words, self.suffixes)]
        parts += [_start_of(place) if _is_ip(place) else _words(place) for place in self.places]
        parts += map(_words, self.paths)
        for text in (*map(_plain_start, self.networks), *self.suffixes, *self.places, *self.paths):
            parts += readings.encoded(text)
        parts += (f"{_LEADS}.{{0,40}}{_words(name)}|{_words(name)}:[0-9]" for name in self.aliases)
        return "|".join(dict.fromkeys(parts)) or "a^"


@cache
def _beginning(network: str) -> re.Pattern[str]:
    """Patterns of LIKE, of regular expressions and with `*` for all addresses of a network, and the
    network as 10.1/16; no versions.
    """
    start = _plain_start(network)
    star = r"\*" if start.count(".") == 3 else r"(?:\d{1,3}|\*)\.\*"
    short = rf"{re.escape(start[:-1])}/{_network(canonical(network)).prefixlen}(?!\d)"
    patterns = rf"{re.escape(start)}(?=[%[(]|\\d|\.[*+]|['\"$]|{star})"
    return re.compile(rf"(?<![\w.])(?:{patterns}|{short})", re.ASCII)


def _without_returns(text: str) -> str:
    """A text in which `/x/../east` is `/east`."""
    for _ in range(_RETURNS):
        text = _RETURN.sub("", text)
    return text


@cache
def _path(own: str) -> re.Pattern[str]:
    steps = r"/+(?:\./+)*".join(map(re.escape, own.split("/")))
    return re.compile(rf"(?<![\w.-]){steps}(?![\w.-])", re.ASCII)


def _address_in(name: str) -> str:
    """The IPv4 address that a machine's name, or one for the way back, holds; else the name."""
    if back := _REVERSED.fullmatch(name):
        return ".".join([*reversed(back[1].split(".")[:-1]), "0", "0"][:4])
    if (inside := _OF_ADDRESS.fullmatch(name)) and not _FILE.search(name):
        return (inside[1] or inside[2]).replace("-", ".")
    return name


def _words(text: str) -> str:
    """What a text that holds another matches, however the characters between words are written."""
    words = re.findall(r"[\w.-]+", canonical(text), re.ASCII)
    return ".{1,40}".join(re.escape(word).replace(r"\.", r"\\*\.") for word in words)


def _start_of(network: str) -> str:
    """What a text that names an address of a network matches."""
    own = _network(canonical(network))
    octets = own.network_address.packed
    if own.version == 4:
        fixed = [rf"{octet}\\*[.-]" for octet in octets[: own.prefixlen // 8]]
        start = "".join(fixed[:3]) or "[0-9][.-]"
        return f"{start}|ffff[:%\\\\]|ff9b[:%\\\\]"
    first = f"{octets[0] * 256 + octets[1]:x}" if own.prefixlen >= 16 else "[0-9a-f]"
    return rf"{first}[:%\\]" if first != "0" else r"[:%\\]"


def _plain_start(network: str) -> str:
    """With what the addresses of a network of IPv4 begin, as they are written; else nothing."""
    own = _network(canonical(network))
    if own.version != 4:
        return ""
    return "".join(
        f"{octet}." for octet in own.network_address.packed[: min(own.prefixlen, 24) // 8]
    )


def _is_ip(place: str) -> bool:
    try:
        ip_address(canonical(place))
    except ValueError:
        return False
    return True


@lru_cache(maxsize=10_000)
def canonical(place: str) -> str:
    """An address or a DNS name by one spelling: IPv4 inside IPv6 is IPv4; no brackets, no zone."""
    text = place.strip().strip("[]").rstrip(".").lower()
    try:
        ip = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        if ip in _NAT64:
            return str(IPv4Address(int(ip) & 0xFFFFFFFF))
    return str(ip)


@cache
def _network(text: str) -> IPv4Network | IPv6Network:
    """A network; one of IPv4 inside IPv6 is one of IPv4, as its addresses are."""
    network = ip_network(text)
    if network.version == 6 and network.prefixlen >= 96:
        inside = canonical(str(network.network_address))
        if ":" not in inside:
            return ip_network(f"{inside}/{network.prefixlen - 96}")
    return network


def hosts_in(text: str) -> list[str]:
    """Names, and numbers taken for names, that a text uses as hosts; none twice."""
    texts = map(readings.bare, readings.of(text))
    found = (match for bare in texts for match in _HOSTS.finditer(bare))
    lists = (match[match.lastgroup or 0].split(",") for match in found)
    names = (item.partition(":")[0].rstrip(".") for items in lists for item in items)
    return list(dict.fromkeys(name for name in names if name.lower() not in _WORDS))
