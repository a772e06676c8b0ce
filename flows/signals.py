"""Signals: what ends a command, what is told at once, and what may not be interrupted."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a rehearsal, with its teardown."""

_came: list[signal.Signals] = []


def obey() -> None:
    """End the command in good order at the first signal; later ones are ignored.

    SIGHUP stays ignored where it was at the start: that is what nohup asks for.
    """
    for number in ENDING:
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (signal's own)
    """Raise KeyboardInterrupt, once: teardown, which follows, must not be ended by another."""
    _came.append(signal.Signals(number))
    if len(_came) == 1:
        raise KeyboardInterrupt


def obey_hangup() -> None:
    """Let SIGHUP end a flow that runs without the command line, unless it is ignored."""
    if _in_main_thread() and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _end)


@contextmanager
def deferred() -> Iterator[list[signal.Signals]]:
    """Note signals, in the list that is yielded, and let none interrupt what runs inside."""
    came: list[signal.Signals] = []
    if not _in_main_thread():
        yield came
        return

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (signal's own)
        came.append(signal.Signals(number))

    former = {number: signal.getsignal(number) for number in ENDING}
    former = {
        number: handler
        for number, handler in former.items()
        if handler not in (signal.SIG_IGN, None)
    }
    for number in former:
        signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def told(tell: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call `tell`, in a thread of its own, as soon as a signal comes that is not ignored.

    Whatever the main thread waits for, and whoever handles the signal there.
    """
    if not _in_main_thread():
        yield
        return
    hearing, telling = socket.socketpair()
    telling.setblocking(False)

    def listen() -> None:
        while data := hearing.recv(64):
            for number in data:
                if number in ENDING:
                    tell(signal.Signals(number))
        hearing.close()

    threading.Thread(target=listen, name="signals", daemon=True).start()
    former = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        telling.close()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
