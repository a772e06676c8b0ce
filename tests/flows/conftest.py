"""A real lab that is kept up, one Prefect server, and rehearsals run as an operator runs them."""

import copy
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from blocks.evidence.record import Record
from blocks.plan.loading import load_plan
from blocks.repositories.farside.listing import set_ids, unfinished
from deployments import lab
from deployments.lab.drills import Ground
from deployments.lab.places import Places
from tests.servers import PrefectServer

CHECKOUT = Path(lab.__file__).parents[2]
_ID = re.compile(r"\br\d{8}-\d{6}-[0-9a-f]{6}\b")
PATIENCE = 400.0
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

    def said(self, finding_id: str) -> str:
        """Subject, evidence and remedy of a finding; it must be there."""
        assert self.record is not None, self.text
        for item in self.record.findings:
            if item.id == finding_id:
                return f"{item.subject} | {item.evidence} | {item.remedy}"
        raise AssertionError(f"no finding {finding_id}: {self.record.findings}")


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
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables for the commands that it starts."""

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
            "FARSIDE_LAB_LOAD": os.environ["FARSIDE_LAB_LOAD"],
            "FARSIDE_LAB": str(self.places.root),
            "PREFECT_API_URL": self.api,
            "PREFECT_HOME": str(self.folder / "prefect"),
            **self.settings,
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

    def started_on(self, domain: str) -> dict[int, str]:
        """Processes that farside started on a domain's hosts, with their command lines."""
        tree, found = str(self.places.tree(domain)), {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if tree in f"{line} {process.exe()}" and _ID.search(line):
                    found[process.pid] = line
        return found

    def burdens(self) -> list[str]:
        """What of any rehearsal burdens the source, if it is there: slots, followers, agents."""
        held = self.ground.live.left() if lab.is_up(self.places.root) else []
        return [*held, *self.started_on("east").values()]

    def unburdened(self, within: float) -> list[str]:
        """What burdens the source once nothing does, or after so many seconds."""
        give_up = time.monotonic() + within
        while (found := self.burdens()) and time.monotonic() < give_up:
            time.sleep(0.2)
        return found

    def left(self) -> list[str]:
        """What is there that was not there before any rehearsal; asked without farside's help."""
        if not lab.is_up(self.places.root):
            return ["the lab is not up: the fence was not lifted"]
        plan, ground = load_plan(self.plan()), self.ground
        found = ground.left()
        for domain in (plan.source, plan.recovery):
            found += [f"{domain.name} {set_id}" for set_id in unfinished(domain.store, "postgres")]
        return found


def newest_record(results: Path) -> Record | None:
    found = sorted(results.glob("r*.json"))
    return Record.from_json(found[-1].read_text()) if found else None


@pytest.fixture(scope="session")
def prefect() -> PrefectServer:
    """One server for all rehearsals; it starts while a lab comes up."""
    return PrefectServer.shared()


@pytest.fixture(scope="session")
def shared(open_directory: Path, prefect: PrefectServer) -> Iterator[tuple[Places, str]]:
    """A lab that is up and has a set in west's store, and a Prefect server.

    One for each worker, to its end: other tests come in between those that use it.
    """
    places, folder = Places.at(open_directory / "lab"), open_directory / "first"
    folder.mkdir()
    lab.up(places.root, scale=1)
    api = prefect.ready()
    try:
        outcome = World(places, api, folder).rehearse(select="fresh")
        assert outcome.code == 0, outcome.text
        yield places, api
    finally:
        lab.down(places.root)


@pytest.fixture
def world(shared: tuple[Places, str], tmp_path: Path) -> World:
    """The shared lab, whole, with a folder of this test's own."""
    return whole(*shared, tmp_path)


def whole(places: Places, api: str, folder: Path) -> World:
    """A lab as it was before any test: up, and with no set in east alone.

    What is killed in its transfer leaves one there, complete, and `copy-behind` would tell of it.
    """
    if not lab.is_up(places.root):
        lab.up(places.root)
    world = World(places, api, folder)
    east, west = world.ground.store("east"), world.ground.store("west")
    for set_id in set(set_ids(east, "postgres")) - set(set_ids(west, "postgres")):
        east.remove([info.key for info in east.objects(f"sets/postgres/{set_id}/")])
    return world
