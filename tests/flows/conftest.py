"""A real lab that is kept up, one Prefect server, and rehearsals run as an operator runs them."""

import copy
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks.evidence.record import Record
from blocks.plan import load_plan
from blocks.sets import unfinished
from deployments import lab
from deployments.lab.drills import Ground
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

    def end(self, number: signal.Signals | None = None, patience: float = PATIENCE) -> Outcome:
        """Send a signal, wait for the end."""
        if number is not None:
            self.process.send_signal(number)
        try:
            out, err = self.process.communicate(timeout=patience)
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
    def ground(self) -> Ground:
        """The lab, to be broken."""
        return Ground(self.places, self.folder)

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

    def sweep(self, plan: str | None = None) -> Outcome:
        """`python -m flows.sweep`, of a plan of the lab, or of this test's."""
        return self.start(plan or str(self.plan()), module="flows.sweep").end()

    def left(self) -> list[str]:
        """What is there that was not there before any rehearsal; asked without farside's help."""
        if not lab.is_up(self.places.root):
            return ["the lab is not up: the fence was not lifted"]
        plan, ground = load_plan(self.plan()), self.ground
        found = ground.left()
        for domain in (plan.source, plan.recovery):
            found += [f"{domain.name} {id}" for id in unfinished(domain.store, "postgres")]
        return found


def newest_record(results: Path) -> Record | None:
    found = sorted(results.glob("r*.json"))
    return Record.from_json(found[-1].read_text()) if found else None


@pytest.fixture(scope="package")
def prefect_home(open_directory: Path) -> Path:
    """Where the Prefect server keeps its database."""
    return Path(tempfile.mkdtemp(prefix="prefect-", dir=open_directory))


@pytest.fixture(scope="package")
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


@pytest.fixture(scope="package")
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
