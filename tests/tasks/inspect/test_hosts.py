"""What is asked of a host before anything runs there."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blocks.agent.protocol.results import DirectoryFacts
from blocks.domain import FailureDomain
from blocks.engines.engine import Requirements
from blocks.evidence.catalogue import Severity
from blocks.hosts.local import LocalHost
from blocks.hosts.ssh import SSHHost
from blocks.stores.s3 import S3Store
from blocks.vaults.host import HostVault
from tasks.inspect import hosts
from tasks.inspect.hosts import _of_target, _old_python
from tasks.inspect.inspection import Inspection
from tests.tasks.sites import local_rehearsal


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo Welcome; echo farside-python 3 11", None),
        ("echo farside-python 3 14", None),
        ("echo farside-python 3 9", "is Python 3.9"),
        ("echo farside-python 2 7", "is Python 2.7"),
        ("echo 'ImportError: no module' >&2; exit 1", "does not run: ImportError: no module"),
        ("exit 3", "does not run: exit 3"),
        (
            "echo farside-python 3 11; echo 'ModuleNotFoundError: No module named x' >&2; exit 1",
            "cannot import its own library: ModuleNotFoundError: No module named x",
        ),
    ],
)
def test_a_python_that_is_too_old_or_none(tmp_path: Path, script: str, problem: str | None) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    found = _old_python(LocalHost(python=str(python)))
    assert found is None if problem is None else found is not None and problem in found


def test_no_python_at_all() -> None:
    found = _old_python(LocalHost(python="/no/such/python3"))
    assert found is not None
    assert "does not run" in found


@pytest.mark.parametrize("module", ["raise ImportError('_ctypes')", "field = None", "def"])
def test_a_python_whose_own_library_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """It starts, and says its version: what farside brings would not."""
    assert _old_python(LocalHost()) is None
    (tmp_path / "dataclasses.py").write_text(f"{module}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = _old_python(LocalHost())
    assert found is not None
    assert "cannot import its own library: " in found
    assert "Error: " in found


LOG = "/srv/data.farside-log"
NEEDS = Requirements(
    host="db1",
    programs=(),
    directories={"/srv/data": 70, LOG: 40},
    ports=(),
    work_bytes=5,
    files=300,
    fields={LOG: "log_dir of engine.target"},
)


def directory(path: str, device: int = 1, free: int = 100, writable: bool = True) -> DirectoryFacts:
    return DirectoryFacts(
        path=path, exists=False, empty=True, writable=writable, free_bytes=free, device=device
    )


def found(*directories: DirectoryFacts) -> list[tuple[str, str, str, str]]:
    """What preflight says of a target's directories: id, subject, evidence, remedy."""
    facts = SimpleNamespace(
        directories=directories, modules={}, tools=(), ports=(), user="postgres"
    )
    host = SimpleNamespace(work_root="/work", name="db1")
    seen: Any = SimpleNamespace(where="west/db1", facts=facts, host=host)
    rehearsal: Any = None
    return [
        (item.id, item.subject, item.evidence, item.remedy)
        for item in _of_target(rehearsal, seen, NEEDS)
    ]


def test_directories_of_one_filesystem_share_its_space() -> None:
    data, log, work = directory("/srv/data"), directory(LOG), directory("/work", 2)
    ((finding_id, subject, evidence, _),) = found(data, log, work)
    assert (finding_id, subject) == ("disk-too-small", "west/db1 /srv/data")
    assert evidence == f"110 bytes needed, 100 free; {LOG} on the same filesystem included"
    assert found(data, directory(LOG, 3), work) == []


@pytest.mark.parametrize(("free", "fits"), [(300, True), (299, False), (None, True)])
def test_a_filesystem_with_room_for_few_files(free: int | None, fits: bool) -> None:
    """Of bytes it has enough; one whose inodes are made as they are needed has no limit."""
    data = replace(directory("/srv/data", free=1000), free_files=free)
    ids = [item[0] for item in found(data, directory(LOG, 3), directory("/work", 2))]
    assert ids == ([] if fits else ["disk-too-small"])


def test_a_place_for_the_log_that_is_none() -> None:
    data, work = directory("/srv/data"), directory("/work", 2)
    ((finding_id, subject, evidence, remedy),) = found(
        data, directory(LOG, 3, writable=False), work
    )
    assert (finding_id, subject) == ("target-occupied", f"west/db1 {LOG}")
    assert evidence == "postgres may not write there"
    assert "log_dir of engine.target" in remedy
    ((finding_id, subject, _, remedy),) = found(data, directory(LOG, 3, free=39), work)
    assert (finding_id, subject) == ("disk-too-small", f"west/db1 {LOG}")
    assert "log_dir of engine.target" in remedy


def machine(name: str, **more: Any) -> SSHHost:
    settings = {"address": f"{name}.west.example", "user": "x", "identity_file": Path("/k")}
    return SSHHost(name=name, **(settings | more))


@pytest.mark.parametrize(
    ("host", "looked_at"),
    [
        (machine("keys"), ["db1", "keys"]),
        (machine("db1"), ["db1"]),
        (machine("keys", address="db1.west.example", user="vault"), ["db1", "keys"]),
    ],
)
def test_the_vaults_machine_is_looked_at_by_the_account_that_reads_it(
    monkeypatch: pytest.MonkeyPatch, host: SSHHost, looked_at: list[str]
) -> None:
    vault = HostVault(host=host, directory="/srv/keys")
    store = S3Store(endpoint="https://s3.west.example", bucket="b")
    recovery = FailureDomain(name="west", hosts=[machine("db1")], vault=vault, store=store)
    seen: list[str] = []

    def look(_rehearsal: Any, _domain: Any, host: Any, _needs: Any) -> list[Any]:
        seen.append(host.name)
        return []

    monkeypatch.setattr(hosts, "_look", look)
    rehearsal: Any = SimpleNamespace(plan=SimpleNamespace(recovery=recovery), fresh=False)
    hosts.inspect_hosts(rehearsal, [], Inspection())
    assert sorted(seen) == looked_at


@pytest.mark.parametrize("apart", [False, True])
def test_a_key_that_is_a_link_into_the_source(tmp_path: Path, apart: bool) -> None:
    """Also on a machine that has nothing but the vault."""
    away = machine("db1", address="127.0.0.1", port=1).model_dump()
    site = local_rehearsal(tmp_path, hosts=[away]) if apart else local_rehearsal(tmp_path)
    (tmp_path / "east").mkdir()
    (tmp_path / "east" / "identity").touch()
    (tmp_path / "vault" / "identity").symlink_to(tmp_path / "east" / "identity")
    seen = Inspection()
    hosts.inspect_hosts(site, [], seen)
    (item,) = (item for item in seen.all if item.id == "storage-from-source")
    host = "local" if apart else "db1"
    assert item.subject == f"west/{host} {tmp_path}/vault/identity"
    assert item.severity is Severity.HIGH
    assert str(tmp_path / "east") in item.evidence


def test_a_vaults_machine_needs_no_python(tmp_path: Path) -> None:
    host = {"kind": "local", "name": "keys", "python": "/no/such/python3"}
    away = machine("db1", address="127.0.0.1", port=1).model_dump()
    vault = {"kind": "host", "host": host, "directory": str(tmp_path / "vault")}
    site = local_rehearsal(tmp_path, hosts=[away], vault=vault)
    seen = Inspection()
    hosts.inspect_hosts(site, [], seen)
    assert [item.subject for item in seen.all] == ["west/db1"]
    (text,) = seen.unseen
    assert text.startswith("where the vault on west/keys leads: /no/such/python3 does not run")


@pytest.mark.parametrize("fresh", [True, False])
def test_without_a_python_that_does_no_backup_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: bool
) -> None:
    """Of the hosts that take it and copy it. A retained set is there: the restore is blocked."""
    broken = tmp_path / "modules"
    broken.mkdir()
    (broken / "dataclasses.py").write_text("raise ImportError('_ctypes')\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    site = local_rehearsal(tmp_path, fresh=fresh)
    seen = Inspection()
    hosts.inspect_hosts(site, [NEEDS], seen)
    assert {item.id for item in seen.all} == {"tool-missing"}
    assert {item.severity for item in seen.all} == {Severity.CRITICAL}
    stopped = [item.subject for item in seen.stopping]
    assert stopped == (["west/db1", "east/db1"] if fresh else [])
    assert [item.subject for item in seen.blockers] == ([] if fresh else ["west/db1"])
    assert all("ImportError: _ctypes" in item.evidence for item in seen.all)
    assert not site.claimed
