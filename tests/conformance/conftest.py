"""What makes each implementation of the table: real servers, files and packet filters."""

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import boto3
import pytest

from blocks.artifact.age.keys import generate_identity, recipient_of
from blocks.domain import FailureDomain
from blocks.fences.command import CommandFence
from blocks.fences.fence import Fence, Gap
from blocks.fences.nftables import NftablesFence
from blocks.fences.several import SeveralFences
from blocks.hosts.host import Host
from blocks.hosts.local import LocalHost
from blocks.hosts.ssh import SSHHost
from blocks.stores.s3 import S3Store
from blocks.vaults.host import HostVault
from deployments.lab import namespaces
from tests.blocks.conftest import s3_server, ssh_server
from tests.blocks.hosts.test_hanging_hosts import Daemon, sshd
from tests.conformance import worlds
from tests.conformance.worlds import FenceUnderTest, StoreUnderTest, VaultUnderTest
from tests.conftest import S3, missing

__all__ = ["s3_server", "ssh_server", "sshd"]

ID = "r20260101-000000-aaaaaa"
NOWHERE = "https://127.0.0.1:1"


# -- hosts ---------------------------------------------------------------------------------------


@pytest.fixture
def local_host() -> Host:
    return LocalHost()


@pytest.fixture
def asyncssh_host(ssh_server: Any) -> Iterator[Host]:
    host: Host = ssh_server.host()
    yield host
    host.close()


@pytest.fixture
def openssh_host(sshd: Daemon) -> Iterator[Host]:
    host = sshd.host()
    yield host
    host.close()


# -- stores --------------------------------------------------------------------------------------


@pytest.fixture
def rclone_store(s3_server: Any, s3: S3) -> StoreUnderTest:
    """`rclone serve s3` over TLS; the authority of `s3`, another one, has not signed for it."""

    def folder(prefix: str = "", **changes: object) -> S3Store:
        made: S3Store = s3_server.store(prefix=prefix or uuid.uuid4().hex, **changes)
        return made

    return StoreUnderTest(
        store=folder(),
        folder=folder,
        no_bucket=folder(bucket="no-such"),
        untrusted=folder(ca_file=s3.ca_file),
        unreachable=folder(endpoint=NOWHERE),
        refused=folder(profile="stranger"),
    )


@pytest.fixture(scope="session")
def moto(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """AWS as moto plays it, with the certificate of `s3`; its bucket is `one`."""
    port = _free_port()
    certificate = (
        f"--ssl-cert={s3.ca_file.with_name('cert.pem')}",
        f"--ssl-key={s3.ca_file.with_name('key.pem')}",
    )
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", f"--port={port}", *certificate],
            stdout=file,
            stderr=file,
        )
    endpoint = f"https://127.0.0.1:{port}"
    try:
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            verify=str(s3.ca_file),
            aws_access_key_id="any",
            aws_secret_access_key="any",
        )
        give_up = time.monotonic() + 120
        while True:
            try:
                client.create_bucket(Bucket="one")
                break
            except client.exceptions.ClientError:
                raise
            except Exception:  # noqa: BLE001 (the server is still starting)
                assert time.monotonic() < give_up, log.read_text()
                assert server.poll() is None, log.read_text()
                time.sleep(0.2)
        client.close()
        yield endpoint
    finally:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def moto_store(moto: str, s3: S3, s3_server: Any, tmp_path: Path) -> StoreUnderTest:
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = any\naws_secret_access_key = any\n")

    def folder(prefix: str = "", **changes: object) -> S3Store:
        settings: dict[str, object] = {
            "endpoint": moto,
            "bucket": "one",
            "prefix": prefix or uuid.uuid4().hex,
            "ca_file": s3.ca_file,
            "credentials_file": credentials,
        }
        return S3Store(**(settings | changes))

    return StoreUnderTest(
        store=folder(),
        folder=folder,
        no_bucket=folder(bucket="no-such"),
        untrusted=folder(ca_file=s3_server.store().ca_file),
        unreachable=folder(endpoint=NOWHERE),
        refused=None,
        fails_at_aborted_uploads=True,
    )


# -- vaults --------------------------------------------------------------------------------------


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    made = tmp_path / "secrets"
    made.mkdir(mode=0o700)
    return made


def _keeper(folder: Path) -> Callable[[str, bytes], None]:
    def keep(name: str, value: bytes) -> None:
        (folder / name).touch(0o600)
        (folder / name).write_bytes(value)

    return keep


@pytest.fixture
def vault_here(secrets: Path) -> VaultUnderTest:
    vault = HostVault(host=LocalHost(), directory=str(secrets))
    return VaultUnderTest(vault, _keeper(secrets))


@pytest.fixture
def vault_over_ssh(asyncssh_host: SSHHost, secrets: Path) -> VaultUnderTest:
    vault = HostVault(host=asyncssh_host, directory=str(secrets))
    return VaultUnderTest(vault, _keeper(secrets))


@pytest.fixture
def locked_vault(secrets: Path, tmp_path: Path) -> VaultUnderTest:
    """Its files are sealed with the age command, which gives them out; public halves are not."""
    if not shutil.which("age"):
        missing("Debian's age is not installed")
    identity = generate_identity()
    unlock = tmp_path / "unlock"
    unlock.write_text(f"{identity}\n")
    vault = HostVault(
        host=LocalHost(), directory=str(secrets), read_argv=["age", "-d", "-i", str(unlock)]
    )
    plainly = _keeper(secrets)

    def keep(name: str, value: bytes) -> None:
        argv = ["age", "-r", recipient_of(identity)]
        sealed = subprocess.run(argv, input=value, check=True, capture_output=True).stdout
        plainly(name, value if name.endswith(".pub") else sealed)

    return VaultUnderTest(vault, keep)


# -- fences --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def link(
    can_have_namespaces: None,  # noqa: ARG001 (asks for root and for Debian's packages)
    open_directory: Path,
) -> Iterator[tuple[str, SSHHost]]:
    folder = open_directory / f"link-{os.getpid()}"
    folder.mkdir(mode=0o700)
    with worlds.two_namespaces(folder) as made:
        yield made


SITE_FENCE = """\
#!/bin/sh -e
# A site's own tool: denies a host any route to the source, and remembers what was tried.
nft="{enter} nft"
case $1 in
up)
    $nft list table inet site >/dev/null 2>&1 && exit
    date -u +%Y-%m-%dT%H:%M:%SZ >{folder}/since
    $nft -f - <<END
table inet site {{
    set calls {{ type ipv4_addr . inet_service; flags dynamic; size 1000; }}
    chain out {{
        type filter hook output priority 0;
        ip daddr {network} tcp dport 1-65535 update @calls {{ ip daddr . tcp dport }}
        ip daddr {network} reject
    }}
}}
END
    ;;
down) printf 'add table inet site\\ndelete table inet site\\n' | $nft -f - ;;
attempts)
    $nft list table inet site >/dev/null 2>&1 || exit 0
    since=$(cat {folder}/since)
    $nft list set inet site calls | grep -oE '[0-9.]+ \\. [0-9]+' | while read -r address _ port; do
        printf '{{"at": "%s", "host": "db1", "address": "%s", "port": %s}}\\n' $since $address $port
    done
    ;;
check) $nft list tables >/dev/null ;;
esac
"""


def _under_test(link: tuple[str, SSHHost], make: Callable[[], Fence]) -> Iterator[FenceUnderTest]:
    _, host = link
    network = ip_network(f"{worlds.SOURCE.rpartition('.')[0]}.0/24")
    store = S3Store(endpoint=NOWHERE, bucket="b", credentials_file=Path("/none"))
    east = FailureDomain(
        name="east", networks=[network], hosts=[LocalHost(name="here")], store=store
    )
    west = FailureDomain(name="west", hosts=[host], store=store)
    host.run(["rm", "-rf", host.work_dir])
    gap = Gap(east, west, ((worlds.SOURCE, worlds.PORT),), ID)
    yield FenceUnderTest(make, gap, lambda: worlds.call(host))
    made = make()
    made.lift(Gap(east, west, gap.endpoints, None, raised={ID: made.marks}))
    host.close()  # with it end the guards of what the test has not lifted: each has a session


def _site_fence(namespace: str, folder: Path) -> CommandFence:
    script = folder / "site-fence"
    enter = " ".join(namespaces.entered(namespace, None))
    network = f"{worlds.SOURCE.rpartition('.')[0]}.0/24"
    script.write_text(SITE_FENCE.format(enter=enter, folder=folder, network=network))
    script.chmod(0o755)
    words: Sequence[str] = ("up", "down", "attempts", "check")
    up, down, attempts, check = ([str(script), word] for word in words)
    return CommandFence(raise_argv=up, lift_argv=down, observe_argv=attempts, check_argv=check)


def _filters() -> NftablesFence:
    return NftablesFence(nft_argv=[namespaces.tool("nft")])


@pytest.fixture
def command_fence(link: tuple[str, SSHHost], tmp_path: Path) -> Iterator[FenceUnderTest]:
    yield from _under_test(link, lambda: _site_fence(link[0], tmp_path))


@pytest.fixture
def nftables_fence(link: tuple[str, SSHHost]) -> Iterator[FenceUnderTest]:
    yield from _under_test(link, _filters)


@pytest.fixture
def several_fences(link: tuple[str, SSHHost], tmp_path: Path) -> Iterator[FenceUnderTest]:
    def make() -> Fence:
        return SeveralFences(fences=[_site_fence(link[0], tmp_path), _filters()])

    yield from _under_test(link, make)
