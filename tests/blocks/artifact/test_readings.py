"""How a text reads that was packed, and which of its lines are comments."""

import base64
import gzip

from blocks.artifact import readings

TEXT = b"url: https://db1.east.example/\n"


def test_what_was_packed_is_read() -> None:
    assert readings.unpacked(gzip.compress(TEXT)) == TEXT
    assert readings.unpacked(gzip.compress(TEXT * 10)[:-12]).startswith(TEXT)
    assert readings.unpacked(b"\x1f\x8bno") == b"\x1f\x8bno"
    helm = base64.b64encode(base64.b64encode(gzip.compress(TEXT))).decode()
    assert any("db1.east.example" in text for text in readings.of(helm))


def test_comments() -> None:
    text = "#!/bin/sh\n# was: x\n  -- moved\n#include <x>\n--flag\nx # y\n"
    assert readings.comments(text) == {2, 3}
