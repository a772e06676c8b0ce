"""Makes a lab from nothing, and starts what does not run."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Network

from deployments.lab import (
    credentials,
    databases,
    etcd,
    galera,
    minting,
    namespaces,
    postgres,
    processes,
    runtime,
)
from deployments.lab.accounts import Account
from deployments.lab.addresses import claimed
from deployments.lab.domains import EAST, WEST, Site
from deployments.lab.places import STAMP, Network, Places, State, save_state
from deployments.lab.processes import Service, wait_ready
from deployments.lab.services import network_services

Say = Callable[[str], None]


def build(
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
    with ThreadPoolExecutor(2) as pool:
        if state.namespaces:
            say("making the network")
            namespaces.make(places, state.sites, account)
        minting.create(places, state.sites, account)
        say(f"making the database (scale {state.scale})")
        runtime.install_postgres(places, EAST.name, account)
        database = pool.submit(_build_database, places, east, account, state.scale)
        say("copying the tools")
        runtime.install_tools(
            places, EAST.name, account, (*runtime.HOST_PACKAGES, *runtime.APPLICATION_PACKAGES)
        )
        runtime.install_tools(places, WEST.name, account, runtime.HOST_PACKAGES)
        runtime.install_postgres(places, WEST.name, account)
        if state.namespaces:
            runtime.install_packet_filter(places, WEST.name, account)
        for site in state.sites:
            runtime.install_etcd(places, site.name, account)
        say("starting SSH servers and object stores")
        network = [s for site in state.sites for s in network_services(places, site)]
        _start(places, network, account)
        wait_ready(places, network)
        database.result()
        state = replace(state, built=True)
        save_state(places, state)
        # The databases take their addresses before the claim on the networks ends.
        start_all(places, state, account, say)
    return state


def _build_database(places: Places, site: Site, account: Account, scale: int) -> None:
    databases.initialise(places, site, account)
    databases.fill(places, site, account, scale)


def start_all(places: Places, state: State, account: Account, say: Say) -> None:
    """Start what does not run, and wait until everything works. Raises PermanentError."""
    if state.namespaces:
        namespaces.make(places, state.sites, account)
    east = state.sites[0]
    network = [s for site in state.sites for s in network_services(places, site)]
    writers = [postgres.heartbeat(places, east), postgres.load(places, east)]
    primary, standby = (postgres.service(places, east, host) for host in EAST.databases)
    if _bury(places, primary):
        for writer in writers:
            # Those that lost their connections start anew.
            processes.kill_service(places, writer.name)
    _bury(places, standby)
    _announce(_start(places, [*network, primary], account), say)
    wait_ready(places, [primary])
    started = _start(places, writers, account)
    if not standby.cwd.exists():
        databases.make_standby(places, east, account)
    _announce([*started, *_start(places, [standby], account)], say)
    wait_ready(places, [*network, standby, *writers])
    if east.etcd:
        _start_etcd(places, east, account, say)
    if east.galera:
        _start_galera(places, east, account, say)


def _start_etcd(places: Places, site: Site, account: Account, say: Say) -> None:
    members = [etcd.service(places, site, host) for host in site.etcd]
    started = _start(places, members, account)
    wait_ready(places, members)
    if not etcd.is_filled(places):
        say("making the etcd cluster")
        etcd.fill(places, site)
    writer = etcd.writer(places, site)
    if started:
        processes.kill_service(places, writer.name)  # it lost its connection: it starts anew
    _announce([*started, *_start(places, [writer], account)], say)
    wait_ready(places, [writer])


def _start_galera(places: Places, site: Site, account: Account, say: Say) -> None:
    if not galera.is_made(places):
        say("making the Galera cluster")
        galera.make(places, site, account)
    nodes = {host: galera.service(places, site, host) for host in site.galera}
    dead = [host for host, node in nodes.items() if not processes.running(places, node.name)]
    for host in galera.prepare(places, site, account, dead):
        # Each joins those before it.
        _announce(_start(places, [nodes[host]], account), say)
        wait_ready(places, [nodes[host]])
    writer = galera.writer(places, site)
    if dead:
        processes.kill_service(places, writer.name)  # it lost its connection: it starts anew
    _announce(_start(places, [writer], account), say)
    wait_ready(places, [writer])


def _bury(places: Places, server: Service) -> bool:
    """Remove what a killed database server left: its orphans, and its mark. True if it is dead."""
    if processes.running(places, server.name) is not None:
        return False
    processes.kill_domain(places, server.cwd)
    postgres.forget_dead(server.cwd)
    return True


def _announce(started: list[Service], say: Say) -> None:
    if started:
        say(f"starting {', '.join(service.name for service in started)}")


def _start(places: Places, wanted: Iterable[Service], account: Account) -> list[Service]:
    """Start those that do not run, and return them."""
    missing = [s for s in wanted if processes.running(places, s.name) is None]
    for service in missing:
        processes.start(places, service, account)
    return missing


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
