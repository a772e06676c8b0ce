"""What a rehearsal made is noted whole, and outlives a loss of power, or an error says that not."""

import os
import stat
from pathlib import Path

import pytest

from blocks.agent import marks
from blocks.agent.protocol.parts import MadePath

ONE, TWO, THREE = (MadePath(path=f"/srv/{name}") for name in ("one", "two", "three"))


def test_a_note_that_is_cut_off_is_an_error_and_spoils_no_other(tmp_path: Path) -> None:
    """As on a full disk."""
    marks.note(tmp_path, [ONE])
    write = os.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:-4]))
        with pytest.raises(OSError, match="could not be written whole"):
            marks.note(tmp_path, [TWO])
    assert marks.read(tmp_path) == [ONE]
    marks.note(tmp_path, [THREE])
    assert marks.read(tmp_path) == [ONE, THREE]


def test_a_note_is_on_disk_and_so_is_the_name_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[bool, bytes]] = []

    def fsync(file: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(file).st_mode)
        synced.append((is_directory, (tmp_path / marks.FILE).read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    marks.note(tmp_path, [ONE, TWO])
    whole = (tmp_path / marks.FILE).read_bytes()
    assert synced == [(False, whole), (True, whole)]


def test_a_disk_that_does_not_take_a_note_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="Input/output"):
        marks.note(tmp_path, [ONE])
