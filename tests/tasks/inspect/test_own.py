"""What farside's own machine runs with, and what of it is the source's."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blocks.domain import FailureDomain
from blocks.fences.command import CommandFence
from blocks.hosts.ssh import SSHHost
from blocks.stores.s3 import S3Store
from tasks.inspect import own


def domain(name: str, root: Path, **more: Any) -> FailureDomain:
    key = root / f"{name}.key"
    key.touch()
    return FailureDomain(
        name=name,
        names=[f"{name}.example"],
        paths=[str(root / name)],
        hosts=[SSHHost(name="db1", address=f"db1.{name}.example", user="x", identity_file=key)],
        store=S3Store(endpoint=f"https://s3.{name}.example", bucket="b", **more),
    )


def rehearsal(root: Path, fence: CommandFence | None = None, **store: Any) -> Any:
    return SimpleNamespace(
        source=domain("east", root),
        recovery=domain("west", root, **store),
        options=SimpleNamespace(results=root / "results"),
        plan=SimpleNamespace(fence=fence or CommandFence(raise_argv=["true"], lift_argv=["true"])),
    )


def script(path: Path, line: str) -> Path:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


def test_what_a_credential_process_runs_is_read(tmp_path: Path) -> None:
    program = script(tmp_path / "credentials", "curl -s https://sts.east.example/token")
    profiles = tmp_path / "profiles"
    profiles.write_text(f"[backup]\ncredential_process = {program} --json\n")
    site = rehearsal(tmp_path, credentials_file=profiles, profile="backup")
    (found,) = own.settings_in_use(site)
    assert (found.id, found.subject) == ("credential-from-source", str(profiles))
    assert found.evidence == f"{program}: its line 2 names sts.east.example"


def test_the_texts_of_a_fences_commands_may_not_lie_in_the_source(tmp_path: Path) -> None:
    """They name its addresses, for these are what they shut off."""
    program = script(tmp_path / "cut", f"ssh db1.east.example; . {tmp_path}/east/lib.sh")
    fence = CommandFence(raise_argv=["sh", str(program)], lift_argv=["true"])
    (found,) = own.files_in_use(rehearsal(tmp_path, fence))
    assert (found.id, found.subject) == ("control-plane-in-source", str(program))
    assert found.evidence == f"the fence's commands: it names {tmp_path}/east"


@pytest.mark.parametrize("direct", [True, False])
def test_a_fence_that_the_source_controls(tmp_path: Path, direct: bool) -> None:
    """To call there is another thing than to shut an address off."""
    url = "SDN=https://sdn.${ZONE}:8443/v1" if not direct else "https://sdn.east.example:8443/v1"
    lines = ("ZONE=east.example", "# see https://wiki.east.example/", url, "nft add 10.1.0.0/16")
    program = script(tmp_path / "cut", "\n".join(lines))
    argv = ["curl", url] if direct else [str(program)]
    fence = CommandFence(raise_argv=argv, lift_argv=["true", "db1.east.example"])
    (found,) = own.files_in_use(rehearsal(tmp_path, fence))
    assert found.id == "control-plane-in-source"
    assert found.subject == ("plan fence.raise_argv" if direct else str(program))
    assert found.evidence.endswith("names sdn.east.example")


def test_a_key_file_that_is_a_link_into_the_source(tmp_path: Path) -> None:
    """By it a recovery host is entered: with the source, it is lost."""
    (tmp_path / "east").mkdir()
    (tmp_path / "west.key").symlink_to(tmp_path / "east" / "operator.key")
    (found,) = own.files_in_use(rehearsal(tmp_path))
    assert (found.id, found.subject) == ("credential-from-source", f"{tmp_path}/west.key")
    assert found.evidence.startswith("db1's identity_file: ")
    assert f"{tmp_path}/east/operator.key" in found.evidence


def test_modules_in_a_directory_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "east/modules").mkdir(parents=True)
    (tmp_path / "modules").symlink_to(tmp_path / "east/modules")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "modules")])
    (found,) = own.files_in_use(rehearsal(tmp_path))
    assert (found.id, found.subject) == ("control-plane-in-source", str(tmp_path / "modules"))
