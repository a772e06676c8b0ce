"""SSH refuses whom it must. What every host does is in `tests/conformance/test_host.py`."""

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.errors import FarsideError
from blocks.hosts.host import HostUnreachable
from blocks.hosts.local import LocalHost
from blocks.hosts.process import ConnectionLost
from blocks.hosts.ssh import AuthenticationRefused, HostKeyMismatch


class TestSSH:
    def test_unknown_host_key(self, ssh_server: Any) -> None:
        with pytest.raises(HostKeyMismatch, match="no host key is pinned") as caught:
            ssh_server.host(host_key="").run(["true"])
        # The hint shows the key to pin.
        assert "ssh-ed25519 AAAA" in caught.value.hint

    def test_changed_host_key(self, ssh_server: Any) -> None:
        other = (ssh_server.folder / "stranger.pub").read_text()
        with pytest.raises(HostKeyMismatch) as caught:
            ssh_server.host(host_key=other).run(["true"])
        assert str(caught.value).count("SHA256:") == 2
        assert "expected ssh-ed25519" in caught.value.message

    def test_the_pinned_key_may_be_any_of_the_servers(self, ssh_server: Any) -> None:
        with pytest.raises(HostKeyMismatch) as caught:
            ssh_server.host(host_key="").run(["true"])
        offered = caught.value.hint.partition("host_key: ")[2]
        for line in {offered, ssh_server.host_key}:
            host = ssh_server.host(host_key=line)
            assert host.run(["echo", "x"]).text == "x"
            host.close()

    @pytest.mark.parametrize(
        "line", ["ssh-ed25519", "ssh-ed25519 !!", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAA", "x y z"]
    )
    def test_what_is_no_host_key(self, ssh_server: Any, line: str) -> None:
        with pytest.raises(ValidationError, match="host_key"):
            ssh_server.host(host_key=line)

    def test_wrong_client_key(self, ssh_server: Any) -> None:
        host = ssh_server.host(identity_file=ssh_server.folder / "stranger")
        with pytest.raises(AuthenticationRefused, match="refuses operator"):
            host.run(["true"])

    def test_useless_client_key(self, ssh_server: Any, tmp_path: Path) -> None:
        for content, reason in ((None, "No such file"), ("junk", "not a usable private key")):
            file = tmp_path / "key"
            if content:
                file.write_text(content)
            with pytest.raises(AuthenticationRefused, match=reason):
                ssh_server.host(identity_file=file).run(["true"])

    def test_nobody_listens(self, ssh_server: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with pytest.raises(HostUnreachable, match="no SSH connection"):
            ssh_server.host(port=port).run(["true"])

    def test_what_listens_is_no_ssh_server(
        self, ssh_server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FARSIDE_CONNECT_SECONDS", "0.5")
        with socket.create_server(("127.0.0.1", 0)) as mute:
            began = time.monotonic()
            with pytest.raises(HostUnreachable):
                ssh_server.host(port=mute.getsockname()[1]).run(["true"])
        assert time.monotonic() - began < 5

    def test_one_connection_serves_all_threads(self, ssh_server: Any) -> None:
        ssh_server.connections.clear()
        host = ssh_server.host()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: host.run(["true"]), range(16)))
        host.close()
        assert len(ssh_server.connections) == 1

    def test_broken_connection_is_transient_and_made_again(self, ssh_server: Any) -> None:
        host = ssh_server.host()
        host.run(["true"])
        threading.Timer(0.3, ssh_server.break_connections).start()
        began = time.monotonic()
        with pytest.raises(ConnectionLost, match="while sleep was running"):
            host.run(["sleep", "5"], timeout=20)
        assert time.monotonic() - began < 3
        assert host.run(["echo", "again"]).text == "again"
        host.close()

    def test_errors_are_ours_alone(
        self, ssh_server: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]

            def hang_up() -> None:
                server.accept()[0].close()

            threading.Thread(target=hang_up, daemon=True).start()
            with pytest.raises(FarsideError):
                ssh_server.host(port=port).run(["true"])
        assert not [line for line in caplog.records if line.name.startswith("paramiko")]
        assert "Traceback" not in capfd.readouterr().err


def test_local_host_needs_no_settings() -> None:
    assert LocalHost().run(["echo", "x"]).text == "x"


def test_bytes_that_are_no_text_are_arguments_too() -> None:
    word = os.fsdecode(b"\xff\xfe")
    assert LocalHost().run(["printf", "%s", word]).stdout == b"\xff\xfe"


def test_a_misspelt_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="prot"):
        LocalHost.model_validate({"prot": 22})
