"""What commands print comes from stores and hosts: none of it steers a terminal."""

import io
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from blocks.artifact.manifest import ManifestForged
from blocks.errors import PermanentError
from deployments.lab import __main__ as lab
from flows import drill
from flows.drill import __main__ as drill_command
from flows.rehearse import Watcher
from flows.rehearse import __main__ as command_line
from tests.flows.conftest import CHECKOUT

STEERING = "\x1b[2J\x1b]0;VERIFIED\x07\x9b2J[/red]"


def harmless(text: str) -> bool:
    """Whether a terminal shows a text as it is."""
    return all(char.isprintable() or char in "\n\t" for char in text)


def test_the_list_of_sets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site: Any = SimpleNamespace(recovery=SimpleNamespace(store=None), binding=None)

    forged = ManifestForged(f"signed by key {STEERING}")
    monkeypatch.setattr(command_line, "opened", lambda *_, **__: nullcontext(site))
    monkeypatch.setattr(command_line, "close", lambda _: None)
    monkeypatch.setattr(command_line, "headers", lambda *_: [(f"s-1{STEERING}", forged)])
    command_line._list("plan.yaml", None)
    said = capsys.readouterr().err
    assert said.startswith("s-1?[2J")
    assert "not this plan's: signed by key" in said
    assert harmless(said)


@pytest.mark.parametrize("written", [True, False])
def test_a_rehearsal_without_a_record_has_proven_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: bool
) -> None:
    """A full disk, and nobody watches: the schedule must not count it as good."""
    watcher, record = Watcher(), cast("Any", None)
    watcher.path = tmp_path / "r1.json" if written else None
    for code, expected in ((0, 0 if written else 2), (1, 1), (2, 2)):
        monkeypatch.setattr(command_line, "exit_code", lambda _, code=code: code)
        assert command_line._code(watcher, record) == expected


def test_the_board_of_drills() -> None:
    said = (STEERING,)
    outcome = drill.Outcome("clock-skew", (), (), None, None, said, said, 1.0, STEERING)
    file = io.StringIO()
    Console(width=200, file=file).print(drill_command.scoreboard([outcome], 1.0))
    text = file.getvalue()
    assert text.count("[/red]") == 3
    assert harmless(text)


def test_an_error_of_the_lab(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise PermanentError(STEERING)

    monkeypatch.setattr(lab, "app", fail)
    with pytest.raises(SystemExit) as ended:
        lab.main()
    assert ended.value.code == 2
    assert harmless(capsys.readouterr().err)


def test_a_terminal_without_prefects_log_stays_empty() -> None:
    """Not even that nobody listens is said."""
    script = (
        "import logging, prefect; from flows.command import quiet; quiet();"
        " logging.getLogger('prefect').warning('x'); logging.getLogger('other').error('x')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
