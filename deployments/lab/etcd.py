"""What runs etcd in east: three members with TLS and users, and the application's writer."""

import copy
import json
import ssl
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from blocks.errors import PermanentError
from deployments.lab import credentials
from deployments.lab.domains import EAST, Site
from deployments.lab.places import Places
from deployments.lab.processes import PLAIN, Service

TOKEN = "east"
#: Keys of the application's that never change: a check of the plan counts them.
SETTINGS = 500
_TOOL_SECONDS = 60
_BATCH = 100  # operations in one transaction; etcd allows 128


def data_directory(places: Places, host: str) -> Path:
    """Where a host of east keeps its member."""
    return places.host(EAST.name, host) / "etcd"


def service(places: Places, site: Site, host: str) -> Service:
    """One member."""
    (address, client), (_, peer) = site.etcd[host]
    certificate, key = credentials.member_files(places, site.name, host)
    ca = credentials.authority_file(places, site.name)
    log = places.logs(site.name) / f"etcd-{host}.log"
    others = ",".join(f"{name}=https://{a}:{p}" for name, (_, (a, p)) in site.etcd.items())
    return Service(
        name=f"{site.name}-etcd-{host}",
        tree=places.tree(site.name),
        argv=(
            str(places.etcd_bin(site.name) / "etcd"),
            f"--name={host}",
            f"--data-dir={data_directory(places, host)}",
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


def writer(places: Places, site: Site) -> Service:
    """The writer of the heartbeat and of the load."""
    ledger = places.ledger / "etcd.tsv"
    script = places.runtime(site.name) / "etcd_writer.py"
    return Service(
        name=f"{site.name}-etcd-writer",
        tree=places.tree(site.name),
        argv=(
            *(str(places.python(site.name)), "-P", str(script), str(ledger)),
            str(credentials.etcd_password_file(places, site.name)),
            str(credentials.authority_file(places, site.name)),
            *(f"https://{address}:{port}" for (address, port), _ in site.etcd.values()),
        ),
        cwd=places.host(site.name, "app"),
        log=places.logs(site.name) / "etcd-writer.log",
        ready=lambda: ledger.exists() and ledger.stat().st_size > 0,
        namespace=site.namespace("app"),
    )


def is_filled(places: Places) -> bool:
    """Whether the cluster has its users and settings."""
    return _mark(places).exists()


def fill(places: Places, site: Site) -> None:
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
    shop = credentials.etcd_password_file(places, site.name).read_text()
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


def _mark(places: Places) -> Path:
    return places.logs(EAST.name) / ".etcd-filled"


def _serves(places: Places, site: Site, host: str) -> bool:
    (address, port), _ = site.etcd[host]
    trust = ssl.create_default_context(cafile=str(_authority(places, site)))
    url = f"https://{address}:{port}/health"
    try:
        with urllib.request.urlopen(url, timeout=2, context=trust) as answer:
            return bool(json.load(answer)["health"] == "true")
    except (OSError, ValueError, KeyError):
        return False


def _authority(places: Places, site: Site) -> Path:
    return places.operator(site.name) / "ca.pem"


def _etcdctl(places: Places, site: Site, *words: str, said: str = "") -> None:
    endpoints = ",".join(f"https://{address}:{port}" for (address, port), _ in site.etcd.values())
    done = subprocess.run(
        [
            places.etcd_bin(site.name) / "etcdctl",
            f"--endpoints={endpoints}",
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
