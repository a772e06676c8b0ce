"""A program as an engine may have one: brought to a host with the agent, it answers there."""

import os
import sys
from collections import Counter
from dataclasses import field
from pathlib import Path

from blocks.agent.channel import Channel
from blocks.agent.child import printed
from blocks.agent.failure import JobFailed
from blocks.agent.messages import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What is asked: how often each word is in what `argv` prints, which reads `secret`."""

    argv: tuple[str, ...]
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How often each word was there, and what the host could see of this program."""

    words: dict[str, int]
    arguments: str
    imported: tuple[str, ...]


def run(asked: Words, _channel: Channel) -> Counts:
    """Raises JobFailed."""
    words = printed(asked.argv, asked.secret).decode().split()
    if not words:
        raise JobFailed("child-failed", "no words")
    arguments = Path(f"/proc/{os.getpid()}/cmdline").read_text().replace("\0", " ")
    return Counts(words=dict(Counter(words)), arguments=arguments, imported=tuple(sys.modules))
