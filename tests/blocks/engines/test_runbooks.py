"""Runbooks run in a shell: no text of a source or of a store becomes a command."""

import os
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from blocks.artifact.manifest import Manifest, SealedObject, Volume
from blocks.domain import FailureDomain
from blocks.engines.etcd import runbook as etcd
from blocks.engines.etcd.plan import TargetCluster
from blocks.engines.postgres import runbook as postgres
from blocks.engines.postgres.facts import SetFacts, read
from blocks.engines.postgres.rows import Tablespace
from blocks.evidence.record import RunbookStep
from blocks.hosts.local import LocalHost
from blocks.stores.s3 import S3Store
from tests.blocks.engines.test_pg_facts import FACTS, row

HOSTILE = [
    "$(touch PWNED)",
    "`touch PWNED`",
    "'; touch PWNED; '",
    '"; touch PWNED; "',
    "\ntouch PWNED\n",
    "END\ntouch PWNED\n",
    "-x; touch PWNED",
    "> PWNED",
    "${IFS}&touch${IFS}PWNED&",
]
STUBS = ("curl", "age", "zstd", "tar", "ln", "psql", "pg_ctl", "pg_verifybackup", "etcd", "etcdctl")


@pytest.fixture
def shell(tmp_path: Path) -> Any:
    """Runs a runbook where every program is a stub that does nothing and succeeds."""
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name in STUBS:
        (stubs / name).write_text("#!/bin/sh\nexit 0\n")
        (stubs / name).chmod(0o755)
    place = tmp_path / "cwd"
    place.mkdir()

    def run(steps: tuple[RunbookStep, ...], kind: str) -> None:
        script = "\n".join(line for step in steps for line in step.commands)
        environment = {
            "PATH": f"{stubs}:{os.environ['PATH']}",
            "TMPDIR": str(tmp_path),
            "BIN": str(stubs),
            "DATA": str(place / "data"),
            "SPACES": str(place / "spaces"),
            "STORE_LOGIN": "login",
            "IDENTITY": "identity",
        }
        subprocess.run(
            [kind, "-c", script], cwd=place, env=environment, capture_output=True, timeout=20
        )
        made = [path.name for path in place.rglob("*PWNED*") if path.name == "PWNED"]
        assert not made, script

    return run


KNOWN = read(SetFacts, FACTS)


def sealed(name: str, key: str) -> SealedObject:
    return SealedObject(name, 1, 1, (Volume(key, 1, ()),))


def manifest(facts: dict[str, Any], *objects: SealedObject, set_id: str = "r1") -> Manifest:
    now = datetime.now(UTC)
    return Manifest(
        set_id=set_id,
        rehearsal_id=set_id,
        plan="shop",
        engine="postgres",
        source="east",
        taken_at=now,
        completed_at=now,
        recipients=(),
        objects=objects,
        engine_facts=facts,
        farside_version="0",
    )


def store(region: str = "x") -> S3Store:
    return S3Store(bucket="b", region=region, endpoint="https://store.example")


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", ["sh", "bash"])
def test_postgres(shell: Any, text: str, kind: str) -> None:
    facts = replace(
        KNOWN,
        superuser=text,
        version=text,
        tablespaces=(Tablespace(oid=text, bytes=1),),
        settings=(row("max_connections", text), row("max_wal_senders", "10")),
    )
    objects = [sealed("base.tar.zst.age", text), sealed(f"{text}.tar.zst.age", text)]
    steps = postgres.commands(
        manifest({}, *objects, set_id=text),
        facts,
        {text: sealed("wal", text)},
        store(),
        bin_dir=text,
        data_dir=text,
        spaces_dir=text,
        where=text,
    )
    shell(steps, kind)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", ["sh", "bash"])
def test_etcd(shell: Any, text: str, kind: str) -> None:
    recovery = FailureDomain(name="west", hosts=[LocalHost(name="db1")], store=store())
    path = "/" + text.replace("\n", " ")  # no plan with a control character in a path is taken
    target = TargetCluster.model_validate(
        {
            "bin_dir": path,
            "ca_file": path,
            "password": "x",
            "members": [
                {
                    "host": "db1",
                    "address": "10.2.0.1",
                    "client_port": 1,
                    "peer_port": 2,
                    "data_dir": path,
                    "cert_file": path,
                    "key_file": path,
                }
            ],
        }
    )
    steps = etcd.commands(
        manifest({}, sealed("snapshot.db", text), set_id=text), text, recovery, target
    )
    shell(steps, kind)


def whole(file: str) -> SealedObject:
    """A file of the log, stored under its own name."""
    return sealed(f"wal/{file}.zst.age", f"wal/{file}.zst.age")


@pytest.mark.parametrize("kind", ["sh", "bash"])
def test_a_long_log_takes_few_lines(kind: str, tmp_path: Path) -> None:
    names = [
        f"{timeline:08X}{n // 256:08X}{n % 256:08X}"
        for timeline, first in ((1, 250), (10, 70_000))
        for n in range(first, first + 50_000)
    ]
    step = commands(KNOWN, {name: whole(name) for name in names})[1]
    assert len("\n".join(step.commands)) < 3000
    few = {name: whole(name) for name in (*names[:20], *names[-20:], "0000000A.history")}
    lines = [
        line
        for line in commands(KNOWN, few)[1].commands
        if ".wal" in line or line.startswith("segments")
    ]
    environment = {"PATH": os.environ["PATH"], "DATA": f"{tmp_path}/a b"}

    def run(unseal: str) -> int:
        head = f'set -eu; fetch() {{ echo "$1"; }}; unseal() {{ {unseal}; }}; mkdir -p "$DATA.wal"'
        return subprocess.run([kind, "-c", "\n".join([head, *lines])], env=environment).returncode

    assert run("cat") == 0
    fetched = {path.name: path.read_text().strip() for path in (tmp_path / "a b.wal").iterdir()}
    assert fetched == {name: item.name for name, item in few.items()}
    assert run("false") != 0, "a segment that cannot be opened ends it"


def commands(facts: SetFacts, log: dict[str, SealedObject]) -> tuple[RunbookStep, ...]:
    return postgres.commands(
        manifest(FACTS), facts, log, store(), bin_dir="b", data_dir="d", spaces_dir=None, where="w"
    )


@pytest.mark.parametrize("kind", ["sh", "bash"])
@pytest.mark.parametrize(
    "data", ["/srv/100%", "/srv/it's", '/srv/"', "/srv/$x", "/srv/`x`", "/a\\b"]
)
def test_a_directory_that_a_setting_cannot_hold(kind: str, data: str, tmp_path: Path) -> None:
    steps = postgres.commands(
        manifest(FACTS, set_id="s1"),
        KNOWN,
        {},
        store(),
        bin_dir="/bin",
        data_dir=data,
        spaces_dir=None,
        where="db1",
    )
    begin = "\n".join(steps[0].commands[:4])
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    ran = subprocess.run(
        [kind, "-c", begin], env=environment, capture_output=True, text=True, timeout=20
    )
    assert ran.returncode == 1
    assert "choose a DATA without" in ran.stderr


def test_limits_are_numbers_and_quoted() -> None:
    steps = commands(replace(KNOWN, settings=(row("max_connections", "300"),)), {})
    text = "\n".join(line for step in steps for line in step.commands)
    assert re.search(r"max_connections = '.{0,4}'?300", text)


def test_a_restored_superuser_calls_the_servers_own_functions() -> None:
    """By qualified names: a site may have its sessions find what users defined before those."""
    lines = [line for step in commands(KNOWN, {}) for line in step.commands]
    (asked,) = [line for line in lines if "SELECT" in line]
    assert "SELECT pg_catalog.now() AS" in asked
