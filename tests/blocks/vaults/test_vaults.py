"""What is a host vault's own. What every vault does is in `tests/conformance/test_vault.py`."""

from pathlib import Path

import pytest

from blocks.hosts.host import Host
from blocks.hosts.process import CommandFailed
from blocks.vaults.host import HostVault


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
