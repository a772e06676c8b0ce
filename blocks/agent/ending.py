"""How the agent ends, however it ends: its programs first, then what must not outlive it."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable

from blocks.agent import child, scratch
from blocks.agent.channel import Channel
from blocks.agent.failure import to_event
from blocks.agent.protocol.events import Done, Failed

_last_acts: list[Callable[[], None]] = []
_lock = threading.RLock()
_acting = False


def before_end(act: Callable[[], None]) -> None:
    """Have `act` done once, after the agent's programs have ended: what burdens a server goes."""
    _last_acts.append(act)


def do_last_acts() -> None:
    """Do now what is left to be done before the end. Waits for another thread that does so."""
    global _acting
    with _lock:
        _acting = True
        while _last_acts:
            with contextlib.suppress(Exception):
                _last_acts.pop()()
        _acting = False


def is_acting() -> bool:
    """Whether the last acts are being done: a signal must not cut them off."""
    return _acting


def fail(channel: Channel, error: BaseException) -> None:
    """End the agent because of `error`, from any thread: nothing of what it started remains."""
    child.kill_all()
    do_last_acts()
    scratch.remove_all()
    finish(channel, to_event(error))


def finish(channel: Channel, event: Done | Failed) -> None:
    """Say the last word, and end the process at once: a thread that waits must not hold it."""
    with contextlib.suppress(OSError):  # the reader is gone; the exit code still tells
        channel.tell(event)
    sys.stderr.flush()
    os._exit(0 if isinstance(event, Done) else 1)
