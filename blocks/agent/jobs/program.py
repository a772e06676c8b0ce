"""The job `program`: what an engine does on a host itself, by a module that came with the agent."""

import importlib
import typing

from blocks.agent.channel import Channel
from blocks.agent.protocol.jobs import ProgramJob
from blocks.agent.protocol.results import ProgramResult
from blocks.artifact import wire


def run(job: ProgramJob, channel: Channel) -> ProgramResult:
    """Raises what the module's own `run` does, and WireError for a request that it cannot read."""
    program = importlib.import_module(job.module).run
    request, *_ = typing.get_type_hints(program).values()
    answer = program(wire.decode(request, job.request), channel)
    return ProgramResult(answer=wire.encode(answer))
