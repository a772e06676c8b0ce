"""The agent's end of the conversation: questions with answers, and events without."""

import os
import queue
import threading
from collections.abc import Callable
from typing import BinaryIO, TypeVar

from blocks.agent.failure import JobFailed
from blocks.agent.protocol import from_line, to_line
from blocks.agent.protocol.events import Answer, Event, Ok, Stop

A = TypeVar("A")


class Channel:
    """Lines in on one file, lines out on another; used from any thread.

    Once `listen` was called, the end of the input means that nobody is there any more:
    `on_lost` runs, on the listening thread.
    """

    def __init__(self, incoming: BinaryIO, outgoing: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._writing = threading.Lock()
        self._asking = threading.Lock()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.stop = threading.Event()

    def listen(self, on_lost: Callable[[], None]) -> None:
        """Read answers from now on."""
        threading.Thread(target=self._listen, args=(on_lost,), daemon=True).start()

    def tell(self, event: Event) -> None:
        """Say something that needs no answer. Raises OSError if nobody reads."""
        data = to_line(event).encode()
        with self._writing:
            while data:
                data = data[os.write(self._outgoing, data) :]

    def ask(self, event: Event, kind: type[A]) -> A:
        """Ask, and wait for the answer. One question is open at a time. Raises JobFailed."""
        with self._asking:
            self.tell(event)
            answer = self._answers.get()
        if not isinstance(answer, kind):
            raise JobFailed("internal", f"{kind.__name__} was expected as an answer")
        return answer

    def confirm(self, event: Event) -> None:
        """Ask for something to be done, and wait until it is. Raises JobFailed."""
        self.ask(event, Ok)

    def _listen(self, on_lost: Callable[[], None]) -> None:
        for line in self._incoming:
            answer: Answer = from_line(Answer, line)
            if isinstance(answer, Stop):
                self.stop.set()
            else:
                self._answers.put(answer)
        on_lost()
