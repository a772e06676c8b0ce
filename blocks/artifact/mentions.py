"""What belongs to a failure domain by address, name or path, and where a text mentions it.

Standard library only: hosts search their own files with it, so that no file has to leave them.
"""

import base64
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
# What characters other than those of names are written as: in JSON, in E'' and bytea, in URLs.
_ESCAPE = re.compile(
    r"""\\(?:u(?P<unicode>[0-9A-Fa-f]{4})|x(?P<hex>[0-9A-Fa-f]{2})|(?P<octal>[0-3][0-7]{2})
          |(?P<letter>[bfnrt"'/\\])|(?P<plain>[.-]))
      | (?P<bytes>%[CDEFcdef][0-9A-Fa-f](?:%[89ABab][0-9A-Fa-f])+)
      | %(?P<byte>0[009ADad]|[2-7][0-9A-Fa-f])""",
    re.VERBOSE,
)
# As kubeconfigs, headers and secrets hold text, and as PostgreSQL shows bytea.
_BASE64 = re.compile(
    r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{16,}+={0,2}(?![A-Za-z0-9+/_=-])", re.ASCII
)
_HEX = re.compile(r"\\x((?:[0-9A-Fa-f]{2}){8,}+)(?![0-9A-Fa-f])", re.ASCII)
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
# 'db1.' || 'east.example', and the same with + and with a dot; all arguments of concat().
_JOINED = re.compile(r"""(['"])\s*(?:\|\||\+|\.\.?)\s*(?:[EN]|U&)?\1""", re.IGNORECASE)
_CONCAT = re.compile(r"\bconcat\s*\(([^()]{1,1000})\)", re.IGNORECASE)
_BETWEEN = re.compile(r"'\s*,\s*(?:[EN]|U&)?'", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"""\s*(?:(?:export|set|local|readonly|declare|define|var|let|const|ARG|ENV)\s+)?([A-Za-z_]\w*)
        \s*(?:[:?]?=|:(?=\s))\s*["']?([^\s"'#;]{1,255})""",
    re.VERBOSE,
)
_VARIABLE = re.compile(
    r"\$?\{{1,2}\s*([A-Za-z_]\w*)\s*\}{1,2}|\$([A-Za-z_]\w*)"
    r"|%\(([A-Za-z_]\w*)\)s|%([A-Za-z_]\w*)%"
)
_URL_SAFE = str.maketrans("-_", "+/")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SHORTEST = 5
"""Characters of what is also looked for encoded: less would be found everywhere."""
_DEEPEST = 5
"""How many times over what is found may have been escaped: JSON in JSON, in a row, in a dump."""
_NAT64 = ip_network("64:ff9b::/96")
# Where a text says that something is a host, whatever it is called: in a URL, a connection string,
# an option, a remote path, or beside a port.
_HOSTS = re.compile(
    r"""://(?:[^\s/@'"]*@)?(?P<url>[A-Za-z0-9_][\w.-]*(?:(?::\d+)?,[A-Za-z0-9_][\w.-]*)*)
      | \b(?:host|hostaddr|hostname|server|servers|dbserver|nodename|proxy|peer|pool|nameserver|kdc
           |admin_server|mirror|endpoint|origin|data\s?source|addr|address)
        ["']?\s*(?:=>?|:|\s)\s*[\\"'\[]*(?P<option>[A-Za-z0-9_][\w.-]*(?:,[A-Za-z0-9_][\w.-]*)*)
      | (?<![\w.-])[\w.-]+@(?P<remote>[A-Za-z0-9_][\w.-]*)(?=[:\s'"/,;)]|$)
      | (?<![\w.:/-])(?P<port>[A-Za-z][\w.-]*):(?:\d{2,5}(?![\w.:])|/(?!/))""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_OF_ADDRESS = re.compile(
    r"(?:[\w-]+\.)*(?:[a-z][a-z0-9]*-)?(?:(\d{1,3}(?:-\d{1,3}){3})(?:\.[\w-]+)+"
    r"|(\d{1,3}(?:\.\d{1,3}){3})\.(?:nip|sslip|xip)\.io)",
    re.ASCII,
)
"""As ip-10-1-0-4.ec2.internal, 10-1-0-4.ns.pod.cluster.local, db.10.1.0.4.nip.io."""
_FILE = re.compile(r"\.(?:bak|conf|csv|dump|gz|json|log|lz4|sql|so|tar|txt|tgz|xz|zip|zst|\d+)$")
_RETURN = re.compile(r"(?<!/)/++(?:\./+)*(?!\.{1,2}/)[\w.@+-]{1,255}/++(?:\./+)*\.\.(?=/)")
_WORDS = frozenset(
    {"and", "as", "by", "false", "from", "in", "is", "not", "null", "of", "on", "or"}
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
        plain = _readings(text)
        readings = [*plain, *map(_without_returns, plain)]
        return [own for own in self.paths if any(map(_path(own).search, readings))]

    def places_in(self, text: str) -> list[str]:
        """The domain's addresses and names that `text` holds; none twice."""
        found = dict[str, None]()
        for reading in _readings(text):
            for pattern, where in ((_IPV4, reading), (_IPV6, reading), (_NAME, _bare(reading))):
                found |= dict.fromkeys(match[0] for match in pattern.finditer(where))
        starts = (
            start
            for network in self.networks
            if (start := _plain_start(network)).count(".") > 1
            and any(_beginning(start).search(reading) for reading in _readings(text))
        )
        return [*(place for place in found if self.owns_name(place)), *starts]

    def hosts_of(self, text: str) -> list[str]:
        """The domain's hosts that `text` uses as such, names without a dot among them."""
        return [name for name in hosts_in(text) if self.owns_name(name)]

    def lines(self, text: str) -> Iterator[tuple[int, str]]:
        """Number (from 1) of each line that mentions the domain, and what it mentions.

        Variables that were given a value above are read as that.
        """
        values: dict[str, str] = {}

        def value(used: re.Match[str]) -> str:
            return values.get(used[used.lastindex or 0], used[0])

        for number, line in enumerate(text.splitlines(), 1):
            if values and any(sign in line for sign in "${%"):
                line = _VARIABLE.sub(value, line)
            if assigned := _ASSIGNED.match(line):
                values[assigned[1]] = assigned[2]
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
            parts += _encoded(text)
        return "|".join(dict.fromkeys(parts)) or "a^"


@lru_cache(maxsize=2)  # a line is asked for addresses, then for hosts, then for paths
def _readings(text: str) -> tuple[str, ...]:
    """A text as it is, and as it reads decoded and without its escapes, again and again."""
    readings = [text]
    while len(readings) <= _DEEPEST and (text := _read(text)) != readings[-1]:
        readings.append(text)
    return tuple(readings)


def _read(text: str) -> str:
    plain = _BASE64.sub(_decoded, _HEX.sub(_bytes, text))
    plain = _ESCAPE.sub(_written_as, plain)
    return _JOINED.sub("", _CONCAT.sub(lambda call: _BETWEEN.sub("", call[1]), plain))


def _bytes(written: re.Match[str]) -> str:
    return bytes.fromhex(written[1]).decode(errors="replace")


def _decoded(word: re.Match[str]) -> str:
    """What a word means in base64 if that is text; else the word."""
    whole = word[0].rstrip("=").translate(_URL_SAFE)
    try:
        text = base64.b64decode(whole + "=" * (-len(whole) % 4)).decode()
    except ValueError:
        return word[0]
    return f" {text} " if text.isprintable() or not _CONTROL.search(text) else word[0]


def _encoded(text: str) -> Iterator[str]:
    """What base64, by where in it a text begins, and hexadecimal digits of that text hold."""
    data = text.encode()
    if len(data) < _SHORTEST:
        return
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data).decode()
        sure = whole[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield sure.replace("+", "[+-]").replace("/", "[/_]")
    yield data.hex()


def _written_as(escape: re.Match[str]) -> str:
    """The character that is written as an escape; no tool does so with those that names have."""
    if escape["bytes"]:
        return bytes.fromhex(escape["bytes"].replace("%", "")).decode(errors="replace")
    if escape["plain"]:  # of a regular expression
        return escape["plain"]
    if letter := escape["letter"]:
        return _LETTERS.get(letter, letter)
    code = escape["unicode"] or escape["hex"] or escape["byte"]
    meant = chr(int(code, 16) if code else int(escape["octal"], 8))
    return escape[0] if re.fullmatch(r"[A-Za-z0-9._-]", meant) else meant


def _bare(text: str) -> str:
    """A text whose escapes are no part of a name: `\\ndb1` is none."""
    return _ESCAPE.sub(" ", text)


def _without_returns(text: str) -> str:
    """A text in which `/x/../east` is `/east`."""
    for _ in range(_DEEPEST):
        text = _RETURN.sub("", text)
    return text


@cache
def _beginning(start: str) -> re.Pattern[str]:
    """Patterns of LIKE and of regular expressions for all addresses that begin so; no versions."""
    return re.compile(rf"(?<![\w.]){re.escape(start)}(?=[%[(]|\\d|\.[*+]|['\"$])", re.ASCII)


@cache
def _path(own: str) -> re.Pattern[str]:
    steps = r"/+(?:\./+)*".join(map(re.escape, own.split("/")))
    return re.compile(rf"(?<![\w.-]){steps}(?![\w.-])", re.ASCII)


def _address_in(name: str) -> str:
    """The IPv4 address that a machine's name holds; else the name."""
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
    found = (match for reading in _readings(text) for match in _HOSTS.finditer(_bare(reading)))
    lists = (match[match.lastgroup or 0].split(",") for match in found)
    names = (item.partition(":")[0].rstrip(".") for items in lists for item in items)
    return list(dict.fromkeys(name for name in names if name.lower() not in _WORDS))
