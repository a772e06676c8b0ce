"""Where the log of a restored server lies: next to its data, or where the plan says."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.engines.postgres import cluster as clusters
from blocks.engines.postgres.cluster import Cluster
from blocks.engines.postgres.plan import Place
from blocks.hosts.local import LocalHost
from blocks.remote.folder import work_folder
from blocks.remote.jobs import TargetOccupied, sweep_host
from blocks.repositories.farside.reader import SetReader

ID = "r20260102-030405-abcdef"


@pytest.fixture
def here(tmp_path: Path) -> LocalHost:
    return LocalHost(work_dir=str(tmp_path / "work"), python=sys.executable)


def place(folder: Path, **more: str) -> Place:
    return Place(host="db1", address="127.0.0.1", bin_dir="/bin", data_dir=f"{folder}/data", **more)


@pytest.fixture
def cluster(here: LocalHost, tmp_path: Path) -> Iterator[Cluster]:
    nothing: Any = SimpleNamespace()
    reader = SetReader(nothing, SimpleNamespace(plan="shop"), "s1", ID)  # type: ignore[arg-type]
    using: Any = SimpleNamespace(reader=reader, work=lambda _: work_folder(here, ID))
    work_folder(here, ID)
    at = place(tmp_path)
    yield Cluster(using, here, at.bin_dir, at.data_dir, at.log, {})
    sweep_host(here, ID, remove=True)
    shutil.rmtree(tmp_path / "work", ignore_errors=True)


def test_a_percent_sign_of_the_path_is_no_placeholder(here: LocalHost) -> None:
    using: Any = SimpleNamespace(work=lambda _: "/w")
    cluster = Cluster(using, here, "/bin", "/srv/d", "/srv/it's 100%f", {})
    assert cluster.restore_command == """cp '/srv/it'"'"'s 100%%f'/%f %p"""


def test_by_itself_it_is_next_to_the_data() -> None:
    assert place(Path("/srv/one")).log == "/srv/one/data.farside-log"
    at = Place(host="db1", address="127.0.0.1", bin_dir="/bin", data_dir="/srv/one/")
    assert at.log == "/srv/one.farside-log"
    assert place(Path("/srv/one"), log_dir="/log/two").log == "/log/two"


@pytest.mark.parametrize(
    "more",
    [
        {"log_dir": "/srv/data"},
        {"log_dir": "/srv/data/pg_wal"},
        {"log_dir": "/srv"},
        {"log_dir": "/spaces/log", "tablespaces": "/spaces"},
        {"tablespaces": "/srv/data/spaces"},
    ],
)
def test_directories_lie_apart(more: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="lies in"):
        place(Path("/srv"), **more)


def test_it_goes_with_the_data_and_nothing_else_does(
    cluster: Cluster, here: LocalHost, tmp_path: Path
) -> None:
    near = tmp_path / "data.farside-log.old"
    near.mkdir()
    cluster.prepare("127.0.0.1", 0)
    made = tmp_path / "data.farside-log"
    assert cluster.archive == str(made)
    assert cluster.archive in cluster.restore_command
    assert made.stat().st_dev == (tmp_path / "data").stat().st_dev
    (made / "000000010000000000000001").write_bytes(b"log")
    (swept,) = sweep_host(here, ID, remove=True).found
    assert {str(made), str(tmp_path / "data")} < set(swept.paths)
    assert not made.exists()
    assert near.is_dir()


def test_what_lies_there_is_no_log_of_ours(
    cluster: Cluster, here: LocalHost, tmp_path: Path
) -> None:
    kept = tmp_path / "data.farside-log" / "kept"
    kept.parent.mkdir()
    kept.write_text("somebody's")
    with pytest.raises(TargetOccupied, match=r"data\.farside-log is not empty"):
        cluster.prepare("127.0.0.1", 0)
    assert not (tmp_path / "data").exists()
    sweep_host(here, ID, remove=True)
    assert kept.read_text() == "somebody's"


@pytest.mark.parametrize(
    ("log", "causes"),
    [
        (
            'LOG:  invalid value for parameter "lc_monetary": "xx_XX"\n'
            'FATAL:  configuration file "/d/postgresql.conf" contains errors\n',
            ["LOG:  invalid value", "FATAL:  configuration file"],
        ),
        (
            "FATAL:  the database system is starting up\n"
            "LOG:  redo starts at 0/2000028\n"
            'FATAL:  directory "/nowhere" does not exist\n'
            "HINT:  Create this directory for the tablespace before restarting the server.\n"
            "CONTEXT:  WAL redo at 0/2000100 for Tablespace/CREATE: 16500\n"
            "FATAL:  the database system is starting up\n"
            "LOG:  startup process (PID 9) exited with exit code 1\n"
            "LOG:  terminating any other active server processes\n"
            "LOG:  shutting down due to startup process failure\n"
            "LOG:  database system is shut down\n",
            ["LOG:  redo starts", "FATAL:  directory", "HINT:  Create", "CONTEXT:  WAL redo"],
        ),
        ("LOG:  starting\n", []),
    ],
)
def test_what_a_server_died_of_is_told(log: str, causes: list[str]) -> None:
    said = clusters._causes(log)
    assert len(said) == len(causes), said
    for line, cause in zip(said, causes, strict=True):
        assert line.startswith(cause)
