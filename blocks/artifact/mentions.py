"""What belongs to a failure domain by address, name or path, and where a text mentions it.

Standard library only: hosts search their own files with it, so that no file has to leave them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

_IPV4 = r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\w)"
_IPV6 = r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"
_NAME = r"(?<![\w.-])[A-Za-z0-9_](?:[\w-]*\.)+[A-Za-z][\w-]*"
_PLACES = re.compile(f"{_IPV4}|{_IPV6}|{_NAME}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """Networks (10.1.0.0/16), DNS suffixes, single places (addresses or names), directories."""

    networks: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def owns_address(self, address: str) -> bool:
        """Whether an IP address is one of the domain's."""
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        return address in self.places or any(ip in ip_network(text) for text in self.networks)

    def owns_name(self, name: str) -> bool:
        """Whether a DNS name, or an IP address given as one, is one of the domain's."""
        wanted = _bare(name)
        suffixes = [_bare(suffix) for suffix in self.suffixes]
        return (
            wanted in {_bare(place) for place in self.places}
            or any(wanted == suffix or wanted.endswith(f".{suffix}") for suffix in suffixes)
            or self.owns_address(name)
        )

    def paths_in(self, text: str) -> list[str]:
        """Those of the domain's directories that `text` names, or has a file of."""
        return [
            own for own in self.paths if re.search(rf"(?<![\w.-]){re.escape(own)}(?![\w.-])", text)
        ]

    def places_in(self, text: str) -> list[str]:
        """The domain's addresses and names that `text` holds; none twice."""
        found = (match[0] for match in _PLACES.finditer(text))
        return list(dict.fromkeys(place for place in found if self.owns_name(place)))

    def lines(self, text: str) -> Iterator[tuple[int, str]]:
        """Number (from 1) of each line that mentions the domain, and what it mentions."""
        for number, line in enumerate(text.splitlines(), 1):
            for mention in (*self.places_in(line), *self.paths_in(line)):
                yield number, mention


def _bare(name: str) -> str:
    return name.strip().strip(".").lower()
