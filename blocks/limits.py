"""Time limits for calls that have none themselves."""

import contextvars
import threading
from asyncio import CancelledError
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

Cancelled = CancelledError
"""What Prefect raises in the middle of a task whose time limit has come."""


def within(
    seconds: float,
    call: Callable[[], T],
    *,
    late: Callable[[], Exception],
    discard: Callable[[T], object] = lambda _: None,
) -> T:
    """What `call` returns; raises what it raises, and what `late` makes after `seconds`.

    It runs in a daemon thread, which is left behind when it is late or when a signal ends the
    wait: what it then still returns goes to `discard`, so that nothing stays open.
    """
    lock = threading.Lock()
    ended = threading.Event()
    abandoned = False
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 (raised again below)
            errors.append(error)
        else:
            with lock:
                if not abandoned:
                    results.append(result)
                    ended.set()
                    return
            discard(result)
        ended.set()

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="within", daemon=True).start()
    try:
        ended.wait(seconds)
    finally:
        with lock:
            abandoned = True
    if errors:
        raise errors[0]
    if results:
        return results[0]
    raise late()


def briefly(call: Callable[[], object], seconds: float = 2.0) -> None:
    """Try `call`, for so long and no longer; that it fails or hangs is of no importance."""

    def ignored() -> None:
        try:
            call()
        except Exception:  # noqa: BLE001 (its failure is of no importance)
            return

    thread = threading.Thread(target=ignored, name="briefly", daemon=True)
    thread.start()
    thread.join(seconds)
