"""A real lab in an awkward place: its path is long, and has a blank and a quote in it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
import psutil
import pytest
import yaml

from deployments import lab
from deployments.lab.accounts import service_account
from deployments.lab.credentials import Vaults
from deployments.lab.part import Part
from deployments.lab.places import Places
from deployments.lab.processes import MARK

CHECKOUT = Path(lab.__file__).parents[2]
#: Longer than any Unix socket's path may be.
NAME = "the lab's own " + "long " * 25 + "directory"


@dataclass(frozen=True, slots=True)
class LabUnderTest:
    """A lab's root, and what the tests ask of it."""

    places: Places

    @property
    def root(self) -> Path:
        return self.places.root

    def command(self, *words: str, check: bool = True) -> str:
        """Run `python -m deployments.lab`; returns what it printed."""
        argv = [sys.executable, "-m", "deployments.lab", "--root", str(self.root), *words]
        done = subprocess.run(
            argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout if check else done.stdout + done.stderr

    def up(self) -> None:
        """Up, and whatever an earlier test broke is whole again."""
        lab.up(self.root, scale=1)

    @property
    def plan(self) -> Any:
        return yaml.safe_load(lab.plan_path(self.root, "postgres").read_text())

    def pid(self, service: str) -> int:
        """The process id that the lab noted for a service."""
        note = json.loads((self.places.processes / f"{service}.json").read_text())
        return int(note["pid"])

    def attempts(self) -> list[dict[str, Any]]:
        """What the tripwires caught."""
        return [json.loads(line) for line in self.command("tripped").splitlines()]


def minted(part: Part, folder: Path) -> dict[str, set[str]]:
    """The names of the secrets that a part makes in each domain's vault."""
    places = Places.at(folder / part.name)
    for domain in part.hosts:
        places.secrets(domain).mkdir(parents=True)
    places.host("east", "app").mkdir()
    part.mint(places, Vaults(places, service_account()))
    return {
        domain: {path.name for path in places.secrets(domain).iterdir()} for domain in part.hosts
    }


def living(tree: Path) -> list[str]:
    """Command lines of the processes that live in a tree, found without the lab's help."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            places = (process.exe(), process.cwd(), process.environ().get(MARK, ""))
            if any(place.startswith(str(tree)) for place in places):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def connect(host: dict[str, Any], **credentials: Any) -> paramiko.SSHClient:
    """Log in to a host, with nothing but the given credentials."""
    client = paramiko.SSHClient()
    kind, key = host["host_key"].split()
    name = f"[{host['address']}]:{host['port']}"
    entry = paramiko.hostkeys.HostKeyEntry.from_line(f"{name} {kind} {key}")
    assert entry is not None
    assert entry.key is not None
    client.get_host_keys().add(name, kind, entry.key)
    client.connect(
        host["address"],
        host["port"],
        credentials.pop("username", host["user"]),
        look_for_keys=False,
        allow_agent=False,
        **credentials,
    )
    return client


@pytest.fixture(scope="package")
def shared_lab(open_directory: Path) -> Iterator[LabUnderTest]:
    """One lab for all tests; it is down at the end whatever they did."""
    under_test = LabUnderTest(Places.at(open_directory / NAME))
    under_test.up()
    yield under_test
    lab.down(under_test.root)


@pytest.fixture
def running(shared_lab: LabUnderTest) -> LabUnderTest:
    """The shared lab, up."""
    if not lab.is_up(shared_lab.root):
        shared_lab.up()
    return shared_lab
