"""Every kind of host behaves alike; SSH refuses whom it must."""

import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from blocks.errors import FarsideError
from blocks.evidence.uses import new_ledger
from blocks.hosts.host import FileMissing, FileRefused, Host, HostUnreachable
from blocks.hosts.local import LocalHost
from blocks.hosts.process import CommandFailed, CommandNotStarted, CommandTimeout, ConnectionLost
from blocks.hosts.ssh import AuthenticationRefused, HostKeyMismatch

ECHO_ARGV = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
NASTY = ["", " ", "$HOME", "`id`", "a'b", 'a"b', "\\", "*", "~", "!x", "-n", "a\nb", "é", ";", "#"]


def gone(pid: int, within: float = 5.0) -> bool:
    give_up = time.monotonic() + within
    while time.monotonic() < give_up:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def refused(host: Host, argv: list[str], password: SecretStr) -> tuple[str, str]:
    """What an error says of a command that fails."""
    with pytest.raises(CommandFailed) as caught:
        host.run(argv, password=password)
    return str(caught.value), caught.value.stderr


class TestEveryHost:
    def test_arguments_arrive_as_they_are(self, host: Host) -> None:
        done = host.run([sys.executable, "-c", ECHO_ARGV, *NASTY])
        assert done.stdout == "\0".join(NASTY).encode()

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        argv=st.lists(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1
        )
    )
    def test_any_text_is_an_argument(self, host: Host, argv: list[str]) -> None:
        # printf of the shell is fast, and ends every argument with a NUL.
        done = host.run(["printf", r"%s\0", *argv])
        assert done.stdout == "".join(f"{word}\0" for word in argv).encode()

    def test_no_command_is_refused(self, host: Host) -> None:
        for argv in ([], ["a\0b"]):
            with pytest.raises(CommandNotStarted):
                host.run(argv)

    def test_exit_code_and_stderr(self, host: Host) -> None:
        argv = ["sh", "-c", "echo out; echo because >&2; exit 3"]
        done = host.run(argv, check=False)
        assert (done.exit_code, done.text, done.stderr) == (3, "out", b"because\n")
        with pytest.raises(CommandFailed, match="sh ended with exit code 3: because") as caught:
            host.run(argv)
        assert (caught.value.exit_code, caught.value.stderr) == (3, "because")
        assert caught.value.host == host.name

    @pytest.mark.parametrize("password", ["hunter2", 'it\'s "q" $x \\', "näive%/", "x" * 900])
    def test_a_password_is_the_first_line_and_never_said(self, host: Host, password: str) -> None:
        script = 'read -r line; set -x; : "$line" "user:$line@"; cat; printf %s "$line" >&2; exit 3'
        given = SecretStr(password)
        argv = ["bash", "-c", script]
        done = host.run(argv, password=given, input=b"the rest", check=False)
        assert done.text == "the rest"
        for said in (done.stderr.decode(), *refused(host, argv, given)):
            assert password not in said
            assert "***" in said

    def test_no_part_of_a_password_begins_what_is_kept(self, host: Host) -> None:
        script = 'read -r line; for i in 1 2 3 4 5 6 7 8 9; do printf %s "$line" >&2; done; exit 3'
        for said in refused(host, ["sh", "-c", script], SecretStr("hunter22" * 150)):
            assert "hunter2" not in said

    def test_what_looks_like_a_secret_is_in_no_error(self, host: Host) -> None:
        argv = ["sh", "-c", "echo postgresql://app:hunter2@10.1.1.1/shop is down >&2; exit 3"]
        with pytest.raises(CommandFailed, match=r"app:\*\*\*@10\.1\.1\.1/shop is down"):
            host.run(argv)

    def test_error_does_not_repeat_the_arguments(self, host: Host) -> None:
        with pytest.raises(CommandFailed) as caught:
            host.run(["false", "hunter2"])
        assert "hunter2" not in str(caught.value)

    def test_missing_program(self, host: Host) -> None:
        assert host.run(["/no/such/program"], check=False).exit_code == 127

    def test_death_by_signal_is_negative(self, host: Host) -> None:
        assert host.run(["sh", "-c", "kill -9 $$"], check=False).exit_code < 0

    def test_megabytes_both_ways_at_once(self, host: Host) -> None:
        data = os.urandom(1 << 20) * 6
        assert host.run(["cat"], input=data).stdout == data

    def test_megabytes_of_stderr_block_nobody(self, host: Host) -> None:
        script = "head -c 6000000 /dev/zero >&2; head -c 6000000 /dev/zero; echo end >&2"
        done = host.run(["sh", "-c", script])
        assert len(done.stdout) == 6_000_000
        assert done.stderr.endswith(b"end\n")
        assert len(done.stderr) <= 8192

    def test_input_that_nobody_reads_is_no_failure(self, host: Host) -> None:
        assert host.run(["true"], input=bytes(4_000_000)).exit_code == 0

    def test_input_ends(self, host: Host) -> None:
        assert host.run(["wc", "-c"]).text == "0"

    def test_time_limit_kills(self, host: Host) -> None:
        with host.start(["sh", "-c", "echo $$; exec sleep 60"]) as process:
            pid = int(next(process.lines()))
            process.kill()
        assert gone(pid)
        began = time.monotonic()
        with pytest.raises(CommandTimeout, match=r"sleep did not end within 0\.5 s"):
            host.run(["sleep", "60"], timeout=0.5)
        assert time.monotonic() - began < 4

    def test_time_limit_while_input_is_stuck(self, host: Host) -> None:
        with pytest.raises(CommandTimeout):
            host.run(["sleep", "60"], input=bytes(8_000_000), timeout=0.5)

    def test_background_program_that_keeps_the_output(self, host: Host) -> None:
        with pytest.raises(CommandTimeout, match=r"did not end|keeps its output open"):
            host.run(["sh", "-c", "sleep 30 & exit 0"], timeout=1)

    def test_conversation(self, host: Host) -> None:
        script = "while read line; do echo got $line; done; echo end; echo bye >&2; exit 7"
        with host.start(["sh", "-c", script]) as process:
            lines = process.lines(idle=10)
            for word in ("one", "zwei ü"):
                process.write_line(word)
                assert next(lines) == f"got {word}"
            process.close_input()
            assert list(lines) == ["end"]
            assert process.wait(10) == 7
            assert process.stderr_tail() == "bye"

    def test_lines_of_any_length(self, host: Host) -> None:
        script = "import sys; [print('x' * n) for n in (0, 1, 300000, 5)]; sys.stdout.write('rest')"
        with host.start([sys.executable, "-c", script]) as process:
            assert [len(line) for line in process.lines(idle=10)] == [0, 1, 300000, 5, 4]

    def test_silence_has_a_limit(self, host: Host) -> None:
        with host.start(["sleep", "60"]) as process:
            with pytest.raises(CommandTimeout, match=r"silent for 0\.2 s"):
                next(process.lines(idle=0.2))
            process.kill()

    def test_leaving_ends_the_input(self, host: Host, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        script = f"cat >/dev/null; echo closed > {mark}"
        with host.start(["sh", "-c", script]):
            pass
        assert mark.read_text() == "closed\n"

    def test_leaving_kills_what_goes_on(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("blocks.hosts.process.EXIT_GRACE_SECONDS", 0.3)
        with host.start(["sh", "-c", "echo $$; exec sleep 60"]) as process:
            pid = int(next(process.lines()))
        assert gone(pid)

    def test_leaving_with_output_unread(self, host: Host) -> None:
        began = time.monotonic()
        with host.start(["head", "-c", "20000000", "/dev/zero"]) as process:
            pass
        assert time.monotonic() - began < 5
        assert process.wait(1) is not None

    def test_writing_to_a_process_that_has_ended(self, host: Host) -> None:
        with host.start(["true"]) as process:
            process.wait(10)
            with pytest.raises(ConnectionLost, match="no longer reads"):  # noqa: PT012
                for _ in range(100):
                    process.write_line("x" * 10000)

    def test_threads_share_a_host(self, host: Host) -> None:
        """So many that the ends of some fall together with the beginnings of others."""
        with ThreadPoolExecutor(8) as pool:
            said = list(pool.map(lambda n: host.run(["echo", str(n)]).text, range(400)))
        assert said == [str(n) for n in range(400)]

    def test_put_and_get(self, host: Host, tmp_path: Path) -> None:
        path = tmp_path / "a file"
        for data in (b"", os.urandom(3_000_000), b"short"):
            host.put(data, str(path))
            assert path.read_bytes() == data == host.get(str(path))
        assert path.stat().st_mode & 0o777 == 0o600
        host.put(b"x", str(path), 0o750)
        assert path.stat().st_mode & 0o777 == 0o750
        assert [entry.name for entry in tmp_path.iterdir()] == ["a file"]

    def test_files_that_cannot_be(self, host: Host, tmp_path: Path) -> None:
        with pytest.raises(FileMissing, match="no-file is not there"):
            host.get(str(tmp_path / "no-file"))
        with pytest.raises(FileMissing):
            host.put(b"x", str(tmp_path / "no-directory" / "file"))
        with pytest.raises(FileRefused):
            host.get(str(tmp_path))
        (tmp_path / "taken").mkdir()
        with pytest.raises(FileRefused):
            host.put(b"x", str(tmp_path / "taken"))
        assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]

    def test_uses_are_noted(self, host: Host) -> None:
        host.join("east")
        with new_ledger() as uses:
            uses.enter("restore")
            host.run(["true"])
            host.run(["env", "-uFOO", "BAR=a b", "true"])
            host.run(["env", "BAR=b", "env", "-uFOO", "true"])
        noted = [(use.stage, use.kind, use.name, use.domain) for use in uses.uses()]
        tools = [item for item in noted if item[1] == "tool"]
        assert tools == [("restore", "tool", f"{host.name}:true", "east")]
        assert ("restore", "host", host.name, "east") in noted

    def test_close_and_use_again(self, host: Host) -> None:
        for _ in range(2):
            assert host.run(["echo", "x"]).text == "x"
            host.close()


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
