"""The console command: every flow by its name, and keys."""

import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from blocks.artifact.age.keys import recipient_of
from blocks.artifact.manifest import public_key_of
from flows.command import outcome
from flows.farside import app, main


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """What `farside WORDS` prints on standard output; it must end well."""
    monkeypatch.setattr("sys.argv", ["farside", *words])
    assert outcome(app, "farside") == 0
    return capsys.readouterr().out


def test_it_is_installed() -> None:
    (found,) = entry_points(group="console_scripts", name="farside")
    assert found.load() is main


@pytest.mark.parametrize("flow", ["rehearse", "drill", "sweep", "lab", "keys"])
def test_help(
    flow: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert flow in said(capsys, monkeypatch, "--help")
    shown = said(capsys, monkeypatch, flow, "--help")
    assert f"farside {flow}" in shown
    assert "AGE-SECRET-KEY" not in shown


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(capsys, monkeypatch, "--version") == f"farside {version('farside')}\n"


def test_keys_fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = said(capsys, monkeypatch, "keys").splitlines()
    identity, recipient, signing, public = (line for line in lines if not line.startswith("#"))
    assert recipient_of(identity) == recipient
    assert public_key_of(signing) == public


def test_bad_usage(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "flows.farside", "rehearse", "--no-such", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, "No such option" in done.stderr) == (64, True), done.stderr


WITHOUT_LAB = """
import sys
for name in ("psycopg", "psutil", "asyncssh", "moto", "trustme"):
    sys.modules[name] = None
from flows.farside import main
main()
"""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["keys"], 0, "AGE-SECRET-KEY"),
        (["drill", "--all"], 64, "pip install 'farside[lab]'"),
        (["lab", "up", "--scale", "1"], 64, "pip install 'farside[lab]'"),
        (["rehearse", "no-such.yaml"], 64, "no-such.yaml"),
    ],
)
def test_a_site_needs_no_lab(words: list[str], code: int, says: str) -> None:
    argv = [sys.executable, "-c", WITHOUT_LAB, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, says in f"{done.stdout}{done.stderr}") == (code, True), done.stderr


def test_nothing_asked() -> None:
    argv = [sys.executable, "-m", "flows.farside"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, "rehearse" in done.stdout) == (64, True)
