"""What an account's shell and language do to the commands that run there."""

from pathlib import Path

import pytest

from blocks.evidence.findings import Finding
from blocks.hosts.host import Host
from blocks.hosts.local import LocalHost
from blocks.hosts.ssh import ShellNotQuiet
from tasks.inspect.diagnose import diagnose
from tasks.inspect.hosts import inspect_hosts
from tasks.inspect.inspection import Inspection
from tests.servers import Session, SSHServer
from tests.tasks.sites import local_rehearsal


@pytest.mark.parametrize("greeting", ["echo Welcome; ", "printf '\\033[1mhi'; ", "exit 0; "])
def test_a_shell_that_prints_something_is_said_to(
    ssh_server: SSHServer, monkeypatch: pytest.MonkeyPatch, greeting: str
) -> None:
    """Its line would be taken for the first that a tool says."""
    monkeypatch.setattr(Session, "greeting", greeting)
    host = ssh_server.host()
    with pytest.raises(ShellNotQuiet, match="prints something") as raised:
        host.run(["true"])
    assert "bashrc" in raised.value.hint
    assert "\033" not in raised.value.message
    host.close()


@pytest.mark.parametrize("side", ["source", "recovery"])
def test_one_such_shell_keeps_no_other_host_from_being_looked_at(
    ssh_server: SSHServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, side: str
) -> None:
    """And it is one finding: what a survey of the source fails with is the same cause."""
    monkeypatch.setattr(Session, "greeting", "echo Welcome; ")
    site, seen = local_rehearsal(tmp_path, fresh=True), Inspection()
    domain = site.source if side == "source" else site.recovery
    noisy = ssh_server.host()
    noisy.join(domain.name)

    def found() -> list[Finding]:
        return [item for item in seen.all if item.subject == f"{domain.name}/box"]

    domain.hosts.insert(0, noisy)
    inspect_hosts(site, [], seen)
    assert site.claimed == {"east/db1", "west/db1"}
    (item,) = found()
    assert item.id == "host-unreachable"
    assert "Welcome" in item.evidence
    assert "bashrc" in item.remedy
    with pytest.raises(ShellNotQuiet) as raised:
        noisy.run(["true"])
    seen.leave_to(raised.value)
    assert found() == []
    (told,) = diagnose(raised.value, "preflight", "east")
    assert told.subject == item.subject
    assert told.id == ("backup-failed" if side == "source" else "host-unreachable")
    noisy.close()


def test_a_shell_of_another_kind_is_said_to(
    ssh_server: SSHServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """csh has no `export`, and runs the rest of the line: in the account's own language."""
    monkeypatch.setattr(Session, "greeting", "alias export=false\n")
    host = ssh_server.host()
    with pytest.raises(ShellNotQuiet) as raised:
        host.run(["true"])
    assert "POSIX" in raised.value.hint
    host.close()


def test_what_a_shell_prints_as_an_error_is_none_of_a_tools_answer(
    ssh_server: SSHServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "greeting", "echo Welcome >&2; ")
    host = ssh_server.host()
    assert host.run(["echo", "hello"]).text == "hello"
    host.close()


def test_tools_speak_english(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the account speaks: some tools have words only."""
    for name, value in {"LC_ALL": "C.UTF-8", "LANGUAGE": "de", "LANG": "de_DE.UTF-8"}.items():
        monkeypatch.setenv(name, value)
        if not isinstance(host, LocalHost):
            monkeypatch.setattr(Session, "greeting", f"export {name}={value}; ")
    done = host.run(["sh", "-c", 'echo "$LC_ALL $LANGUAGE"'])
    assert done.text == "C"
