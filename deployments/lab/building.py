"""Makes a lab from nothing, and starts what does not run."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Network

from deployments.lab import credentials, minting, namespaces, parts, runtime
from deployments.lab.accounts import Account
from deployments.lab.addresses import claimed
from deployments.lab.domains import EAST, WEST
from deployments.lab.places import STAMP, Network, Places
from deployments.lab.services import network_services
from deployments.lab.site import Site
from deployments.lab.starting import Say, Starter
from deployments.lab.state import State, save_state


def build(  # noqa: PLR0913 (each is a choice for a new lab)
    places: Places,
    scale: int,
    account: Account,
    say: Say,
    parts: frozenset[str],
    network: Network,
) -> State:
    """Make all files of a lab. Raises PermanentError."""
    with _networks(network) as (prefix, east, west):
        state = State(east, west, scale, built=False, parts=parts, namespaces=prefix)
        save_state(places, state)
        _make_directories(places, state.sites, account)
        return _build(places, state, account, say)


@contextmanager
def _networks(kind: Network) -> Iterator[tuple[str | None, IPv4Network, IPv4Network]]:
    """A prefix for namespaces, where hosts are such, and the networks of east and west."""
    if kind == "netns":
        yield namespaces.claim()
        return
    with claimed() as (east, west):
        yield None, east, west


def _build(places: Places, state: State, account: Account, say: Say) -> State:
    east = state.sites[0]
    always = [part for part in parts.PARTS if part.always]
    optional = [part for part in parts.PARTS if not part.always]
    with ThreadPoolExecutor(len(always)) as pool:
        if state.namespaces:
            say("making the network")
            namespaces.make(places, state.sites, account)
        minting.create(places, state.sites, account)
        say(f"making the database (scale {state.scale})")
        for part in always:
            part.install(places, EAST.name, account)
        building = [pool.submit(p.build, places, east, account, state.scale) for p in always]
        say("copying the tools")
        clients = [package for part in parts.PARTS for package in part.packages]
        runtime.install_tools(places, EAST.name, account, (*runtime.HOST_PACKAGES, *clients))
        runtime.install_tools(places, WEST.name, account, runtime.HOST_PACKAGES)
        for part in always:
            part.install(places, WEST.name, account)
        if state.namespaces:
            runtime.install_packet_filter(places, WEST.name, account)
        for domain in (EAST, WEST):
            for part in optional:
                part.install(places, domain.name, account)
        say("starting SSH servers and object stores")
        network = [s for site in state.sites for s in network_services(places, site)]
        starter = Starter(places, account, say)
        starter.start(*network)
        starter.wait(*network)
        for done in building:
            done.result()
        state = replace(state, built=True)
        save_state(places, state)
        # The databases take their addresses before the claim on the networks ends.
        start_all(places, state, account, say)
    return state


def start_all(places: Places, state: State, account: Account, say: Say) -> None:
    """Start what does not run, and wait until everything works. Raises PermanentError."""
    if state.namespaces:
        namespaces.make(places, state.sites, account)
    starter = Starter(places, account, say)
    network = [s for site in state.sites for s in network_services(places, site)]
    starter.announce(starter.start(*network))
    east = state.sites[0]
    for part in parts.of(east):
        part.start(places, east, starter)
    starter.wait(*network)


def _make_directories(places: Places, sites: tuple[Site, Site], account: Account) -> None:
    for top in places.tops:
        top.mkdir()
        top.chmod(0o755)
        (top / STAMP).touch()
    (places.root / "operator").chmod(0o700)
    account.own(places.ledger)
    for site in sites:
        places.logs(site.name).mkdir()
        (places.tree(site.name) / "hosts").mkdir()
        homes = [places.host(site.name, host.name) for host in site.domain.hosts]
        bucket = places.store(site.name) / credentials.BUCKET
        for path in (*homes, places.store(site.name), bucket, places.secrets(site.name)):
            path.mkdir(mode=0o700)
            account.own(path)
