"""Parts of a teardown: independent of each other, each with its own time limit."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from blocks.errors import FarsideError, TransientError
from blocks.evidence.catalogue import FindingId, Severity
from blocks.evidence.findings import Finding, finding
from blocks.evidence.stages import StageName
from tasks.reporting.clock import StageInProgress

_ATTEMPTS = 2
_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Part:
    """Something to end or remove, and what remains of it as findings.

    It begins when every part named in `after` has ended, well or badly, or has used up its time.
    `subject` is what a finding is about if the part fails or takes longer than `seconds`.
    """

    name: str
    subject: str
    run: Callable[[], Iterable[Finding]]
    seconds: float
    after: tuple[str, ...] = ()


def run_parts(parts: Sequence[Part], clock: StageInProgress) -> list[Finding]:
    """Run all parts, each as a step of the stage; returns what they found.

    Raises nothing: a part that fails, or hangs, is a finding and keeps no other from running. A
    transient failure is tried once more.
    """
    runs = {part.name: _Run(part) for part in parts}
    for run in runs.values():
        run.start(clock, [runs[name] for name in run.part.after if name in runs])
    return [item for run in runs.values() for item in run.outcome()]


def left_over(subject: str, evidence: str) -> Finding:
    """What remains of this very rehearsal: more severe than what remains of an earlier one."""
    return finding(
        FindingId.LEFTOVERS, subject, evidence, StageName.TEARDOWN, severity=Severity.HIGH
    )


class _Run:
    """A part that runs in its own thread. It is left behind when it hangs."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._began = threading.Event()
        self._ended = threading.Event()
        self._deadline = 0.0
        self._found: list[Finding] = []

    def start(self, clock: StageInProgress, before: "list[_Run]") -> None:
        name = f"teardown {self.part.name}"
        threading.Thread(target=self._work, args=(clock, before), name=name, daemon=True).start()

    def _work(self, clock: StageInProgress, before: "list[_Run]") -> None:
        for run in before:
            run.wait()
        self._deadline = time.monotonic() + self.part.seconds
        self._began.set()
        try:
            with clock.step(self.part.name):
                self._attempt()
        except FarsideError as error:
            self._found.append(left_over(self.part.subject, error.message))
        except BaseException as error:  # noqa: BLE001 (what breaks one part of a teardown hinders no other)
            text = f"{self.part.name} failed: {type(error).__name__}: {error}"
            self._found.append(left_over(self.part.subject, text))
        finally:
            self._ended.set()

    def _attempt(self) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._found.extend(self.part.run())
                return
            except TransientError:
                if attempt == _ATTEMPTS or time.monotonic() + _PAUSE >= self._deadline:
                    raise
            time.sleep(_PAUSE)

    def wait(self) -> bool:
        """Whether it has ended, once it has or its time is up."""
        self._began.wait()
        return self._ended.wait(max(0.0, self._deadline - time.monotonic()))

    def outcome(self) -> list[Finding]:
        if self.wait():
            return self._found
        text = f"{self.part.name} did not end within {self.part.seconds:g} s"
        return [*self._found, left_over(self.part.subject, text)]
