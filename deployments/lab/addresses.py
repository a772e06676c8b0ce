"""Two networks of 127.0.0.0/8 that nobody uses, so that several labs can run side by side."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Network

from blocks.errors import PermanentError
from deployments.lab import parts
from deployments.lab.domains import EAST, WEST, endpoints
from deployments.lab.site import Endpoint, Site

FIRST, LAST = 10, 250
#: Held on the first address of both networks while a lab starts, so that two do not take the same.
CLAIM_PORT = 20202


@contextmanager
def claimed() -> Iterator[tuple[IPv4Network, IPv4Network]]:
    """Two free networks, east's and west's, held against other labs until the block ends.

    Raises PermanentError if there are none.
    """
    for number in range(FIRST, LAST, 2):
        east = IPv4Network(f"127.0.{number}.0/24")
        west = IPv4Network(f"127.0.{number + 1}.0/24")
        with ExitStack() as claims:
            try:
                for network in (east, west):
                    claims.enter_context(_bound((str(network[1]), CLAIM_PORT)))
                _check_free(east, west)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            yield east, west
            return
    raise PermanentError(
        f"every network from 127.0.{FIRST}.0/24 to 127.0.{LAST}.0/24 is in use",
        operation="lab up",
        hint="take down labs that are not needed: `ss -ltnp` shows whose they are",
    )


def _check_free(east: IPv4Network, west: IPv4Network) -> None:
    whole = [
        Site(EAST, east, frozenset(parts.OPTIONAL)),
        Site(WEST, west, frozenset(parts.OPTIONAL)),
    ]
    taken = [endpoint for site in whole for endpoint in endpoints(site)]
    taken += [endpoint for part in parts.PARTS for endpoint in part.kept_free(whole[1])]
    for endpoint in taken:
        with _bound(endpoint):
            pass


@contextmanager
def _bound(endpoint: Endpoint) -> Iterator[None]:
    with socket.socket() as probe:
        # Connections of a lab that was here before may still be in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(endpoint)
        probe.listen()
        yield
