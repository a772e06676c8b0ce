"""What every part of the lab brings, and that it is found."""

from pathlib import Path

import pytest

from deployments.lab import catalogue, parts
from deployments.lab.domains import EAST, WEST
from deployments.lab.drills import BOARDS
from deployments.lab.part import CLIENTS, Part
from deployments.lab.site import Domain

EVERY = [pytest.param(part, id=part.name) for part in parts.PARTS]


@pytest.mark.parametrize("part", EVERY)
def test_files_of_a_part(part: Part) -> None:
    assert (CLIENTS / f"{part.name}.py").exists()
    for plan in part.plans:
        assert (catalogue.TEMPLATES / f"{plan}.yaml").exists()
        assert plan in BOARDS
        assert catalogue.parts_of(plan) == ({part.name} if part.name in parts.OPTIONAL else set())


def test_every_file_is_of_a_part() -> None:
    plans = sorted(plan for part in parts.PARTS for plan in part.plans)
    assert catalogue.names() == plans
    assert sorted(BOARDS) == plans
    names = {part.name for part in parts.PARTS}
    for folder in (CLIENTS, Path(parts.__file__).parent):
        assert {path.stem for path in folder.glob("[!_]*.py")} == names


@pytest.mark.parametrize("domain", [EAST, WEST], ids=["east", "west"])
def test_no_two_hosts_have_one_address(domain: Domain) -> None:
    numbers = [host.number for host in (*domain.hosts, domain.store)]
    assert len(set(numbers)) == len(numbers)
    assert len({host.name for host in domain.hosts}) == len(domain.hosts)
