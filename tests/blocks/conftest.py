"""A real SSH server and a real S3 server, for all tests of blocks."""

from collections.abc import Iterator

import pytest

from blocks.hosts.host import Host
from blocks.hosts.local import LocalHost
from tests import servers
from tests.servers import S3Server, SSHServer


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHServer]:
    with servers.ssh(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture(params=["local", "ssh"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Every kind of host there is."""
    over_ssh = request.param == "ssh"
    host: Host = request.getfixturevalue("ssh_server").host() if over_ssh else LocalHost()
    yield host
    host.close()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("s3")
    (folder / "other").mkdir()
    servers.certificate(folder / "other")
    with servers.s3(folder, "tester-key", "a/secret+with=signs", "one", "two") as server:
        with (folder / "credentials").open("a") as file:
            file.write(
                f"[stranger]\naws_access_key_id = {server.access_key}\n"
                "aws_secret_access_key = wrong\n"
            )
        yield server
