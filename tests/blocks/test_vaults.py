"""A vault on a host, over SSH and here."""

from pathlib import Path

import pytest

from blocks.errors import FarsideError
from blocks.evidence.uses import new_ledger
from blocks.hosts import Host
from blocks.processes import CommandFailed
from blocks.vaults import HostVault, SecretMissing

SECRET = "AGE-SECRET-KEY-1EXAMPLE"


@pytest.fixture
def vault(host: Host, tmp_path: Path) -> HostVault:
    (tmp_path / "farside-age-identity").write_text(SECRET + "\n")
    (tmp_path / "postgres-password").write_text("päss word")
    (tmp_path / "binary").write_bytes(b"\xff" + SECRET.encode())
    (tmp_path / ".hidden").write_text("x")
    return HostVault(host=host, directory=str(tmp_path))


def test_names(vault: HostVault) -> None:
    assert vault.names() == ["binary", "farside-age-identity", "postgres-password"]


def test_read(vault: HostVault) -> None:
    vault.join("west")
    with new_ledger() as uses:
        secret = vault.read("farside-age-identity")
    assert secret.get_secret_value() == SECRET
    assert vault.read("postgres-password").get_secret_value() == "päss word"
    noted = [(use.kind, use.name, use.domain) for use in uses.uses()]
    assert ("key", "farside-age-identity", "west") in noted
    assert SECRET not in f"{secret!r} {vault!r} {noted}"


@pytest.mark.parametrize("name", ["nothing", "", "../west/key", ".hidden", "a/b", "a\0b"])
def test_no_such_secret(vault: HostVault, name: str) -> None:
    with pytest.raises(SecretMissing, match="put it there"):
        vault.read(name)


def test_what_is_no_text_is_not_shown(vault: HostVault) -> None:
    with pytest.raises(FarsideError, match="binary is not text") as caught:
        vault.read("binary")
    assert caught.value.__cause__ is None
    assert SECRET not in str(caught.value)


def test_no_such_directory(host: Host, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="No such file"):
        HostVault(host=host, directory=str(tmp_path / "nothing")).names()
