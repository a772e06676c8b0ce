"""What shows that a rehearsal made something: a token in a file in each directory that it made.

A path alone is no proof: a recovered production database may lie there now. Servers bear
the token in their environment from their start. Standard library only.
"""

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from blocks.agent.protocol.parts import MadePath

FILE = "farside-stamp"
"""In each directory that a rehearsal made or found empty. Not hidden: it goes with `rm -rf *`."""
VARIABLE = "FARSIDE_STAMP"
"""In the environment of what a rehearsal started."""


class Occupied(Exception):
    """A target is not free: something is there that no rehearsal may touch."""


def text(rehearsal_id: str, token: str) -> str:
    """The stamp of a rehearsal, in a file as in an environment."""
    return f"{rehearsal_id}:{token}"


def take(path: Path, mark: str) -> MadePath:
    """Make a directory, or find it empty, and stamp it. Raises Occupied, OSError."""
    found = False
    parents = tuple(str(parent) for parent in path.parents if not parent.exists())
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if path.is_symlink() or not path.is_dir():
            raise Occupied(f"{path} is no directory") from None
        found = True
    try:
        file = os.open(path / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Occupied(f"{path} belongs to another rehearsal") from None
    with os.fdopen(file, "w") as stream:
        stream.write(mark)
    info = path.lstat()
    mode = stat.S_IMODE(info.st_mode) if found else None
    made = MadePath(
        path=str(path),
        device=info.st_dev,
        inode=info.st_ino,
        found=found,
        mode=mode,
        parents=parents,
    )
    if os.listdir(path) != [FILE]:  # noqa: PTH208 (names)
        (path / FILE).unlink()
        raise Occupied(f"{path} is not empty")
    path.chmod(0o700)
    return made


def bears(made: MadePath, mark: str) -> bool:
    """Whether what lies at a path now is what the rehearsal with that stamp made.

    So does one that is empty now, where it is known which it was: a removal was broken off.
    """
    path = Path(made.path)
    try:
        info = path.lstat()
        known = (info.st_dev, info.st_ino) == (made.device, made.inode)
        if known and not any(path.iterdir()):
            return True
        return (known or made.inode is None) and (path / FILE).read_text() == mark
    except (OSError, ValueError):
        return False


def remove(made: MadePath) -> bool:
    """Remove a directory that `bears` its stamp; one that was found empty is as it was found.

    Whether that was done: what something writes to meanwhile stays, with its stamp.

    Of the directories above it that were made for it, those that are empty now go, too.
    """
    path = Path(made.path)
    if made.found and made.mode is not None:
        path.chmod(made.mode)
    if not empty(path, FILE):
        return False
    if not made.found:
        with suppress(OSError):
            for directory in (made.path, *made.parents):
                os.rmdir(directory)  # noqa: PTH106 (a text)
    return made.found or not path.exists()


def empty(path: Path, last: str) -> bool:
    """Remove what is in a directory, and at the end, if that was all, the file `last`.

    By that file what lies there is recognised: whatever breaks this off, it can be done again.
    """
    for entry in path.iterdir():
        if entry.name == last:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with suppress(OSError):
                entry.unlink()
    if any(entry.name != last for entry in path.iterdir()):
        return False
    (path / last).unlink(missing_ok=True)
    return True
