"""What a path leads to, and what a program needs, wherever it is."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.agent import origins
from blocks.agent.jobs.facts import run
from blocks.agent.protocol.jobs import FactsJob
from blocks.ownership import Belongings


@pytest.fixture
def east(tmp_path: Path) -> Path:
    (tmp_path / "east" / "data").mkdir(parents=True)
    (tmp_path / "west").mkdir()
    return tmp_path / "east"


@pytest.fixture
def foreign(east: Path) -> Belongings:
    return Belongings(networks=("10.1.0.0/16",), paths=(str(east),))


@pytest.fixture
def west(east: Path) -> Path:
    return east.parent / "west"


def test_links_are_followed_one_by_one(east: Path, west: Path, foreign: Belongings) -> None:
    (west / "near").symlink_to("far")
    (west / "far").symlink_to(east / "data")
    assert origins.trail(f"{west}/near/new")[:2] == (f"{west}/near/new", f"{west}/far")
    assert str(east) in origins.origin(f"{west}/near/new", foreign)
    assert origins.origin(f"{west}/own", foreign) == ""


def test_a_link_that_passes_through(east: Path, west: Path, foreign: Belongings) -> None:
    (west / "back").mkdir()
    (east / "hop").symlink_to(west / "back")
    (west / "there").symlink_to(east / "hop")
    assert str(east) in origins.origin(f"{west}/there", foreign)


@pytest.fixture
def bound(east: Path, west: Path) -> Iterator[Path]:
    (west / "data").mkdir()
    done = subprocess.run(
        ["mount", "--bind", east / "data", west / "data"], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("needs the right to mount")
    yield west / "data"
    subprocess.run(["umount", west / "data"], check=True)


def test_a_bind_mount(bound: Path, east: Path, foreign: Belongings) -> None:
    assert str(east / "data" / "sub") in origins.trail(f"{bound}/sub")
    assert str(east) in origins.origin(f"{bound}/sub", foreign)
    found = dict(origins.below(str(bound.parent), foreign))
    assert str(bound) in found


MOUNTS = """\
22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
40 22 0:45 / /mnt/nfs rw - nfs4 10.1.0.9:/export rw,addr=10.1.0.9
41 22 0:46 / /mnt/with\\040space rw - fuse.sshfs backup@db1:/srv rw
42 22 0:47 / /mnt/merged rw - overlay overlay rw,lowerdir=/usr:/mnt/east/base,upperdir=/up
43 22 8:1 /srv/east /mnt/part rw - ext4 /dev/sda1 rw
44 22 0:48 / /mnt/smb rw - cifs //10.1.0.9/share rw,username=app,password=hunter2,addr=10.1.0.9
"""


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/mnt/nfs/x", "10.1.0.9:/export (nfs4 rw,addr=10.1.0.9)"),
        ("/mnt/with space/x", "backup@db1:/srv (fuse.sshfs rw)"),
        ("/mnt/merged", "lowerdir=/usr:/mnt/east/base"),
        ("/mnt/part/sub", "/srv/east/sub"),
        ("/mnt/smb/x", "//10.1.0.9/share (cifs rw,username=app,password=***,addr=10.1.0.9)"),
    ],
)
def test_what_is_mounted(monkeypatch: pytest.MonkeyPatch, path: str, text: str) -> None:
    real = Path.read_text

    def read(self: Path, *words: str) -> str:
        return MOUNTS if str(self) == "/proc/self/mountinfo" else real(self, *words)

    monkeypatch.setattr(Path, "read_text", read)
    assert any(text in item for item in origins.trail(path)), origins.trail(path)


def mounted(*argv: str) -> None:
    done = subprocess.run(["mount", *argv], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("needs the right to mount")


def test_what_lies_on_something_that_lies_elsewhere(
    east: Path, west: Path, foreign: Belongings
) -> None:
    """An overlay over a bind mount, and over a link, of directories in the source."""
    for name in ("bound", "over", "linked", "up", "work", "up2", "work2"):
        (west / name).mkdir()
    (west / "link").symlink_to(east / "data")
    upper = f"upperdir={west}/up,workdir={west}/work"
    others = upper.replace("up,", "up2,").replace("/work", "/work2")
    mounted("--bind", f"{east}/data", f"{west}/bound")
    try:
        mounted("-t", "overlay", "o", "-o", f"lowerdir={west}/bound,{upper}", f"{west}/over")
        try:
            mounted("-t", "overlay", "o", "-o", f"lowerdir={west}/link,{others}", f"{west}/linked")
            try:
                for name in ("over", "linked"):
                    assert origins.origin(f"{west}/{name}", foreign), name
            finally:
                subprocess.run(["umount", west / "linked"], check=True)
        finally:
            subprocess.run(["umount", west / "over"], check=True)
    finally:
        subprocess.run(["umount", west / "bound"], check=True)


def secrets_of(vault: Path, foreign: Belongings) -> set[tuple[str, str]]:
    """What a facts job tells of a vault: what needs it, and what leads away."""
    job = FactsJob(vault=str(vault), foreign=foreign)
    return {(item.of, item.path) for item in run(job, None).origins}  # type: ignore[arg-type]


def test_a_vault_that_is_a_link(east: Path, west: Path, foreign: Belongings) -> None:
    (west / "vault").symlink_to(east / "data")
    assert secrets_of(west / "vault", foreign) == {(f"{west}/vault", f"{west}/vault")}


@pytest.mark.parametrize("hops", [1, 2])
def test_a_secret_that_is_a_link(east: Path, west: Path, foreign: Belongings, hops: int) -> None:
    (west / "vault").mkdir()
    (west / "vault" / "password").write_text("x")
    (east / "identity").write_text("x")
    (west / "hop").symlink_to(east / "identity")
    (west / "vault" / "identity").symlink_to(west / "hop" if hops == 2 else east / "identity")
    (west / "keys").symlink_to(west / "vault")
    for vault in (west / "vault", west / "keys"):
        assert secrets_of(vault, foreign) == {(str(vault), f"{vault}/identity")}


@pytest.mark.parametrize("linked", [True, False])
def test_a_secret_that_is_mounted(
    bound: Path, west: Path, foreign: Belongings, linked: bool
) -> None:
    (west / "keys").symlink_to(west)
    vault = west / "keys" if linked else west
    assert (str(vault), str(bound)) in secrets_of(vault, foreign)


def test_what_a_command_names_is_followed(east: Path, west: Path, foreign: Belongings) -> None:
    """What unlocks a vault may be a link; what lies plainly in the source is told of the plan."""
    (west / "unlock").symlink_to(east / "unlock")
    commands = ("age", "-i", f"{west}/unlock", f"sh -c 'cat {west}/unlock'", f"{east}/data")
    job = FactsJob(commands=commands, foreign=foreign, origins=True)
    found = [item for item in run(job, None).origins if item.of == "the plan's commands"]  # type: ignore[arg-type]
    assert [(item.kind, item.path) for item in found] == [("tool", f"{west}/unlock")]


def test_a_library_that_is_a_link(east: Path, west: Path, foreign: Belongings) -> None:
    if shutil.which("cc") is None:
        pytest.skip("needs a compiler")
    (west / "bin").mkdir()
    (west / "lib").mkdir()
    (west / "f.c").write_text("int f(void) { return 0; }\n")
    (west / "m.c").write_text("int f(void); int main(void) { return f(); }\n")
    subprocess.run(["cc", "-shared", "-o", east / "libf.so", west / "f.c"], check=True)
    (west / "lib" / "libf.so").symlink_to(east / "libf.so")
    program = west / "bin" / "tool"
    subprocess.run(
        ["cc", "-o", program, west / "m.c", f"-L{west}/lib", "-lf", f"-Wl,-rpath,{west}/lib"],
        check=True,
    )
    paths, lacking = origins.loaded(str(program))
    assert f"{west}/lib/libf.so" in paths
    assert lacking == ()
    result = run(FactsJob(tools=(str(program),), foreign=foreign, origins=True), None)  # type: ignore[arg-type]
    found = {(item.kind, item.path) for item in result.origins}
    assert ("tool", f"{west}/lib/libf.so") in found
    (west / "lib" / "libf.so").unlink()
    assert origins._libraries.__wrapped__(str(program))[1] == ("libf.so",)


def test_scripts_and_their_interpreters(east: Path, west: Path, foreign: Belongings) -> None:
    interpreter = west / "python"
    interpreter.symlink_to(east / "python")
    shutil.copy(os.path.realpath(sys.executable), east / "python")
    tool = west / "tool"
    tool.write_text(f"#!{interpreter}\nimport os\n# curl http://10.1.0.7/setup\n")
    tool.chmod(0o755)
    result = run(FactsJob(tools=(str(tool),), foreign=foreign, origins=True), None)  # type: ignore[arg-type]
    found = {(item.path, item.origin) for item in result.origins}
    assert (str(tool), "its line 3 names 10.1.0.7") in found
    assert str(interpreter) in {path for path, _ in found}


@pytest.mark.parametrize("where", ['$(dirname "$0")', "$HERE", "${0%/*}", "."])
def test_what_a_script_takes_in(east: Path, west: Path, foreign: Belongings, where: str) -> None:
    """The library beside it, and what that takes in, are read as the script itself is."""
    (west / "lib.sh").write_text(f". {west}/settings\nfetch() {{ curl http://10.1.0.8/; }}\n")
    (west / "settings").write_text(f"ok=1\nBASE={east}/data\n/bin/cat {west}/printed\n")
    (west / "printed").write_text("# 10.1.0.9\n")
    for name in ("run", "called"):
        (west / name).write_text("# 10.1.0.9\n")
    (west / "unused.sh").write_text("# 10.1.0.9\n")
    tool = west / "tool"
    lines = (f'set -e; . "{where}/lib.sh"', f'bash -eu "{where}/run" unused.sh', "echo unused.sh")
    tool.write_text("\n".join(("#!/bin/sh", *lines, f'if "{where}/called" -x; then exit; fi')))
    tool.chmod(0o755)
    result = run(FactsJob(tools=(str(tool),), foreign=foreign, origins=True), None)  # type: ignore[arg-type]
    found = {(item.path, item.origin) for item in result.origins}
    assert (f"{west}/lib.sh", "its line 2 names 10.1.0.8") in found
    assert (f"{west}/settings", f"its line 2 names {east}") in found
    assert {(f"{west}/{name}", "its line 1 names 10.1.0.9") for name in ("run", "called")} <= found
    assert {f"{west}/unused.sh", f"{west}/printed"}.isdisjoint(path for path, _ in found)


def test_what_python_reads_as_it_starts(
    west: Path, foreign: Belongings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (west / "site.pth").write_text("import os; os.environ['VAULT'] = 'https://10.1.0.8'\n")
    monkeypatch.syspath_prepend(str(west))
    result = run(FactsJob(foreign=foreign, origins=True), None)  # type: ignore[arg-type]
    found = [(item.of, item.path, item.origin) for item in result.origins]
    assert ("Python", f"{west}/site.pth", "its line 1 names 10.1.0.8") in found


def test_a_directory_is_told_of_with_what_lies_in_it(
    east: Path, west: Path, foreign: Belongings
) -> None:
    (west / "space").symlink_to(east / "data")
    result = run(FactsJob(directories=(str(west),), foreign=foreign, origins=True), None)  # type: ignore[arg-type]
    assert [(i.kind, i.of, i.path) for i in result.origins] == [
        ("storage", str(west), f"{west}/space")
    ]


def test_files_that_lead_away_or_name_hosts(
    east: Path, west: Path, foreign: Belongings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (east / "real.conf").write_text("nothing\n")
    (west / "linked.conf").symlink_to(east / "real.conf")
    (west / "root.crt").symlink_to(east / "not-mounted-now")
    (west / "own.conf").write_text("# host=commented\nurl = https://0x0a010005/x\n")
    (west / "authorized_keys").write_text('from="10.1.0.0/24" ssh-ed25519 AAAA root@10.1.0.9\n')
    monkeypatch.setenv("HTTPS_PROXY", "http://10.1.0.3:3128")
    result = run(FactsJob(files=(f"{west}/*",), foreign=foreign, origins=True), None)  # type: ignore[arg-type]
    mentions = {(Path(item.path).name, item.line, item.text) for item in result.mentions}
    assert {("linked.conf", 0), ("root.crt", 0)} <= {item[:2] for item in mentions}
    assert result.unread == ()
    assert ("authorized_keys", 1, "10.1.0.0") in mentions
    assert not any(text == "10.1.0.9" for _, _, text in mentions)
    assert ("$HTTPS_PROXY", 1, "10.1.0.3") in mentions
    names = {item.name: item for item in result.names}
    assert names["0x0a010005"].addresses == ("10.1.0.5",)
    assert names["0x0a010005"].where == f"{west}/own.conf:2"
    assert "commented" not in names


@pytest.mark.parametrize("where", ['"$(dirname "$0")/../etc', "$HERE/../etc", '"${HERE}"/../etc'])
def test_settings_of_what_the_plans_commands_run(
    west: Path, foreign: Belongings, where: str
) -> None:
    """Whatever the words of a command are: an interpreter's script, a shell's, settings."""
    (west / "bin").mkdir()
    (west / "etc").mkdir()
    (west / "etc" / "kms.cfg").write_text("URL=http://10.1.0.8/\n")
    (west / "etc" / "agent.conf").write_bytes("peer = 10.1.0.9\n".encode("utf-16"))
    (west / "open.py").write_text("ask('https://10.1.0.7')\n")
    close = '"' if where.startswith('"$(') else ""
    script = west / "bin" / "open"
    script.write_text(f"#!/bin/sh\n. {where}/kms.cfg{close}\nagent -c {west}/etc/agent.conf\n")
    script.chmod(0o755)
    words = ("python3", f"{west}/open.py", "sh", "-c", f"exec {script} -v", "{directory}")
    result = run(FactsJob(commands=words, foreign=foreign, origins=True), None)  # type: ignore[arg-type]
    found = {(item.path, item.origin) for item in result.origins}
    assert {
        (f"{west}/open.py", "its line 1 names 10.1.0.7"),
        (f"{west}/etc/kms.cfg", "its line 1 names 10.1.0.8"),
        (f"{west}/etc/agent.conf", "its line 1 names 10.1.0.9"),
    } <= found


def test_files_that_settings_take_in(west: Path, foreign: Belongings) -> None:
    parts = {
        "config": "Include config.d/*\n",
        "config.d/shop": "HostName 10.1.0.5\n",
        ".bashrc": f'[ -r x ] && true\n. "{west}/lib/env.sh"\n',
        "lib/env.sh": "export PGHOST=10.1.0.6\nsource more.sh\n",
        "lib/more.sh": "NAS=10.1.0.7\n# was 10.1.0.9\n. env.sh\n",
        "credentials": f"[shop]\ncredential_process = sh {west}/lib/sts --json\n",
        "lib/sts": "curl https://10.1.0.8/\n",
    }
    for name, text in parts.items():
        (west / name).parent.mkdir(exist_ok=True)
        (west / name).write_text(text)
    (west / "packed.jar").write_bytes(b"PK\x03\x04 10.1.0.4")
    names = ("config", ".bashrc", "credentials", "packed.jar")
    job = FactsJob(files=tuple(f"{west}/{name}" for name in names), foreign=foreign, origins=True)
    result = run(job, None)  # type: ignore[arg-type]
    found = {(item.path, item.text): item.comment for item in result.mentions}
    assert found == {
        (f"{west}/config.d/shop", "10.1.0.5"): False,
        (f"{west}/lib/env.sh", "10.1.0.6"): False,
        (f"{west}/lib/more.sh", "10.1.0.7"): False,
        (f"{west}/lib/more.sh", "10.1.0.9"): True,
        (f"{west}/lib/sts", "10.1.0.8"): False,
    }
    assert result.unread == (f"{west}/packed.jar",), "an archive is not looked into"


def test_settings_of_the_installation_that_a_tool_is_from(west: Path, foreign: Belongings) -> None:
    for name in ("pg/bin/psql", "pg/etc/postgresql/pg_service.conf", "nothing"):
        (west / name).parent.mkdir(parents=True, exist_ok=True)
        (west / name).write_text("#!/bin/sh\n[shop]\nhost=10.1.0.5\n")
    (west / "pg/bin/psql").chmod(0o755)
    job = FactsJob(files=(f"{west}/nothing.conf",), tools=(f"{west}/pg/bin/psql",), foreign=foreign)
    result = run(job, None)  # type: ignore[arg-type]
    assert [(Path(item.path).name, item.line) for item in result.mentions] == [
        ("pg_service.conf", 3)
    ]


def test_modules_beside_a_script(west: Path, foreign: Belongings) -> None:
    (west / "open.py").write_text("import os, notes_helper\nfrom shop.notes import key\n")
    (west / "lib").mkdir()
    (west / "shop").mkdir()
    (west / "notes_helper.py").write_text("HSM = '10.1.0.5'\n")
    (west / "shop" / "notes.py").write_text("HSM = '10.1.0.6'\n")
    (west / "open.pl").write_text('require "conf.pl";\n')
    (west / "conf.pl").write_text("$host = '10.1.0.7';\n")
    (west / "lib" / "inner.sh").write_text("ssh 10.1.0.8\n")
    (west / "open.sh").write_text(f'#!/bin/sh\nexec "${{SHOP_LIB:-{west}/lib}}/inner.sh"\n')
    words = ("python3", f"{west}/open.py", f"{west}/open.pl", f"{west}/open.sh")
    result = run(FactsJob(commands=words, foreign=foreign, origins=True), None)  # type: ignore[arg-type]
    assert {item.origin.split()[-1] for item in result.origins if item.of != "Python"} == {
        "10.1.0.5",
        "10.1.0.6",
        "10.1.0.7",
        "10.1.0.8",
    }
