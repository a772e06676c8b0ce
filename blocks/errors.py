"""Two kinds of error decide what is retried: permanent, tell the operator; transient, try again."""


class FarsideError(Exception):
    """What failed, where, and what to do next.

    `operation`, `domain` and `host` say where; `hint` is the operator's next step. Text given
    here reaches logs, the terminal and the record: it never holds a secret. `finding` is the id of
    the broken assumption that such an error stands for, if it stands for one, and `subject` what
    that is about, if it is not the place.
    """

    finding: str | None = None

    def __init__(  # noqa: PLR0913 (each is a place or a hint that an error may name)
        self,
        message: str,
        *,
        operation: str = "",
        domain: str = "",
        host: str = "",
        hint: str = "",
        subject: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.domain = domain
        self.host = host
        self.hint = hint
        self.subject = subject

    def __str__(self) -> str:
        place = "/".join(part for part in (self.domain, self.host) if part)
        lead = ": ".join(part for part in (place, self.operation) if part)
        text = f"{lead}: {self.message}" if lead else self.message
        return f"{text} (next: {self.hint})" if self.hint else text


class PermanentError(FarsideError):
    """Trying again cannot help."""


class TransientError(FarsideError):
    """Trying again may help: a time limit, a broken connection, a busy server."""
