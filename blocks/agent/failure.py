"""A job's failure, as the orchestrator is told it."""

import errno
import sys

from blocks.agent.protocol.events import Failed
from blocks.agent.protocol.parts import Code
from blocks.errors import FarsideError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_TEXT = ("No space left on device", "Disk quota exceeded")


class JobFailed(FarsideError):
    """Ends a job. `transient` says that the same job may succeed if it is run again."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        hint: str = "",
        transient: bool = False,
        host_errno: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.transient = transient
        self.host_errno = host_errno


def no_space(where: str) -> JobFailed:
    """A disk is full, while `where` was written."""
    return JobFailed(
        "no-space",
        f"no space left for {where}",
        hint="free space on that disk, or restore to a larger one",
        host_errno=errno.ENOSPC,
    )


def speaks_of_full_disk(text: str) -> bool:
    """Whether a program's last words say that a disk is full."""
    return any(phrase in text for phrase in _FULL_TEXT)


def of_os_error(error: OSError, doing: str) -> JobFailed:
    """The failure that an OSError on this host means."""
    if error.errno in _FULL:
        return no_space(error.filename or doing)
    return JobFailed(
        "internal",
        f"{doing}: {error.strerror or type(error).__name__}"
        + (f": {error.filename}" if error.filename else ""),
        hint="look at the path's owner and mode on this host",
        host_errno=error.errno,
    )


def to_event(error: BaseException) -> Failed:
    """The event that says why a job failed; an exception nobody expected is `internal`."""
    if isinstance(error, JobFailed):
        return Failed(
            kind="transient" if error.transient else "permanent",
            code=error.code,
            message=error.message,
            hint=error.hint,
            host_errno=error.host_errno,
        )
    if isinstance(error, FarsideError):
        code: Code = _CODES.get(type(error).__name__, "internal")
        return Failed(kind="permanent", code=code, message=error.message, hint=error.hint)
    if isinstance(error, OSError):
        return to_event(of_os_error(error, "on this host"))
    if isinstance(error, ModuleNotFoundError):
        return Failed(
            kind="permanent",
            code="tool-missing",
            message=f"Python module {error.name} is not installed for this interpreter",
            hint="give the host a `python` that has its whole standard library"
            if error.name in sys.stdlib_module_names
            else "install cryptography and zstandard for the host's `python`",
        )
    # The text of an unexpected exception could repeat a URL or a key: its type and place cannot.
    return Failed(kind="permanent", code="internal", message=f"a bug: {_place(error)}")


# By name: importing the classes would need `cryptography`, which half of the jobs do without.
_CODES: dict[str, Code] = {"AgeMalformed": "age-malformed", "AgeNoIdentity": "age-no-identity"}


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace else ""
    return type(error).__name__ + where
