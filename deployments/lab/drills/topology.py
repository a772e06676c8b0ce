"""Drills of topology and addressing."""

import shutil
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from deployments.lab.drills.board import drill
from deployments.lab.drills.ground import Ground


@drill("name-resolves-to-source", "preflight")
def name_resolves_to_source(ground: Ground) -> Iterator[None]:
    """A name that clients use leads to east, asked in west."""
    # An address written as one number: the resolver takes it for a name, and needs no DNS.
    address, _ = ground.live.endpoint
    ground.document["names"] = [hex(int(ip_address(address)))]
    yield


@drill("port-taken", "preflight")
def port_taken(ground: Ground) -> Iterator[None]:
    """Something listens on the port that the restored server is to have."""
    with ground.listening(ground.node):
        yield


@drill("target-occupied", "preflight")
def target_occupied(ground: Ground) -> Iterator[None]:
    """Somebody's file lies in the target directory."""
    with ground.occupied(ground.live.data):
        yield


@drill("store-region-hard-coded", "preflight")
def store_region_hard_coded(ground: Ground) -> Iterator[None]:
    """The recovery domain's store has a name that leads to east's."""
    parts = urlsplit(ground.document["source"]["store"]["endpoint"])
    name = hex(int(ip_address(parts.hostname or "")))  # needs no DNS, as above
    ground.document["recovery"]["store"]["endpoint"] = f"https://{name}:{parts.port}"
    yield


@drill("recovery-is-source", "preflight")
def recovery_is_source(ground: Ground) -> Iterator[None]:
    """A host of west has a name that leads to a host of east."""
    source = ground.document["source"]["hosts"][0]["address"]
    ground.document["recovery"]["hosts"][-1]["address"] = hex(int(ip_address(source)))
    yield


@drill("source-used", "verify")
def tool_calls(ground: Ground) -> Iterator[None]:
    """A wrapper around a program of west's calls an address of east."""
    address, port = ground.live.endpoint
    call = f"timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/{port}' </dev/null 2>/dev/null"
    with ground.wrapped(ground.live.tools[0], f'{call}\nexec "$REAL" "$@"'):
        yield


@drill("storage-from-source", "preflight")
def storage_from_source(ground: Ground) -> Iterator[None]:
    """The directory in which west restores is a link into a directory of east."""
    data = ground.live.data
    folder = data.parent
    inside = ground.places.tree("east") / "spare"
    there = folder.exists()
    aside = folder.with_name("recovered.aside")
    if there:
        folder.rename(aside)
    inside.mkdir()
    ground.own(inside)
    folder.symlink_to(inside)
    try:
        yield
    finally:
        folder.unlink()
        shutil.rmtree(inside)
        if there:
            aside.rename(folder)
