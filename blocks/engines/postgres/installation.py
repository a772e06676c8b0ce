"""What a recovery host's installation of PostgreSQL has: libraries, extensions, locales, zones."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from blocks.artifact import wire
from blocks.hosts.host import Host

# Runs on the host, by its Python: `bin_dir`, and what to look for as JSON on standard input.
# Where pg_config is missing (some packages bring it with the developer's files only), the
# directories are those of the usual layouts, or those that the server's program itself names.
_LOOK = r"""
import json, locale, os, re, shutil, subprocess, sys, tempfile
bin_dir, wanted = sys.argv[1], json.load(sys.stdin)
server = os.path.realpath(os.path.join(bin_dir, "postgres"))

def told(option):
    for folder in (bin_dir, os.path.dirname(server)):
        try:
            done = subprocess.run([os.path.join(folder, "pg_config"), option],
                                  capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            yield done.stdout.strip()

def layouts(*names):
    for folder in (bin_dir, os.path.dirname(server)):
        top = folder.rpartition("/bin")[0]
        for name in names:
            yield f"{top}/{name}"

def compiled():
    try:
        with open(server, "rb") as file:
            text = file.read()
    except OSError:
        return
    for path in set(re.findall(rb"\0(/[\x21-\x7e]{2,200})\0", text)):
        yield path.decode()

def place(option, names, sign):
    for candidates in (told(option), layouts(*names), compiled()):
        for path in candidates:
            if os.path.isfile(os.path.join(path, sign)):
                return path
    return None

lib = place("--pkglibdir", ("lib", "lib64", "lib/pgsql", "lib64/pgsql", "lib/postgresql",
                            "lib64/postgresql"), "plpgsql.so")
share = place("--sharedir", ("share", "share/pgsql", "share/postgresql"),
              "extension/plpgsql.control")

def library(name):
    name = name.removeprefix("$libdir/")
    if not name.startswith("/"):
        if lib is None:
            return "unseen"
        name = os.path.join(lib, name)
    path = next((p for p in (name, name + ".so") if os.path.isfile(p)), None)
    if path is None:
        return "missing"
    if shutil.which("ldd") is None:
        return ""
    done = subprocess.run(["ldd", path], capture_output=True, text=True)
    lacking = [line.split()[0] for line in done.stdout.splitlines() if "not found" in line]
    if lacking:
        return "needs " + ", ".join(lacking)
    return "" if done.returncode == 0 else "is no shared library"

def extension(name):
    if share is None:
        return "unseen"
    path = os.path.join(share, "extension", name + ".control")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return "missing"
    module = re.search(r"^\s*module_pathname\s*=\s*'([^']+)'", text, re.MULTILINE)
    said = library(module[1]) if module else ""
    return f"library {module[1]} {'is missing' if said == 'missing' else said}" if (
        said not in ("", "unseen")) else ""

def known_locale(name):
    try:
        locale.setlocale(locale.LC_ALL, name)
    except (locale.Error, ValueError):
        return "missing"
    return ""

def zones():
    own = os.path.join(share or "", "timezone")
    top = own if share and os.path.isdir(own) else "/usr/share/zoneinfo"
    return {os.path.relpath(os.path.join(folder, name), top).lower()
            for folder, _, names in os.walk(top) for name in names}

def abbreviations(name, within=0):
    if share is None:
        return "unseen"
    # What the server itself takes: a name of letters, and no more than three files within others.
    if not re.fullmatch("[A-Za-z]+", name) or within > 3:
        return "missing"
    try:
        with open(os.path.join(share, "timezonesets", name), errors="replace") as file:
            text = file.read()
    except OSError:
        return "missing"
    for other in re.findall(r"^\s*@INCLUDE\s+(\S+)", text, re.MULTILINE | re.IGNORECASE):
        if abbreviations(other, within + 1):
            return f"includes {other}, which is missing"
    return ""

def setting(text):
    # With -C first, the server says what it would have, starts nothing and lets root ask.
    with tempfile.TemporaryDirectory() as empty:
        open(os.path.join(empty, "postgresql.conf"), "w").close()
        ask = [server, "-C", text.partition("=")[0], "-D", empty]
        try:
            known, done = (subprocess.run(argv, capture_output=True, timeout=20).returncode
                           for argv in (ask, [*ask, "-c", text]))
        except (OSError, subprocess.TimeoutExpired):
            return "unseen"
    return "unseen" if known else "refused" if done else ""

known = zones() if wanted["zones"] else set()
json.dump({
    "libraries": {name: library(name) for name in wanted["libraries"]},
    "extensions": {name: extension(name) for name in wanted["extensions"]},
    "locales": {name: known_locale(name) for name in wanted["locales"]},
    "zones": {name: "" if name.lower() in known or not known else "missing"
              for name in wanted["zones"]},
    "abbreviations": {name: abbreviations(name) for name in wanted["abbreviations"]},
    "settings": {text: setting(text) for text in wanted["settings"]},
}, sys.stdout)
"""

UNSEEN = "unseen"
"""Where something would have to lie cannot be told."""


@dataclass(frozen=True)
class Installation:
    """The programs of one recovery host; looked at once, for everything that is wanted."""

    host: Host
    bin_dir: str
    libraries: Iterable[str] = ()
    extensions: Iterable[str] = ()
    locales: Iterable[str] = ()
    zones: Iterable[str] = ()
    abbreviations: Iterable[str] = ()
    """Names of the sets of time zone abbreviations."""
    settings: Iterable[str] = ()
    """`NAME=VALUE` of which a build may know only some values."""

    @cached_property
    def _found(self) -> Mapping[str, Mapping[str, str]]:
        wanted = {
            "libraries": sorted(set(self.libraries)),
            "extensions": sorted(set(self.extensions)),
            "locales": sorted(set(self.locales)),
            "zones": sorted(set(self.zones)),
            "abbreviations": sorted(set(self.abbreviations)),
            "settings": sorted(set(self.settings)),
        }
        if not any(wanted.values()):
            return {kind: {} for kind in wanted}
        argv = [self.host.python, "-c", _LOOK, self.bin_dir]
        done = self.host.run(argv, input=json.dumps(wanted).encode(), timeout=120)
        # What an account's start-up files print comes before it.
        found: dict[str, dict[str, str]] = wire.parsed(done.text.rpartition("\n")[2])
        return found

    def lacking(self, kind: str) -> dict[str, str]:
        """What of a kind is not there, and why.

        Kinds are `libraries`, `extensions`, `locales`, `zones`, `abbreviations` and `settings`.
        Raises as Host.run. What cannot be told is left out.
        """
        return {name: why for name, why in self._found[kind].items() if why not in ("", UNSEEN)}

    def unseen(self, kind: str) -> list[str]:
        """What of a kind cannot be told."""
        return [name for name, why in self._found[kind].items() if why == UNSEEN]
