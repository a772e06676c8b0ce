"""Threads that do the same for several things at once, and that nothing waits for at the end."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Workers(Executor):
    """A pool of at most `most` daemon threads.

    Unlike a ThreadPoolExecutor it joins no thread: neither when it is left early (by an error, a
    signal or a time limit), nor when the process ends. A call that hangs delays nothing but its
    own future.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._threads = 0
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See Executor."""
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 (raised again by the future)
                future.set_exception(error)
            else:
                future.set_result(result)

        self._calls.put(call)
        if self._threads < self._most:
            self._threads += 1
            name = f"{self._name}-{self._threads}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        return future

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 (Executor's own)
        """Let the threads end once their calls have; waits for none of them."""
        for _ in range(self._threads):
            self._calls.put(None)

    def __exit__(self, *_: Any) -> None:
        """See `shutdown`. Ask the futures for what was done."""
        self.shutdown()
