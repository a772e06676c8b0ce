"""Records and signatures: written atomically, writable by their owner only."""

import os
from pathlib import Path

import pytest

from blocks.errors import PermanentError
from blocks.evidence.files import write_atomically


def test_no_umask_lets_others_write(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        write_atomically(tmp_path / "a" / "b" / "record.json", b"{}")
    finally:
        os.umask(former)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"a": 0o755, "b": 0o755, "record.json": 0o644}


def test_a_narrower_umask_holds(tmp_path: Path) -> None:
    former = os.umask(0o077)
    try:
        write_atomically(tmp_path / "a" / "record.json", b"{}")
    finally:
        os.umask(former)
    assert (tmp_path / "a" / "record.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(PermanentError, match="Not a directory"):
        write_atomically(tmp_path / "a" / "record.json", b"{}")
