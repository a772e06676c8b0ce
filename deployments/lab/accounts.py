"""Whom the lab's services run as: never as root."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from blocks.errors import PermanentError

UNPRIVILEGED = "nobody"


class Identity(TypedDict, total=False):
    """Arguments of `subprocess` that make a process somebody else's."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """An account, and whether it is another one than the caller's."""

    name: str
    uid: int
    gid: int
    other: bool

    @property
    def identity(self) -> Identity:
        """How `subprocess` starts a process as this account."""
        if not self.other:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give a path to this account."""
        if self.other:
            os.chown(path, self.uid, self.gid)

    def can_enter(self, path: Path) -> bool:
        """True if this account can pass through a directory, or execute a file."""
        test = ["/bin/sh", "-c", 'test -x "$0"', str(path)]
        return subprocess.run(test, cwd="/", **self.identity, check=False).returncode == 0


def service_account() -> Account:
    """`nobody` for root, else the caller's own account.

    Raises PermanentError if root has no unprivileged account to use.
    """
    if os.getuid() != 0:
        return Account(_login(os.getuid()), os.getuid(), os.getgid(), other=False)
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise PermanentError(
            f"there is no account {UNPRIVILEGED}, and PostgreSQL does not run as root",
            operation="lab up",
            hint=f"create the account {UNPRIVILEGED}, or run the lab as an ordinary user",
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, other=True)


def _login(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        raise PermanentError(
            f"user id {uid} has no account, and PostgreSQL needs one",
            operation="lab up",
            hint="run the lab as a user that /etc/passwd knows",
        ) from None
