"""What a check has seen, object by object: what is wrong, and what could not be looked at.

The facts of a source are older than what is restored, and the source went on meanwhile. What it was
asked a second time, at its last look, tells its own changes from damage.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from blocks.engines.checks import Answer, judged, listed, unknown
from blocks.errors import FarsideError

NOT_ASKED = object()
"""In place of what the source had at its last look, where it was not asked again."""
_SINCE = "since the survey"


@dataclass(slots=True)
class Tally:
    """Collects what one check sees; `seen` counts what it could look at (databases, nodes)."""

    wrong: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    subjects: dict[str, list[str]] = field(default_factory=dict)
    """What is wrong with each thing that is to be a finding of its own."""
    seen: int = 0
    dropped: list[str] = field(default_factory=list)
    """What the source itself dropped since the survey."""
    changed: list[str] = field(default_factory=list)
    """What it made, or changed, since the survey."""

    def fail(self, text: str, subject: str = "") -> None:
        """Note something wrong; with a subject, it is a finding of its own."""
        self.wrong.append(text)
        if subject:
            self.subjects.setdefault(subject, []).append(text)

    def compare(  # noqa: PLR0913 (a value at three times, and what names it)
        self,
        label: str,
        text: str,
        found: object,
        first: object,
        last: object = NOT_ASKED,
        *,
        subject: str = "",
    ) -> None:
        """Hold what was restored against what the source had at its survey and at its last look.

        Either is right: the source itself changed it. Anything else is damage if the source had
        the same at both, and unknown if it did not. `text` says what is wrong; what is missing is
        false.
        """
        if found not in (first, last):
            if last is NOT_ASKED:
                self.unseen.append(f"{text}: damaged, or changed {_SINCE}; it was not asked again")
            elif last == first:
                self.fail(text, subject)
            else:
                self.unseen.append(f"{text}: the source changed it, too, {_SINCE}")
        elif last is not NOT_ASKED and last != first:
            moved = self.changed if last else self.dropped
            if label not in moved:  # each node is asked
                moved.append(label)

    @contextmanager
    def looking(self, at: str) -> Iterator[None]:
        """What breaks off inside hides nothing else; `at` is what was looked at."""
        try:
            yield
        except FarsideError as error:
            if self.is_damage(error):
                self.wrong.append(f"{at} cannot be read: {error.message}")
            else:
                self.unseen.append(f"{at}: {error.message}")

    def is_damage(self, error: FarsideError) -> bool:  # noqa: ARG002 (each engine has codes of its own)
        """Whether a server's refusal means that data are damaged: of all refusals, few do."""
        return False

    def answer(self, right: str) -> Answer:
        """Failed if anything is wrong; unknown if anything is unseen, or nothing was seen."""
        if self.dropped:
            right += f"; dropped at the source {_SINCE}: {listed(self.dropped)}"
        if self.changed:
            right += f"; changed at the source {_SINCE}: {listed(self.changed)}"
        if not self.wrong and (self.unseen or not self.seen):
            why = listed(self.unseen) or "there was nothing to look at"
            return unknown(why + (f" (seen: {right})" if self.seen else ""))
        found = judged(self.wrong, right, subjects=tuple(self.subjects))
        each = {subject: listed(texts) for subject, texts in self.subjects.items()}
        return replace(found, evidence=each)
