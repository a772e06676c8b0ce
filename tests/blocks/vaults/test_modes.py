"""Secrets are files: who else may read or replace them is seen, and none is read for it."""

import os
from pathlib import Path

import pytest

from blocks.hosts.host import Host
from blocks.hosts.local import LocalHost
from blocks.vaults.host import HostVault


def vault(host: Host, folder: Path) -> HostVault:
    return HostVault(host=host, directory=str(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "secrets"
    place.mkdir(mode=0o700)
    for name in ("identity", "identity.pub", ".hidden"):
        (place / name).write_text("x")
        (place / name).chmod(0o600)
    return place


def test_private_files_are_fine(folder: Path) -> None:
    (folder / "identity").chmod(0o640)  # a group that the site has chosen
    (folder / "identity.pub").chmod(0o644)
    assert vault(LocalHost(name="v"), folder).exposed() == {}


@pytest.mark.parametrize(
    ("name", "mode"),
    [("identity", 0o644), ("identity", 0o660), ("identity", 0o602), ("identity.pub", 0o646)],
)
def test_what_others_may_read_or_replace(folder: Path, name: str, mode: int) -> None:
    (folder / name).chmod(mode)
    assert vault(LocalHost(name="v"), folder).exposed() == {name: f"its mode is {mode:o}"}


def test_a_directory_in_which_others_may_replace_files(folder: Path) -> None:
    folder.chmod(0o777)
    found = vault(LocalHost(name="v"), folder).exposed()
    assert found == {"the directory": "its mode is 777"}


def test_a_secret_of_another_account(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(folder / "identity", 12345, 12345)
    found = vault(LocalHost(name="v"), folder).exposed()
    assert found == {"identity": "it belongs to the account with id 12345"}
