"""A fence that a site's own commands raise and lift."""

import hashlib
import json
from collections import Counter
from datetime import UTC, datetime
from typing import ClassVar, Literal

from pydantic import Field, PrivateAttr, ValidationError

from blocks.agent.redaction import redacted
from blocks.errors import FarsideError
from blocks.evidence.uses import ORCHESTRATOR
from blocks.fences.fence import (
    Attempt,
    Fence,
    FenceBroken,
    FenceNotRaised,
    FilterMissing,
    Gap,
    Observed,
    when,
)
from blocks.hosts.local import LocalHost
from blocks.hosts.process import CommandFailed


class CommandFence(Fence):
    """A fence made of the site's own commands, run by farside where it runs itself.

    The commands know no rehearsals, and operators may run them, too: it is lifted only for a
    rehearsal whose lease says that it has raised it, and by the last one whose lease does.
    """

    _block_type_name: ClassVar[str | None] = "farside command fence"
    _block_type_slug: ClassVar[str | None] = "farside-command-fence"
    _description: ClassVar[str | None] = "Cuts a failure domain off with the site's own commands."

    kind: Literal["command"] = Field(
        default="command", description="command: a fence of the site's own commands."
    )
    raise_argv: list[str] = Field(
        min_length=1,
        description="Command that makes the source unreachable from the recovery hosts, run where "
        "farside runs. It must be idempotent.",
    )
    lift_argv: list[str] = Field(
        min_length=1,
        description="Command that undoes it. It must be idempotent, and do no harm where nothing "
        "is cut. Plans with the same words share one fence.",
    )
    observe_argv: list[str] = Field(
        default=[],
        description="Command that prints each call to the source that was caught, a JSON object "
        "on a line: at (with its time zone), host, address, port, and pid and process where "
        "known; farside's own calls among them. Without it, what calls the source is not known.",
    )
    check_argv: list[str] = Field(
        default=[],
        description="Command that ends with exit code 0 if raise_argv and lift_argv could do "
        "their work, and changes nothing; run at preflight. Without it, only the programs are "
        "looked for.",
    )
    timeout_seconds: float = Field(
        default=60.0, gt=0, description="Time limit of each command, in seconds. Default: 60."
    )

    _before: Counter[Attempt] = PrivateAttr(default_factory=Counter)
    """What was told of before the source was lost."""

    def check(self, gap: Gap) -> None:  # noqa: ARG002 (the commands know what they cut)
        """See Fence. Without check_argv it is only seen that the programs are there."""
        for argv in filter(None, (self.raise_argv, self.lift_argv, self.observe_argv)):
            try:
                self._run(["sh", "-c", 'command -v "$1" >/dev/null', "sh", argv[0]])
            except CommandFailed:
                raise FilterMissing(
                    f"{argv[0]} is not there, or cannot be run",
                    operation="fence",
                    subject=f"fence {argv[0]}",
                    hint="install it where farside runs, or correct the fence in the plan",
                ) from None
        if self.check_argv:
            try:
                self._run(self.check_argv)
            except CommandFailed as error:
                hint = "mend what check_argv of the fence reports: no fence is raised until then"
                raise FenceNotRaised(error.message, operation="fence", hint=hint) from None

    def remember(self, gap: Gap) -> None:  # noqa: ARG002 (as above)
        """See Fence. A tool that tells nothing before the source is lost may tell after it."""
        self._before = Counter(self._told().attempts)

    def cut(self, gap: Gap) -> datetime:  # noqa: ARG002 (as above)
        """See Fence."""
        at = datetime.now(UTC)
        self._run(self.raise_argv)
        return at

    def lift(self, gap: Gap) -> frozenset[str]:
        """See Fence."""
        owners = frozenset(
            rehearsal_id for rehearsal_id, marks in gap.raised.items() if self.marks <= marks
        )
        alive = gap.spared if gap.ended is None else gap.spared | (owners - gap.ended)
        holders = (owners & alive) - {gap.rehearsal_id}
        if not holders and (gap.rehearsal_id is not None or owners):
            self._run(self.lift_argv)
        return holders

    def attempts(self, gap: Gap) -> Observed:  # noqa: ARG002 (as above)
        """See Fence."""
        told = self._told()
        new = Counter(told.attempts) - self._before
        return Observed(tuple(sorted(new.elements(), key=when)), told.unseen)

    def _told(self) -> Observed:
        """All that the site's tool remembers, of other days as well."""
        if not self.tells:
            return Observed()
        found, unseen = list[Attempt](), list[FarsideError]()
        try:
            done = self._here().run(self.observe_argv, timeout=self.timeout_seconds, check=False)
            for line in filter(None, done.text.split("\n")):
                try:
                    found.append(_attempt(line))
                except FenceBroken as error:
                    unseen.append(error)
            if done.exit_code != 0:
                said = redacted(done.stderr.decode(errors="replace").strip())[-500:]
                text = f"{self.observe_argv[0]} ended with exit code {done.exit_code}: {said}"
                unseen.append(FenceBroken(text, operation="fence"))
        except FarsideError as error:
            unseen.append(error)
        return Observed(tuple(found), tuple(unseen))

    @property
    def marks(self) -> frozenset[str]:
        """See Fence: plans that lift with the same words share what they raise."""
        words = json.dumps(self.lift_argv).encode()
        return frozenset({hashlib.sha256(words).hexdigest()[:16]})

    @property
    def tells(self) -> bool:
        """See Fence."""
        return bool(self.observe_argv)

    @property
    def untried(self) -> tuple[str, ...]:
        """See Fence."""
        return () if self.check_argv else (self.raise_argv[0],)

    @property
    def shuts_names(self) -> bool:
        """See Fence: whatever the site's own tool can."""
        return True

    def _run(self, argv: list[str]) -> None:
        self._here().run(argv, timeout=self.timeout_seconds)

    def _here(self) -> LocalHost:
        here = LocalHost(name="fence")
        here.join(ORCHESTRATOR)
        return here


def _attempt(line: str) -> Attempt:
    try:
        return Attempt.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise FenceBroken(
            f"observe_argv printed {line[:200]!r}: {field}: {first['msg']}",
            operation="fence",
            hint="it must print a JSON object a line with at, host, address and port",
        ) from None
