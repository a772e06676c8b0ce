"""The sudoers line of docs/fences.md allows what the packet filters run, and nothing else."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blocks.domain import FailureDomain
from blocks.errors import FarsideError
from blocks.fences.fence import Gap
from blocks.fences.nftables import NftablesFence
from blocks.ids import name_of
from tests.blocks.fences.test_fences import GAP

FENCES = Path(__file__).parents[3] / "docs" / "fences.md"
TABLE = name_of("r20260101-000000-aaaaaa")


class _Host:
    """Notes what it is told to run; its table has the handle that the test gives it."""

    def __init__(self) -> None:
        self.name, self.domain, self.handle = "db1", "west", 7
        self.ran: set[str] = set()

    def run(self, argv: list[str], **_: Any) -> Any:
        self.ran.add(" ".join(argv))
        table = {"family": "inet", "name": TABLE, "handle": self.handle}
        return SimpleNamespace(text=json.dumps({"nftables": [{"table": table}]}))


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> tuple[NftablesFence, Gap, _Host]:
    host = _Host()
    watcher = SimpleNamespace(port=5, attempts=list, problems=list, stop=lambda: None)
    monkeypatch.setattr("blocks.fences.nftables.Watcher", lambda *_: watcher)
    monkeypatch.setattr("blocks.fences.nftables._harmless", lambda *_: None)
    monkeypatch.setattr(FailureDomain, "machines", lambda _: [host])
    monkeypatch.setattr(NftablesFence, "_guard", lambda *_: None)
    fence = NftablesFence()
    fence.check(GAP)
    fence.cut(GAP)
    return fence, GAP, host


def test_the_documented_line_is_enough(raised: tuple[NftablesFence, Gap, _Host]) -> None:
    fence, gap, host = raised
    fence.attempts(gap)
    fence.lift(gap)
    (line,) = re.findall(r"^farside ALL=\(root\) NOPASSWD: (.*)$", FENCES.read_text(), re.M)
    allowed = {command.replace("/usr/sbin/nft", "sudo -n nft") for command in line.split(", ")}
    assert host.ran == allowed


def test_a_table_that_was_made_again_is_another(raised: tuple[NftablesFence, Gap, _Host]) -> None:
    fence, gap, host = raised
    assert fence.attempts(gap).unseen == ()
    host.handle = 8
    (problem,) = fence.attempts(gap).unseen
    assert isinstance(problem, FarsideError)
    assert "removed and made again" in problem.message
