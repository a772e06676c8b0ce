"""Signals and output of a process, tried on processes."""

import signal
import subprocess
import sys
import time

import pytest

PATIENCE = 60


def python(program: str, **how: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


TOLD = """
import os, signal, time
from flows.signals import deferred, obey, told
def say(text):  # two threads speak: a line is one write
    os.write(1, text.encode() + b"\\n")
obey()
with told(lambda number: say(f"told {number.name}")):
    try:
        say("ready")
        time.sleep(60)
    except KeyboardInterrupt:
        with deferred() as came:
            say("teardown")
            give_up = time.monotonic() + 60
            while len(came) < 2 and time.monotonic() < give_up:
                time.sleep(0.05)
        say(f"done {sorted(n.name for n in came)}")
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_ends_and_later_ones_are_noted(first: signal.Signals) -> None:
    child = python(TOLD)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(first)
    heard: list[str] = []
    while not {f"told {first.name}\n", "teardown\n"} <= set(heard):
        heard.append(child.stdout.readline())
        assert heard[-1], heard
    child.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=PATIENCE)
    assert "done ['SIGINT', 'SIGTERM']" in out, err
    assert child.returncode == 0


def test_a_hangup_that_is_ignored_stays_so() -> None:
    program = "from flows.signals import obey; obey(); import signal, os; print(1, flush=True);"
    program += "os.kill(os.getpid(), signal.SIGHUP); print(2)"
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        child = python(program)
    finally:
        signal.signal(signal.SIGHUP, former)
    assert child.communicate(timeout=PATIENCE)[0] == "1\n2\n"


WRITES = """
import sys
from flows.output import tolerate_closed
tolerate_closed()
for number in range(2000):
    print("x" * 100)
    print("y" * 100, file=sys.stderr)
sys.exit(7)
"""


@pytest.mark.parametrize(
    "shell", ["2>&1 | head -1", ">&- 2>&-", ">/dev/full 2>&1", "2>&1 | true", ">&-", "2>&-"]
)
def test_output_that_cannot_be_written_changes_no_exit_code(shell: str) -> None:
    script = f'{{ "$0" -c "$1"; echo $? >&3; }} {shell}'
    done = subprocess.run(
        ["sh", "-c", f"{{ {script}; }} 3>&1 >/dev/null 2>/dev/null", sys.executable, WRITES],
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout == "7\n"


def test_output_that_can_be_written_is_all_there() -> None:
    child = python(WRITES)
    out, err = child.communicate(timeout=PATIENCE)
    assert (len(out), len(err), child.returncode) == (202_000, 202_000, 7)
