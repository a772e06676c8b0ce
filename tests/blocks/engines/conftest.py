"""One lab and one Prefect server for the tests of all engines."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from deployments import lab
from deployments.lab.places import Places
from tests.blocks.engines.worlds import need_debian_15
from tests.servers import PrefectServer

pytest.register_assert_rewrite("tests.blocks.engines.conformance")


@pytest.fixture(scope="session")
def debian_15() -> None:
    """Debian's PostgreSQL 15 with contrib is here; else the test is skipped, or fails."""
    need_debian_15()


@pytest.fixture(scope="package")
def places() -> Iterator[Places]:
    """A lab in a directory that the services' account may enter; pytest's own are closed."""
    root = Path(tempfile.mkdtemp(prefix="farside-engines-", dir="/var/tmp"))
    root.chmod(0o711)
    try:
        lab.up(root / "lab", scale=1)
        yield Places.at(root / "lab")
    finally:
        lab.down(root / "lab")
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="package")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests' Prefect server is the one that flows in this process use."""
    home = tmp_path_factory.mktemp("prefect")
    server = PrefectServer.shared()
    with temporary_settings({PREFECT_API_URL: server.ready(), PREFECT_HOME: home}):
        yield
