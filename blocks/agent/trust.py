"""Which directories farside believes: those that no other account can have put there."""

import os
import stat
from pathlib import Path

from blocks.agent import origins
from blocks.agent.failure import JobFailed


class Untrusted(JobFailed):
    """Another account or machine could have written this; the message says where and why."""

    def __init__(self, message: str) -> None:
        super().__init__(
            "untrusted", message, hint="give work_dir a directory that only this account can write"
        )


def check(path: Path) -> None:
    """Raise Untrusted unless only this account can have made what lies at `path`.

    It is this account's, writable by no other; no link lies on the way; and each directory above
    is root's or this account's, writable by others only where they cannot rename what is not
    theirs. It is on no network file system: what one machine notes there, another would take for
    its own. Raises OSError where one cannot be looked at.
    """
    if not path.is_absolute() or ".." in path.parts:
        raise Untrusted(f"{path} is not a plain absolute path")
    for place in (*reversed(path.parents), path):
        info = place.lstat()
        if stat.S_ISLNK(info.st_mode):
            raise Untrusted(f"{place} is a link: give the path that it leads to")
        if info.st_uid not in ((os.geteuid(),) if place == path else (0, os.geteuid())):
            raise Untrusted(f"{place} belongs to another account (uid {info.st_uid})")
        if info.st_mode & 0o022 and (place == path or not info.st_mode & stat.S_ISVTX):
            raise Untrusted(f"other accounts may write to {place}")
    if server := origins.server_of(str(path)):
        raise Untrusted(f"{path} is on a network file system, of {server}: other machines see it")
