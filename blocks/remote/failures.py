"""How a job fails: for good, or so that it may succeed when it is run again."""

from blocks.agent.protocol.parts import Code
from blocks.errors import PermanentError, TransientError
from blocks.evidence.catalogue import id_of_code


class AgentFailed(PermanentError):
    """A job failed for good. `code` says how, as `blocks.agent.protocol.parts.Code` lists."""

    def __init__(self, message: str, *, code: Code, **where: str) -> None:
        super().__init__(message, **where)
        self.code = code
        self.finding = id_of_code(code)


class AgentInterrupted(TransientError):
    """A job failed and may succeed when it is run again. `code` as for AgentFailed."""

    def __init__(self, message: str, *, code: Code, **where: str) -> None:
        super().__init__(message, **where)
        self.code = code
