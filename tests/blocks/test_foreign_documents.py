"""Documents that others wrote: whatever they hold is refused in words, and breaks nothing."""

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.agent import lease
from blocks.agent.protocol import from_line
from blocks.agent.protocol.events import Event
from blocks.agent.protocol.jobs import Job
from blocks.agent.protocol.parts import Made
from blocks.artifact import wire
from blocks.artifact.manifest import verify
from blocks.artifact.signing import generate_signing_key, key_id, public_key_of, sign_bytes
from blocks.engines.etcd import etcdctl
from blocks.errors import FarsideError
from blocks.evidence.record import Record
from blocks.fences import ruleset
from blocks.fences.command import _attempt
from blocks.plan.loading import load_plan

KEY = generate_signing_key()


def envelope(text: str) -> bytes:
    """A document that whoever holds the signing key has signed."""
    signed = {"payload": text.encode(), "signature": sign_bytes(text.encode(), KEY)}
    coded = {name: base64.b64encode(value).decode() for name, value in signed.items()}
    return json.dumps(coded | {"key_id": key_id(public_key_of(KEY))}).encode()


PARSERS: dict[str, Callable[[str], object]] = {
    "record": Record.from_json,
    "lease": lambda text: lease.loads(text.encode()),
    "manifest": lambda text: verify(text.encode(), public_key_of(KEY)),
    "signed": lambda text: verify(envelope(text), public_key_of(KEY)),
    "job": lambda text: from_line(Job, text),
    "event": lambda text: from_line(Event, text),
    "made": lambda text: from_line(Made, text),
    "facts": lambda text: wire.loads(dict[str, Any], text),
    "tables": ruleset.handles,
    "calls": ruleset.denied_calls,
    "etcdctl": lambda text: list(etcdctl._said(text)),
    "attempt": _attempt,
}
DEPTHS = (90, 150, 900, 5_000, 200_000)
NESTED = [
    text * depth + middle + end * depth
    for depth in DEPTHS
    for text, middle, end in (("[", "", "]"), ('{"seconds": ', "1", "}"), ('{"a": [', "1", "]}"))
]
ODD = ["9" * 400, "[" + "9" * 5_000 + "]", "NaN", "-Infinity", '{"a": 1e400}', "\ufeff{}", "null"]


def refused(name: str, text: str) -> None:
    with suppress(ValueError if name == "lease" else FarsideError):
        PARSERS[name](text)


@pytest.mark.parametrize("name", PARSERS)
def test_nothing_is_too_deep_or_too_large_to_be_refused(name: str) -> None:
    for text in (*NESTED, *ODD):
        refused(name, text)
    for value in ("9" * 400, "[[]]", '"0001-01-01T00:00:00+14:00"', '"9999-12-31T23:59:59-14:00"'):
        for field in ("seconds", "at", "seconds_ago", "schema_version", "taken_at", "started_at"):
            refused(name, f'{{"plan": "shop", "event": "caught", "{field}": {value}}}')


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["plan", "seconds", "nftables", "set", "table", "elem", "error", "at"])
            | st.text(),
            inner,
        )
    ),
)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=JSON)
def test_whatever_shape_it_has(name: str, document: Any) -> None:
    refused(name, json.dumps(document))
    refused(name, json.dumps({"nftables": document, "plan": "shop", "seconds": document}))
    refused(name, json.dumps({"nftables": [{"table": document, "set": {"elem": document}}]}))


def test_what_is_read_can_be_written_and_compared() -> None:
    """Far less deep than JSON can be read: all else that is done with it goes deeper."""
    for depth in range(1, 1_000, 7):
        text = '{"a": [' * depth + "1" + "]}" * depth
        try:
            found = wire.loads(dict[str, Any], text)
        except wire.WireError:
            assert depth > 20
        else:
            assert wire.loads(dict[str, Any], wire.dumps(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5_000 + "]" * 5_000,
        "{a: " * 5_000 + "1" + "}" * 5_000,
        "\n".join(f"{' ' * depth}a:" for depth in range(2_000)),
        "a: &a [*a]\nb: 1",
        "name: 2026-13-45",
        "name: !!int x",
        "? [a, b]\n: 1",
    ],
    ids=["lists", "flow", "blocks", "inside itself", "no date", "no number", "no key"],
)
def test_a_plan_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(FarsideError, match=str(path)):
        load_plan(path)
