"""A fence of commands."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blocks.fences import CommandFence, FenceBroken
from blocks.processes import CommandFailed, CommandTimeout


def fence(folder: Path, **changes: object) -> CommandFence:
    flag = str(folder / "up")
    settings: dict[str, object] = {"raise_argv": ["touch", flag], "lift_argv": ["rm", "-f", flag]}
    return CommandFence(**(settings | changes))


def test_cut_and_lift_twice(tmp_path: Path) -> None:
    made = fence(tmp_path)
    before = datetime.now(UTC)
    first, second = made.cut(), made.cut()
    assert (tmp_path / "up").exists()
    assert before <= first < second <= datetime.now(UTC)
    for _ in range(2):
        made.lift()
        assert not (tmp_path / "up").exists()


def test_the_declaration_is_before_the_command(tmp_path: Path) -> None:
    script = f"import time; open({str(tmp_path / 'at')!r}, 'w').write(str(time.time()))"
    at = fence(tmp_path, raise_argv=[sys.executable, "-c", script]).cut()
    assert at.timestamp() < float((tmp_path / "at").read_text())


def test_attempts_oldest_first(tmp_path: Path) -> None:
    lines = [
        {"at": "2026-01-02T00:00:01Z", "host": "db1", "address": "10.1.0.5", "port": 22},
        {"at": "2026-01-02T00:00:00+00:00", "host": "db1", "address": "10.1.0.5", "port": 5432}
        | {"pid": 7, "process": "psql -h 10.1.0.5", "colour": "red"},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    earlier, later = fence(tmp_path, observe_argv=["echo", text]).attempts()
    assert (earlier.port, earlier.pid, earlier.process) == (5432, 7, "psql -h 10.1.0.5")
    assert (later.port, later.pid, later.process) == (22, None, None)
    assert later.at == datetime(2026, 1, 2, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "line", ["nonsense", "{}", '{"at": "2026-01-02T00:00:00", "host": "a", "address": "b"}']
)
def test_evidence_that_cannot_be_read_is_not_dropped(tmp_path: Path, line: str) -> None:
    with pytest.raises(FenceBroken, match="observe_argv printed"):
        fence(tmp_path, observe_argv=["echo", line]).attempts()


def test_a_fence_that_cannot_tell(tmp_path: Path) -> None:
    assert fence(tmp_path).attempts() == []


def test_commands_that_fail(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="fence: run: false ended with exit code 1"):
        fence(tmp_path, raise_argv=["false"]).cut()
    with pytest.raises(CommandTimeout):
        fence(tmp_path, lift_argv=["sleep", "60"], timeout_seconds=0.3).lift()
