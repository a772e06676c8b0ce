"""What is said between the orchestrator and the agent on a host: typed, spelled once.

Standard input carries one job (a line of JSON), then one line for each question the agent asks.
Standard output carries events, one line each. `Lease*`, `VolumeSealed` and `Stored` are questions:
the agent waits for the answer named in their description, one question at a time. All other
events need none. The last event is `Done` (exit code 0) or `Failed` (exit code 1).
Byte counts are bytes; times are seconds since the epoch by the host's clock.
"""

from typing import Any

from blocks.agent.protocol.events import Answer, Event
from blocks.agent.protocol.jobs import Job
from blocks.artifact import wire


def to_line(value: Job | Event | Answer) -> str:
    """One line of JSON, with its line feed."""
    return wire.dumps(value) + "\n"


def from_line(kind: Any, line: str | bytes) -> Any:
    """The Job, Event or Answer that `line` holds: `from_line(Event, line)`. Raises WireError."""
    return wire.loads(kind, line)
