"""A rehearsal as an operator runs it: the whole way, the command line, where secrets are not."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from blocks.artifact.signing import public_key_of
from blocks.errors import PermanentError
from blocks.evidence.record import CheckStatus, Record, StageState, Verdict
from blocks.evidence.signature import load_signed
from deployments import lab
from flows import command
from flows.rehearse import __main__ as command_line
from flows.rehearse import rehearse
from flows.sweep import sweep
from tests import mechanisms
from tests.flows.conftest import CHECKOUT, PATIENCE, World
from tests.servers import PrefectServer


@mechanisms.WHOLE
def test_whole_way_with_nothing_but_the_command(open_directory: Path, world: World) -> None:
    """No plan and no lab: the lab comes and goes with the rehearsal."""
    root = open_directory / "own"
    words = ["--scale", "1", "--json", "--rto", "1h", "--rpo", "1m", "--wan", "20MB/s"]
    done = subprocess.run(
        [sys.executable, "-m", "flows.rehearse", *words, "--results", str(world.results)],
        cwd=CHECKOUT,
        env=world.environment() | {"FARSIDE_LAB": str(root)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not root.exists(), "the lab that it brought up is down again"
    record = Record.from_json(done.stdout)
    assert record == Record.from_json(next(world.results.glob("r*.json")).read_text())
    assert record.verdict is Verdict.VERIFIED
    assert "VERIFIED" in done.stderr
    assert [stage.state for stage in record.stages] == [StageState.COMPLETED] * 8
    assert {check.status for check in record.checks} == {CheckStatus.PASSED}
    assert record.findings == ()
    assert record.runbook
    assert None not in (record.rta_seconds, record.rpa_seconds, record.transactions_lost)
    assert record.declared_at is not None
    late = [use for use in record.uses if use.stage in ("key fetch", "restore", "verify")]
    assert late
    assert "east" not in {use.domain for use in late}


@mechanisms.WHOLE
def test_record_is_signed_and_kept_where_the_source_is_not(world: World) -> None:
    """That of the first rehearsal in the shared lab."""
    (path,) = (world.places.root.parent / "first" / "rehearsals").glob("r*.json")
    key = (world.places.secrets("west") / "record-signing-key").read_text()
    assert load_signed(path, public_key_of(key)) == Record.from_json(path.read_text())
    kept = world.places.store("west") / "farside" / "records" / "postgres" / path.name
    assert kept.read_bytes() == path.read_bytes()


@mechanisms.WHOLE
def test_kept_service_is_there_until_it_is_swept(world: World) -> None:
    running = world.start(
        str(world.plan()), "--select", "fresh", "--rto", "1h", "--rpo", "24h", "--keep"
    )
    outcome = running.end()
    assert outcome.code == 0, outcome.text
    assert "kept until" in outcome.text
    assert "psql -h" in outcome.text
    assert (world.data / "postmaster.pid").exists()
    assert not lab.is_up(world.places.root), "its fence is kept, too"
    plain = world.start(str(world.plan()), module="flows.sweep").end()
    assert plain.code == 0, plain.text
    assert (world.data / "postmaster.pid").exists()
    lab.up(world.places.root)  # a site's source is there, behind the fence
    another = world.rehearse(select="fresh")
    assert another.code == 1
    assert set(another.findings) == {"target-occupied", "port-taken"}  # and no leftovers
    swept = world.start(str(world.plan()), "--all", module="flows.sweep").end()
    assert swept.code == 0, swept.text
    assert world.left() == []


# -- where secrets are not ------------------------------------------------------------------------


class Watch:
    """Looks for texts in the command lines and environments of all processes."""

    def __init__(self, secrets: dict[str, bytes]) -> None:
        self.secrets = secrets
        self.found: set[str] = set()
        self.looked = 0

    def look(self) -> None:
        """Look once."""
        for place in ("cmdline", "environ"):
            for path in Path("/proc").glob(f"[0-9]*/{place}"):
                with suppress(OSError):
                    self.note(path.read_bytes(), place)
        self.looked += 1

    def note(self, data: bytes, place: object) -> None:
        """Note the secrets in some data."""
        self.found |= {f"{name} in {place}" for name, text in self.secrets.items() if text in data}

    @contextmanager
    def looking(self) -> Iterator[None]:
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(0.1):
                self.look()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def search(self, directory: Path, *not_in: str) -> None:
        """Look into all files of a tree, but for directories of these names."""
        for top, inner, files in os.walk(directory):
            inner[:] = [name for name in inner if name not in not_in]
            for name in files:
                path = Path(top, name)
                with suppress(OSError):  # a lab that runs makes files and removes them
                    self.note(path.read_bytes(), path)


@mechanisms.WHOLE
def test_secrets_are_nowhere_but_in_the_vaults(world: World, prefect: PrefectServer) -> None:
    """The private key, and all else that the vaults hold, during a rehearsal and after it."""
    vaults = {domain: world.places.secrets(domain) for domain in ("east", "west")}
    secrets = {
        f"{domain} {path.name}": path.read_bytes().strip()
        for domain, vault in vaults.items()
        for path in vault.iterdir()
        if path.suffix != ".pub"
    }
    ours = {name: text for name, text in secrets.items() if "password" not in name}
    assert len(ours) == 6
    assert all(len(text) > 40 for text in ours.values())
    watch = Watch(ours)
    with watch.looking():
        running = world.start(
            str(world.plan()), "--select", "fresh", "--rto", "1h", "--rpo", "1h", "--verbose"
        )
        outcome = running.end()
    assert outcome.code == 0, outcome.text
    assert watch.looked > 20
    watch.search(world.folder)
    watch.search(prefect.home)
    for domain in vaults:
        watch.search(world.places.tree(domain), "secrets", "runtime")
    assert watch.found == set()
    printed = f"{outcome.out}{outcome.err}".encode()
    assert [name for name, text in secrets.items() if text in printed] == []


# -- the command line -----------------------------------------------------------------------------


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a command began to do that a mistake in it must prevent."""
    found: list[str] = []
    monkeypatch.setattr(command_line, "rehearse", lambda **_given: found.append("rehearsed"))
    monkeypatch.setattr(lab, "up", lambda *_given, **_more: found.append("lab"))
    monkeypatch.setattr(command_line, "temporary_server", lambda *_given: found.append("server"))
    return found


def said(monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: str) -> tuple[int, str]:
    """Exit code, and what a command printed on standard error."""
    monkeypatch.setattr(sys, "argv", ["rehearse", *words])
    code = command.outcome(command_line.app, "rehearse")
    return code, str(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--no-such-option"], "No such option: --no-such-option"),
        (["--rto", "soon"], "a duration is written like 90s, 15m or 1h30m"),
        (["--rpo", "10"], "a duration is written like 90s, 15m or 1h30m"),
        (["--wan", "fast"], "a rate is written like 50Mbit/s or 20MB/s"),
        (["--wan", "0Mbit/s"], "is above zero"),
        (["--scale", "0"], "Invalid value for '--scale'"),
        (["--select", "the newest"], "fresh, latest, oldest, random, or the id of a set"),
        (["nowhere/plan.yaml"], "nowhere/plan.yaml"),
        (["one", "two"], "unexpected extra argument"),
        (["--results", "pyproject.toml"], "is a file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage(
    words: list[str],
    says: str,
    touched: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(CHECKOUT)
    code, err = said(monkeypatch, capsys, *words)
    assert code == 64
    assert says in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 3
    assert touched == []


def test_bad_setting(
    touched: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FARSIDE_LEASE_SECONDS", "two minutes")
    code, err = said(monkeypatch, capsys)
    assert (code, touched) == (64, [])
    assert (
        err == "FARSIDE_LEASE_SECONDS must be a number of seconds above zero, not 'two minutes'\n"
    )


@pytest.mark.parametrize("name", ["FARSIDE_LEASE_SECONDS", "FARSIDE_TEARDOWN_SECONDS"])
def test_bad_setting_of_a_worker(
    name: str, touched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No command has looked at it there: the state of the flow run is all that says so."""
    monkeypatch.setenv(name, "two minutes")
    for flow in (rehearse, sweep):
        with pytest.raises(PermanentError, match=f"^{name} must be a number of seconds"):
            flow.fn("plan.yaml")
    assert touched == []


def _rto(document: Any) -> None:
    document["objectives"]["rto"] = "an hour"


def _unknown(document: Any) -> None:
    document["objectives"]["rtt"] = "1h"


def _missing(document: Any) -> None:
    del document["keys"]["identity"]


def _host(document: Any) -> None:
    document["engine"]["target"]["host"] = "db9"


def _kind(document: Any) -> None:
    document["engine"]["kind"] = "paradox"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_rto, r"plan.yaml:\d+: objectives.rto: .*a duration is written like"),
        (_unknown, r"plan.yaml:\d+: objectives.rtt: "),
        (_missing, r"plan.yaml:\d+: keys.identity: "),
        (_host, r"'db9' is not a host of west \(db1, db2, db3\)"),
        (_kind, r"kind must be one of: .*postgres"),
    ],
)
def test_bad_plan(
    change: Any,
    says: str,
    world: World,
    touched: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, err = said(monkeypatch, capsys, str(world.plan(change)))
    assert code == 64
    assert re.search(says, err)
    assert "Traceback" not in err
    assert touched == []


@pytest.mark.parametrize("text", ["", "just words", "a: [", "\x00", "- a list"])
def test_plan_that_is_none(
    text: str,
    tmp_path: Path,
    touched: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    code, err = said(monkeypatch, capsys, str(path))
    assert code == 64
    assert str(path) in err
    assert "Traceback" not in err
    assert touched == []
