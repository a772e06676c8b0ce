"""Worlds in which one thing is broken: the verdict, the finding, the exit code, nothing left.

What a drill breaks is in test_drill.py.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from blocks.evidence.record import StageState, Verdict
from tests import mechanisms
from tests.flows.conftest import Change, Outcome, World

BASE, LOG = "base.tar.zst.age.000", "log.json"


def flipped(data: bytes) -> bytes:
    """One bit differs, in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def put(*place: str | int, value: Any) -> Change:
    """A change: another value at a place in the plan."""

    def change(document: Any) -> None:
        for part in place[:-1]:
            document = document[part]
        document[place[-1]] = value

    return change


pytestmark = mechanisms.BROKEN


def ended(outcome: Outcome, stage: str | None) -> None:
    """It ended in `stage` (None: in none of them), and teardown ran."""
    assert "Traceback" not in outcome.text
    assert outcome.record is not None, outcome.text
    states = {item.name: item.state for item in outcome.record.stages}
    failed = [name for name, state in states.items() if state is StageState.FAILED]
    assert failed == ([] if stage is None else [stage])
    assert states["teardown"] is StageState.COMPLETED


def failed(world: World, outcome: Outcome, stage: str | None, finding: str) -> str:
    """It failed in `stage` for this one reason; returns what the finding says."""
    ended(outcome, stage)
    assert outcome.record is not None
    assert (outcome.code, outcome.record.verdict) == (1, Verdict.FAILED)
    assert outcome.findings == [finding]
    assert world.left() == []
    return outcome.said(finding)


# -- keys -----------------------------------------------------------------------------------------


def test_key_missing_in_the_source_vault_does_not_matter(world: World) -> None:
    with world.ground.secret("farside-age-identity", None, domain="east"):
        outcome = world.rehearse()
    ended(outcome, None)
    assert (outcome.code, outcome.findings) == (0, [])
    assert world.left() == []


# -- the set --------------------------------------------------------------------------------------


def test_object_cut_off(world: World) -> None:
    with world.ground.stored(BASE, lambda data: data[: len(data) // 2]):
        outcome = world.rehearse()
    assert "the manifest says" in failed(world, outcome, "restore", "object-corrupt")


def test_log_index_removed(world: World) -> None:
    # Whether or not the set was rehearsed before: a record remembers how far its log had been.
    assert world.rehearse().code == 0
    with world.ground.stored(LOG, lambda _data: None):
        outcome = world.rehearse()
    assert LOG in failed(world, outcome, "key fetch", "object-missing")


# -- the recovery host ----------------------------------------------------------------------------


def test_data_directory_occupied_is_left_as_it_is(world: World) -> None:
    world.data.mkdir()
    try:
        (world.data / "precious").write_text("somebody's")
        outcome = world.rehearse()
        assert (world.data / "precious").read_text() == "somebody's"
        assert world.sweep().code == 0
        assert (world.data / "precious").read_text() == "somebody's"
    finally:
        shutil.rmtree(world.data)
    assert "it is not empty" in failed(world, outcome, "restore", "target-occupied")


def test_work_dir_that_others_may_write_to_ends_it_before_the_cut(world: World) -> None:
    """Markers there are anybody's: whether another rehearsal needs the fence could not be told."""
    folder = world.ground.home("west") / "farside"
    folder.chmod(0o777)
    try:
        outcome = world.rehearse()
    finally:
        folder.chmod(0o700)
    said = failed(world, outcome, "preflight", "work-dir-untrusted")
    assert f"other accounts may write to {folder}" in said
    assert outcome.record is not None
    assert outcome.record.declared_at is None


def test_module_missing_on_a_host(world: World, open_directory: Path) -> None:
    python = open_directory / "bare-python"
    real = world.document["recovery"]["hosts"][0]["python"]
    # Without its packages, as a freshly installed Python is.
    python.write_text(f'#!/bin/sh\nexec "{real}" -S "$@"\n')
    python.chmod(0o755)
    outcome = world.rehearse(put("recovery", "hosts", 0, "python", value=str(python)))
    said = failed(world, outcome, "restore", "tool-missing")
    assert "lacks cryptography, zstandard" in said


def test_python_missing_on_a_host(world: World) -> None:
    outcome = world.rehearse(put("recovery", "hosts", 0, "python", value="/nowhere/python3"))
    assert "/nowhere/python3 cannot be run" in failed(world, outcome, "restore", "tool-missing")


def small_disk(on: Path, size: str) -> AbstractContextManager[None]:
    """A file system of `size` bytes over a directory."""
    if os.geteuid() != 0:
        reason = "only root can mount a small file system"
        if os.environ.get("FARSIDE_NO_SKIPS"):
            pytest.fail(reason)
        pytest.skip(reason)

    @contextmanager
    def mounted() -> Iterator[None]:
        of = on.stat()
        options = f"size={size},mode={of.st_mode & 0o7777:o},uid={of.st_uid},gid={of.st_gid}"
        argv = ["mount", "-t", "tmpfs", "-o", options, "farside-test", str(on)]
        subprocess.run(argv, check=True, timeout=30)
        try:
            yield
        finally:
            # Lazily: a test that failed may have left something at work in there.
            subprocess.run(["umount", "-l", str(on)], check=True, timeout=30)

    return mounted()


def test_disk_full_in_the_middle_of_a_restore(world: World) -> None:
    with small_disk(world.data.parent, "1g"):
        running = world.start(str(world.plan()), "--select", "latest")
        running.until("declare: started")
        filler = world.data.parent / "filler"
        with filler.open("wb") as file:
            disk = os.statvfs(world.data.parent)
            os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - 2**23)
        outcome = running.end()
        filler.unlink()
        failed(world, outcome, "restore", "disk-too-small")


# -- what is verified -----------------------------------------------------------------------------


def test_check_of_the_plan_cannot_run(world: World) -> None:
    outcome = world.rehearse(put("checks", 1, "sql", value="SELECT FROM WHERE"))
    ended(outcome, None)
    assert outcome.record is not None
    assert (outcome.code, outcome.record.verdict) == (2, Verdict.PARTIAL)
    assert "could not run" in outcome.text
    assert any("pgbench-orphans" in item for item in outcome.record.not_verified)
