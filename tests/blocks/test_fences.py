"""A fence of commands."""

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.domain import FailureDomain
from blocks.errors import FarsideError
from blocks.fences import (
    CommandFence,
    FenceBroken,
    Gap,
    NftablesFence,
    Observed,
    SeveralFences,
)
from blocks.hosts import LocalHost
from blocks.processes import CommandFailed, CommandTimeout
from blocks.stores import S3Store


def domain(name: str) -> FailureDomain:
    """A domain that is this machine."""
    store = S3Store(endpoint="https://127.0.0.1:1", bucket="b", credentials_file=Path("/none"))
    return FailureDomain(name=name, hosts=[LocalHost(name="here")], store=store)


GAP = Gap(domain("east"), domain("west"), (("10.9.8.7", 22),), "r20260101-000000-aaaaaa")


def fence(folder: Path, **changes: object) -> CommandFence:
    flag = str(folder / "up")
    settings: dict[str, object] = {"raise_argv": ["touch", flag], "lift_argv": ["rm", "-f", flag]}
    return CommandFence(**(settings | changes))


def test_cut_and_lift_twice(tmp_path: Path) -> None:
    made = fence(tmp_path)
    before = datetime.now(UTC)
    first, second = made.cut(GAP), made.cut(GAP)
    assert (tmp_path / "up").exists()
    assert before <= first < second <= datetime.now(UTC)
    for _ in range(2):
        made.lift(GAP)
        assert not (tmp_path / "up").exists()


def test_the_declaration_is_before_the_command(tmp_path: Path) -> None:
    script = f"import time; open({str(tmp_path / 'at')!r}, 'w').write(str(time.time()))"
    at = fence(tmp_path, raise_argv=[sys.executable, "-c", script]).cut(GAP)
    assert at.timestamp() < float((tmp_path / "at").read_text())


def test_attempts_oldest_first(tmp_path: Path) -> None:
    lines = [
        {"at": "2026-01-02T00:00:01Z", "host": "db1", "address": "10.1.0.5", "port": 22},
        {"at": "2026-01-02T00:00:00+00:00", "host": "db1", "address": "10.1.0.5", "port": 5432}
        | {"pid": 7, "process": "psql -h 10.1.0.5", "colour": "red"},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    earlier, later = fence(tmp_path, observe_argv=["echo", text]).attempts(GAP).attempts
    assert (earlier.port, earlier.pid, earlier.process) == (5432, 7, "psql -h 10.1.0.5")
    assert (later.port, later.pid, later.process) == (22, None, None)
    assert later.at == datetime(2026, 1, 2, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "line", ["nonsense", "{}", '{"at": "2026-01-02T00:00:00", "host": "a", "address": "b"}']
)
def test_evidence_that_cannot_be_read_is_not_dropped(tmp_path: Path, line: str) -> None:
    (problem,) = fence(tmp_path, observe_argv=["echo", line]).attempts(GAP).unseen
    assert isinstance(problem, FenceBroken)
    assert "observe_argv printed" in problem.message


def test_a_fence_that_cannot_tell(tmp_path: Path) -> None:
    blind = fence(tmp_path)
    assert (blind.attempts(GAP), blind.tells) == (Observed(), False)
    assert SeveralFences(fences=[blind, fence(tmp_path, observe_argv=["true"])]).tells


def test_commands_that_fail(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="fence: run: false ended with exit code 1"):
        fence(tmp_path, raise_argv=["false"]).cut(GAP)
    with pytest.raises(CommandTimeout):
        fence(tmp_path, lift_argv=["sleep", "60"], timeout_seconds=0.3).lift(GAP)


def test_several_are_raised_in_order_and_all_lifted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    late = f"test -e {tmp_path}/a/up && sleep 0.3 && touch {tmp_path}/b/up"
    first, second = fence(tmp_path / "a"), fence(tmp_path / "b", raise_argv=["sh", "-c", late])
    both = SeveralFences(fences=[first, second])
    before = datetime.now(UTC)
    at = both.cut(GAP)
    assert before <= at <= datetime.now(UTC) - timedelta(seconds=0.3)
    broken = SeveralFences(fences=[first, fence(tmp_path / "b", lift_argv=["false"])])
    with pytest.raises(CommandFailed):
        broken.lift(GAP)
    assert not (tmp_path / "a" / "up").exists(), "the first is lifted though the second is not"


def test_several_see_what_each_sees(tmp_path: Path) -> None:
    lines = [
        json.dumps({"at": f"2026-01-02T00:00:0{n}Z", "host": "a", "address": "b", "port": n})
        for n in (2, 1)
    ]
    fences = [fence(tmp_path, observe_argv=["echo", line]) for line in lines]
    late = json.dumps({"at": "2026-01-02T00:00:03Z", "host": "a", "address": "b", "port": 3})
    broken = fence(tmp_path, observe_argv=["sh", "-c", f"echo '{late}'; echo it died >&2; exit 1"])
    seen = SeveralFences(fences=[broken, *fences]).attempts(GAP)
    assert [item.port for item in seen.attempts] == [1, 2, 3], "though one could not tell all"
    (problem,) = seen.unseen
    assert "it died" in problem.message


def test_commands_lift_nothing_under_a_rehearsal_that_lives(tmp_path: Path) -> None:
    made = fence(tmp_path)
    made.cut(GAP)
    made.lift(replace(GAP, living=frozenset({"r20260101-000000-bbbbbb"})))
    assert (tmp_path / "up").exists()
    made.lift(GAP)
    assert not (tmp_path / "up").exists()


def test_no_nft_there_is_a_tool_that_is_missing() -> None:
    made = NftablesFence(nft_argv=["/nowhere/nft"])
    with pytest.raises(FarsideError, match="/nowhere/nft") as caught:
        made.check(GAP)
    assert (caught.value.finding, caught.value.subject) == (
        "tool-missing",
        "west/here /nowhere/nft",
    )
    made.lift(GAP)  # what is not there has raised nothing


def test_an_nft_that_may_not_is_a_fence_that_leaks() -> None:
    made = NftablesFence(nft_argv=["sh", "-c", "echo may not >&2; exit 1"])
    with pytest.raises(FarsideError, match="may not") as caught:
        made.check(GAP)
    assert caught.value.finding == "fence-leaks"
    assert "sudoers" in caught.value.hint
    with pytest.raises(FarsideError, match="may not"):
        made.lift(GAP)
