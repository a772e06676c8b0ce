"""What a log would do elsewhere, as pg_waldump reads it too."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from blocks.engines.postgres import survey
from blocks.engines.postgres.outward import Tablespace, created_tablespaces
from blocks.engines.postgres.wal import parse_lsn
from deployments.lab.accounts import service_account
from tests.blocks.engines.servers import Server, server

SEGMENT = 2**24
LONG = "x" * 220


@pytest.fixture(scope="module")
def made() -> Iterator[Server]:
    with server(15) as running:
        yield running


def segments(made: Server) -> list[str]:
    return sorted(path.name for path in (made.data / "pg_wal").iterdir() if path.is_file())


def found(made: Server, start: int = 0) -> set[Tablespace]:
    made.run("SELECT pg_switch_wal()")
    place = str(made.data / "pg_wal")
    return set(created_tablespaces(made.psql().host, place, segments(made), SEGMENT, start))


@dataclass(frozen=True)
class Record:
    """A record as pg_waldump reads it: where it begins, and how long it is."""

    at: int
    length: int
    made: Tablespace


def by_pg_waldump(made: Server) -> list[Record]:
    ends = segments(made)[0], segments(made)[-1]
    argv = [f"{made.bin_dir}/pg_waldump", "-r", "Tablespace", "-p", f"{made.data}/pg_wal", *ends]
    said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    pattern = r'tot\): +(\d+)/.*lsn: (\S+),.*desc: CREATE (\d+) "(.+)"'
    return [
        Record(parse_lsn(at), int(length), Tablespace(int(oid), path))
        for length, at, oid, path in re.findall(pattern, said)
    ]


def create(made: Server, name: str) -> Path:
    """A tablespace in a directory of its own."""
    place = made.data.parent / name
    place.mkdir()
    service_account().own(place)
    made.run(f"CREATE TABLESPACE \"{name[:40]}\" LOCATION '{place}'")
    return place


def leave(made: Server, room: int) -> None:
    """Leave about so many bytes of room in the segment."""
    for _ in range(40):
        at = "pg_current_wal_insert_lsn() - '0/0'"
        left = int(made.run(f"SELECT {SEGMENT} - ({at}) % {SEGMENT}"))
        if left < room + 100:
            return
        size = max(1, min(left - room, 4_000_000) * 99 // 100 - 60)
        made.run(f"SELECT pg_logical_emit_message(false, 'x', repeat('a', {size}))")
    raise AssertionError(f"{left} bytes are left")


def test_tablespaces_that_a_log_creates(made: Server) -> None:
    made.run("CREATE TABLE numbers AS SELECT 5 AS a, 1280 AS b FROM generate_series(1, 20000)")
    assert found(made) == set()
    places = [create(made, name) for name in ("plain", LONG)]
    made.run("DROP TABLESPACE plain")
    across = list[Record]()
    for room in range(200, 1000, 100):  # what else the statement writes comes before
        leave(made, room)
        places.append(create(made, f"{room}{LONG}"))
        records = by_pg_waldump(made)
        across = [item for item in records if item.at % SEGMENT + item.length > SEGMENT]
        if across:
            break
    assert across, "no record lies in two segments"
    there = found(made)
    assert {item.path for item in there} == set(map(str, places))
    assert there == {item.made for item in records}
    for record in records:
        assert record.made in found(made, record.at)
        assert record.made not in found(made, record.at + 1)


def test_one_within_the_data_leads_nowhere_else(made: Server) -> None:
    before = found(made)
    made.run("SET allow_in_place_tablespaces = on; CREATE TABLESPACE inside LOCATION ''")
    assert found(made) == before


def test_a_tablespace_whose_directory_is_gone_has_no_size(made: Server) -> None:
    place = create(made, "lost")
    shutil.rmtree(place)
    facts = survey.survey(made.psql())
    assert [row.bytes for row in facts.tablespaces if row.location == str(place)] == [0]
