"""Fixtures that more than one part of the tests uses."""

import os
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import boto3
import pytest
from botocore.config import Config
from hypothesis import settings

from blocks.errors import PermanentError
from deployments.lab import namespaces
from tests import servers

# How long one example takes says how busy the machine is.
settings.register_profile("farside", deadline=None)
settings.load_profile("farside")


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
        left_out += [item for member in ids if member not in drawn for item in those[member]]
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
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """`rclone serve s3` with one bucket."""
    yield from _serve(tmp_path_factory.mktemp("s3"), "AKIATEST", "a-secret-for-tests")


@pytest.fixture(scope="session")
def s3_far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A second store: another address, other credentials, another CA."""
    yield from _serve(tmp_path_factory.mktemp("s3-far"), "AKIAFAR", "another-secret")


def _serve(root: Path, access_key: str, secret_key: str) -> Iterator[S3]:
    with servers.s3(root, access_key, secret_key, "sets") as server:
        client = boto3.client(
            "s3",
            endpoint_url=server.endpoint,
            region_name="us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            verify=str(server.ca_file),
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        data = root / "data" / "sets"
        yield S3(server.endpoint, "sets", server.ca_file, access_key, secret_key, client, data)
        client.close()
    shutil.rmtree(root, ignore_errors=True)
