"""What a value in etcd reads as."""

import sqlite3
from pathlib import Path

import pytest

from blocks.agent.channel import Channel
from blocks.agent.failure import JobFailed, to_event
from blocks.engines.etcd import on_host
from blocks.engines.etcd.on_host import KeySpace, readable
from blocks.ownership import Belongings

EAST = Belongings(networks=("10.1.0.0/16",), places=("db1.corp.example.org",), paths=("/mnt/east",))


def field(number: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    size = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
    return bytes([number << 3 | 2]) + size + data


def kubernetes(*fields: bytes) -> bytes:
    return b"k8s\0" + field(1, field(1, "v1") + field(2, "Endpoints")) + field(2, b"".join(fields))


@pytest.mark.parametrize("follows", [4, 6, 8, 9, 12, 14])
def test_the_next_fields_tag_is_no_part_of_an_address(follows: int) -> None:
    """It reads as a quotation mark, as 2, B, J, b and r."""
    value = kubernetes(
        field(1, field(1, "10.1.0.5") + field(follows, "x")),
        bytes([3 << 3, 0x96, 1, 4 << 3 | 5, 1, 2, 3, 4, 5 << 3 | 1, *range(8)]),
        field(6, "c" * 48),
    )
    assert EAST.places_in(readable(value)) == ["10.1.0.5"]


def test_the_length_of_a_string_is_no_part_of_it() -> None:
    """Of 48 to 122 bytes it is a digit or a letter."""
    for length in range(30, 140):
        name, path = "db1.corp.example.org:5432/", "/mnt/east/"
        inner = field(1, name.ljust(length, "x")) + field(2, path.ljust(length, "y"))
        text = readable(kubernetes(field(3, inner)))
        assert EAST.places_in(text) == ["db1.corp.example.org"], length
        assert EAST.paths_in(text) == ["/mnt/east"], length


@pytest.mark.parametrize("value", [b"10.1.0.5", b"k8s\0\x0a\xff10.1.0.5", b'{"at": "10.1.0.5"}'])
def test_what_is_no_message_is_read_as_it_is(value: bytes) -> None:
    assert EAST.places_in(readable(value)) == ["10.1.0.5"]


def test_lines_of_a_string_are_kept() -> None:
    text = readable(kubernetes(field(2, "a\nb 10.1.0.5\n")))
    assert [mention for _, mention in EAST.lines(text)] == ["10.1.0.5"]


def test_a_full_disk_under_the_table_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(_path: Path) -> None:
        table = sqlite3.connect("")
        table.execute("CREATE TABLE keys (name BLOB)")
        table.execute("PRAGMA max_page_count = 2")
        table.execute("INSERT INTO keys VALUES (zeroblob(100000))")

    monkeypatch.setattr(on_host, "_of_file", fill)
    with pytest.raises(JobFailed, match="no space left for temporary files") as raised:
        on_host.run(KeySpace(snapshot="/x", foreign=EAST), Channel.__new__(Channel))
    assert raised.value.code == "no-space"


@pytest.mark.parametrize(
    ("module", "says"), [("_sqlite3", "whole standard library"), ("zstandard", "cryptography and")]
)
def test_what_a_python_lacks(module: str, says: str) -> None:
    assert says in to_event(ModuleNotFoundError(name=module)).hint
