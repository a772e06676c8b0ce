"""What an account's shell and language do to the commands that run there."""

import pytest

from blocks.hosts import Host, LocalHost, ShellNotQuiet
from tests.blocks.conftest import SSHServer, _Session


@pytest.mark.parametrize("greeting", ["echo Welcome; ", "printf '\\033[1mhi'; ", "exit 0; "])
def test_a_shell_that_prints_something_is_said_to(
    ssh_server: SSHServer, monkeypatch: pytest.MonkeyPatch, greeting: str
) -> None:
    """Its line would be taken for the first that a tool says."""
    monkeypatch.setattr(_Session, "greeting", greeting)
    host = ssh_server.host()
    with pytest.raises(ShellNotQuiet, match="prints something") as raised:
        host.run(["true"])
    assert "bashrc" in raised.value.hint
    assert "\033" not in raised.value.message
    host.close()


def test_a_shell_of_another_kind_is_said_to(
    ssh_server: SSHServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """csh has no `export`, and runs the rest of the line: in the account's own language."""
    monkeypatch.setattr(_Session, "greeting", "alias export=false\n")
    host = ssh_server.host()
    with pytest.raises(ShellNotQuiet) as raised:
        host.run(["true"])
    assert "POSIX" in raised.value.hint
    host.close()


def test_what_a_shell_prints_as_an_error_is_none_of_a_tools_answer(
    ssh_server: SSHServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Session, "greeting", "echo Welcome >&2; ")
    host = ssh_server.host()
    assert host.run(["echo", "hello"]).text == "hello"
    host.close()


def test_tools_speak_english(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the account speaks: some tools have words only."""
    for name, value in {"LC_ALL": "C.UTF-8", "LANGUAGE": "de", "LANG": "de_DE.UTF-8"}.items():
        monkeypatch.setenv(name, value)
        if not isinstance(host, LocalHost):
            monkeypatch.setattr(_Session, "greeting", f"export {name}={value}; ")
    done = host.run(["sh", "-c", 'echo "$LC_ALL $LANGUAGE"'])
    assert done.text == "C"
