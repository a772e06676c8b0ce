"""A real lab that is kept up, one Prefect server, and rehearsals run as an operator runs them."""

import copy
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import yaml

from blocks.evidence.record import Record
from blocks.plan import load_plan
from blocks.sets import unfinished
from deployments import lab
from deployments.lab.places import Places

CHECKOUT = Path(lab.__file__).parents[2]
PATIENCE = 180.0
"""Seconds for one rehearsal of a small database, on a busy machine."""

Change = Callable[[Any], None]
"""Breaks a plan: told its document, alters it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operator is left with when a command has ended."""

    code: int
    out: str
    err: str
    record: Record | None

    @property
    def text(self) -> str:
        """All that was printed, blanks and line breaks made one: the summary is wrapped."""
        return " ".join(f"{self.out} {self.err}".split())

    @property
    def findings(self) -> list[str]:
        """Ids of the findings in the record."""
        assert self.record is not None, self.text
        return [item.id for item in self.record.findings]

    def said(self, id: str) -> str:
        """Subject, evidence and remedy of a finding; it must be there."""
        assert self.record is not None, self.text
        for item in self.record.findings:
            if item.id == id:
                return f"{item.subject} | {item.evidence} | {item.remedy}"
        raise AssertionError(f"no finding {id}: {self.record.findings}")


@dataclass(slots=True)
class Running:
    """A command that runs; what it says is gathered line by line."""

    process: "subprocess.Popen[str]"
    results: Path
    said: list[str] = field(default_factory=list)

    def until(self, text: str) -> None:
        """Wait for a line on standard error that begins with `text`."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if line.startswith(text):
                return
        raise AssertionError(f"never said {text!r}: {''.join(self.said)}")

    def end(self, number: signal.Signals | None = None) -> Outcome:
        """Send a signal, wait for the end."""
        if number is not None:
            self.process.send_signal(number)
        try:
            out, err = self.process.communicate(timeout=PATIENCE)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        code = self.process.returncode
        return Outcome(code, out, "".join(self.said) + err, newest_record(self.results))


@dataclass(frozen=True, slots=True)
class World:
    """A lab, and a place for the plans and records of one test."""

    places: Places
    api: str
    folder: Path

    @property
    def document(self) -> Any:
        """The lab's plan, as a document."""
        return yaml.safe_load(lab.plan_path(self.places.root, "postgres").read_text())

    @property
    def results(self) -> Path:
        return self.folder / "rehearsals"

    @property
    def data(self) -> Path:
        """Where the service is restored."""
        return Path(self.document["engine"]["target"]["data_dir"])

    @property
    def sets(self) -> Path:
        """The sets in west's store, as files."""
        return self.places.store("west") / "farside" / "sets" / "postgres"

    def plan(self, *changes: Change) -> Path:
        """A copy of the plan with something wrong in it."""
        document = copy.deepcopy(self.document)
        for change in changes:
            change(document)
        path = self.folder / "plan.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "FARSIDE_"))}
        return kept | {
            "FARSIDE_LAB": str(self.places.root),
            "PREFECT_API_URL": self.api,
            "PREFECT_HOME": str(self.folder / "prefect"),
        }

    def start(self, *words: str, module: str = "flows.rehearse") -> Running:
        """Start a command as an operator does."""
        if module == "flows.rehearse":
            words = (*words, "--results", str(self.results))
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            cwd=CHECKOUT,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return Running(process, self.results)

    def rehearse(self, *changes: Change, select: str = "latest", rto: str = "1h") -> Outcome:
        """Rehearse the plan, changed; by default with the newest set that is in west.

        Objectives are wide: that set grows older with every test, and the machine may be busy.
        """
        words = ("--select", select, "--rto", rto, "--rpo", "24h")
        return self.start(str(self.plan(*changes)), *words).end()

    @contextmanager
    def stored(self, name: str, change: Callable[[bytes], bytes | None]) -> Iterator[None]:
        """Have an object of the newest set in west's store changed (None: removed), then whole.

        Through the store: what is done to its files behind its back, it may not notice.
        """
        store = load_plan(self.plan()).recovery.store
        key = f"sets/postgres/{max(path.name for path in self.sets.iterdir())}/{name}"
        whole = store.get(key)
        changed = change(whole)
        if changed is None:
            store.remove([key])
        else:
            store.put(key, changed)
        try:
            yield
        finally:
            store.put(key, whole)

    @contextmanager
    def secret(self, name: str, text: str | None, domain: str = "west") -> Iterator[None]:
        """Have another text (None: nothing) under a secret's name in a domain's vault."""
        path = self.places.secrets(domain) / name
        whole, of = path.read_bytes(), path.stat()
        path.unlink()
        try:
            if text is not None:
                _write(path, f"{text}\n".encode(), of)
            yield
        finally:
            path.unlink(missing_ok=True)
            _write(path, whole, of)

    def sweep(self) -> Outcome:
        """`python -m flows.sweep`."""
        return self.start(str(self.plan()), module="flows.sweep").end()

    def left(self) -> list[str]:
        """What is there that was not there before any rehearsal; asked without farside's help."""
        found = [str(path) for path in self.places.root.glob("*/hosts/*/farside/*")]
        for directory in (self.data, self.data.with_name("tablespaces")):
            found += [str(path) for path in directory.glob("*")][:3]
        found += _processes(self.places.root)
        if not lab.is_up(self.places.root):
            return [*found, "the lab is not up: the fence was not lifted"]
        found += [f"slot {name}" for name in self.slots()]
        plan = load_plan(self.plan())
        for domain in (plan.source, plan.recovery):
            found += [f"upload {item.key}" for item in domain.store.uploads("sets/")]
            found += [f"{domain.name} {id}" for id in unfinished(domain.store, "postgres")]
        return found

    def slots(self) -> list[str]:
        """Replication slots that rehearsals made in the source."""
        server = self.document["engine"]["source"]
        password = (self.places.secrets("east") / server["password"]).read_text().strip()
        with psycopg.connect(
            host=server["address"],
            port=server["port"],
            user="postgres",
            password=password,
            dbname="postgres",
        ) as connection:
            rows = connection.execute(
                "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'farside%'"
            ).fetchall()
        return [name for (name,) in rows]


def _write(path: Path, data: bytes, like: os.stat_result) -> None:
    path.write_bytes(data)
    path.chmod(like.st_mode & 0o7777)
    os.chown(path, like.st_uid, like.st_gid)


def newest_record(results: Path) -> Record | None:
    found = sorted(results.glob("r*.json"))
    return Record.from_json(found[-1].read_text()) if found else None


def _processes(root: Path) -> list[str]:
    """Processes of this lab's hosts that a rehearsal started: helpers, servers, tools."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            places = f"{line} {process.cwd()}"
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if str(root) in places and ("/farside/r2" in places or "/recovered/" in places):
            found.append(f"{process.pid}: {line}")
    return found


@pytest.fixture(scope="session")
def open_directory() -> Iterator[Path]:
    """A directory that the lab's services may pass through; pytest's own are closed."""
    directory = Path(tempfile.mkdtemp(prefix="farside-tests-", dir="/var/tmp"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_home(open_directory: Path) -> Path:
    """Where the Prefect server keeps its database."""
    home = open_directory / "prefect"
    home.mkdir(mode=0o700)
    return home


@pytest.fixture(scope="session")
def prefect_server(prefect_home: Path) -> Iterator[Callable[[], str]]:
    """One server for all rehearsals; it starts while the lab comes up. Called, it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    words = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (prefect_home / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def ready() -> str:
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up and server.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5).close()
            except OSError:
                time.sleep(0.2)
            else:
                return f"http://127.0.0.1:{port}/api"
        raise AssertionError((prefect_home / "log").read_text()[-2000:])

    yield ready
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@pytest.fixture(scope="session")
def shared(open_directory: Path, prefect_server: Callable[[], str]) -> Iterator[tuple[Places, str]]:
    """A lab that is up and has a set in west's store, and a Prefect server."""
    places = Places.at(open_directory / "lab")
    lab.up(places.root, scale=1)
    api = prefect_server()
    try:
        first = World(places, api, open_directory)
        outcome = first.rehearse(select="fresh")
        assert outcome.code == 0, outcome.text
        yield places, api
    finally:
        lab.down(places.root)


@pytest.fixture
def world(shared: tuple[Places, str], tmp_path: Path) -> World:
    """The shared lab, whole, with a folder of this test's own."""
    places, api = shared
    if not lab.is_up(places.root):
        lab.up(places.root)
    return World(places, api, tmp_path)
