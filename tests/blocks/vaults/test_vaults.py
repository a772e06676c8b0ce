"""A vault on a host, over SSH and here."""

from pathlib import Path

import pytest

from blocks.errors import FarsideError
from blocks.evidence.uses import new_ledger
from blocks.hosts.host import Host
from blocks.hosts.process import CommandFailed
from blocks.vaults.host import HostVault
from blocks.vaults.vault import SecretMissing

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


@pytest.mark.parametrize(
    ("beginning", "by"),
    [
        (b"age-encryption.org/v1\n-> scrypt abc 18\n", "age"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl", "age"),
        (b"-----BEGIN PGP MESSAGE-----\n", "GnuPG"),
        (b"$ANSIBLE_VAULT;1.1;AES256\n", "Ansible Vault"),
        (b"Salted__\x00\x01\xff", "OpenSSL"),
        (b"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n", "OpenSSL"),
        (b'{\n\t"data": "ENC[AES256_GCM,data:p673w==,type:str]",\n\t"sops": {', "SOPS"),
        (b"password: ENC[AES256_GCM,data:p673w==,type:str]\nsops:\n", "SOPS"),
        (b'{"sops":{"version":"3.9.0"}}', "SOPS"),
        (b"vault:v1:8SDd3WHDOjf7mq69CyCqYjBXAiQQAVZRkFM13ok481zo", "HashiCorp Vault"),
        (b"#  Serial: 1\n" + b"# x\n" * 50 + b"AGE-PLUGIN-YUBIKEY-1Q\n", "a hardware token"),
        (b"AGE-SECRET-KEY-1QQQ\n", ""),
        (b"of the vault:v1: a password", ""),
        (b"", ""),
        (b"# created: 2026-01-01\nAGE-SECRET-KEY-1QQQ\n", ""),
    ],
)
def test_what_is_locked_itself(host: Host, tmp_path: Path, beginning: bytes, by: str) -> None:
    (tmp_path / "identity").write_bytes(beginning)
    vault = HostVault(host=host, directory=str(tmp_path))
    assert vault.locked("identity") == by
    assert vault.locked("no-such") == ""
    unlocking = HostVault(host=host, directory=str(tmp_path), read_argv=["cat"])
    assert unlocking.locked("identity") == ""
