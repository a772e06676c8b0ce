"""What is read from a host has a limit, and what prints a secret is quiet."""

import sys
from pathlib import Path

import pytest

from blocks.hosts.host import FileRefused, Host
from blocks.hosts.process import CommandFailed, OutputTooLarge

ENDLESS = "import sys\nwhile True: sys.stdout.write('x' * 65536)"


def test_output_without_end(host: Host) -> None:
    with pytest.raises(OutputTooLarge, match=r"wrote more than 1,000,000 bytes"):
        host.run([sys.executable, "-c", ENDLESS], most=1_000_000)


def test_a_line_without_end(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocks.hosts.process.LINE_BYTES", 1_000_000)
    with (
        host.start([sys.executable, "-c", ENDLESS]) as process,
        pytest.raises(OutputTooLarge, match="a line of more than"),
    ):
        list(process.lines(idle=30))


def test_errors_without_end_keep_only_their_tail(host: Host) -> None:
    program = "import sys; sys.stderr.write('x' * 10_000_000 + 'the end'); sys.exit(3)"
    with pytest.raises(CommandFailed, match="the end") as caught:
        host.run([sys.executable, "-c", program])
    assert len(caught.value.stderr) <= 8192


def test_a_file_that_is_too_large(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 1001)
    assert host.get(str(file), most=1001) == b"x" * 1001
    with pytest.raises(FileRefused, match="larger than 1,000 bytes"):
        host.get(str(file), most=1000)


def test_a_file_without_an_end(host: Host) -> None:
    with pytest.raises(FileRefused, match="larger than"):
        host.get("/dev/zero", most=100_000)


def test_a_command_that_prints_a_secret_is_not_quoted(host: Host) -> None:
    script = "echo s3cret; echo s3cret >&2; exit 1"
    with pytest.raises(CommandFailed) as caught:
        host.run(["sh", "-c", script], secret=True)
    assert "s3cret" not in f"{caught.value} {caught.value.stderr}"
    assert "exit code 1" in str(caught.value)
