"""Running mariadb-backup on a source's node: its password is in no file, its locks do not stay."""

from collections.abc import Sequence

DDL_SECONDS = 60
"""How long a backup may keep a node from changing definitions, and tables other than InnoDB's."""
COMMIT_SECONDS = 10
"""How long it may keep a node from committing."""
START_SECONDS = 10
"""How long it may wait for its first lock, behind which every change of a definition waits."""

# mariadb-backup opens its option file twice, so a pipe will not do: a file in memory. Where in
# history the backup is, it says among its messages, and which lock it asks for. It writes its
# stream while it holds it: where the store is slow, production would wait for the store. The
# server takes the lock back as soon as the program is gone. The stream is taken at a limited rate,
# for a node whose disk is busy holds its cluster back; but not in the stages that are limited: in
# START and FLUSH, in which InnoDB's tables are copied, production goes on. --throttle will not do:
# it counts each small file as 10 MiB, and slows down the locked stages as well.
_RUN = """\
import ctypes, os, re, signal, subprocess, sys, threading, time
line, (work, rate, ddl, commit, program, *words) = sys.stdin.buffer.readline(), sys.argv[1:]
limits = {b"BLOCK_DDL": float(ddl), b"BLOCK_COMMIT": float(commit)}
login = os.memfd_create("login", 0)
os.fchmod(login, 0o600)
os.write(login, b"[client]\\n" + line + b"[mariadb-backup]\\n" + line)
argv = [program, f"--defaults-file=/proc/self/fd/{login}", *words]
libc = ctypes.CDLL(None)

def end_with_this():  # PR_SET_PDEATHSIG: whoever is killed lifts no lock of its child's
    libc.prctl(1, signal.SIGKILL)

def pass_on(stream):
    global broken
    due = 0.0
    try:
        while moved := os.splice(stream, 1, 2**20):
            if stage not in limits:
                now = time.monotonic()
                due = max(due, now - 0.1) + moved / float(rate)
                time.sleep(max(0.0, due - now))
    except OSError as error:  # the reader is gone, for one
        broken = f"its stream could not be passed on: {error.strerror}"
        child.kill()

stage, since, seen, held, broken = b"", 0.0, 0, b"", ""
with open(f"{work}/backup.log", "w+b") as log:
    child = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, pass_fds=[login],
        preexec_fn=end_with_this)
    passing = threading.Thread(target=pass_on, args=[child.stdout.fileno()], daemon=True)
    passing.start()
    while child.poll() is None:
        said = os.pread(log.fileno(), 2**20, seen)
        whole = said[:said.rfind(b"\\n") + 1]
        seen += len(whole)
        for found in re.findall(rb"BACKUP STAGE (\\w+)", whole):
            if found != stage:
                stage, since = found, time.monotonic()
        if stage in limits and time.monotonic() > since + limits[stage]:
            held = stage
            child.kill()
            break
        time.sleep(0.1)
    code = child.wait()
    if code == 0:
        passing.join()
    if held:
        print(f"it was ended, for the node was in BACKUP STAGE {held.decode()} for"
              f" {limits[held]:g} s: the store takes the stream too slowly, or a statement does"
              " not end", file=sys.stderr)
    elif broken:
        code = code or 1
        print(broken, file=sys.stderr)
    elif code:
        log.seek(0)
        sys.stderr.buffer.writelines(log.readlines()[-5:])
sys.stderr.flush()
os._exit(min(abs(code), 255))  # at once: a reader that takes nothing would hold the thread
"""


def command(  # noqa: PLR0913 (each is a limit of the backup, by name)
    python: str,
    work: str,
    argv: Sequence[str],
    *,
    rate: int,
    ddl_seconds: float = DDL_SECONDS,
    commit_seconds: float = COMMIT_SECONDS,
    start_seconds: int = START_SECONDS,
) -> list[str]:
    """What runs `argv` on a host by its `python`: it reads one line of options on its input.

    What it says is in WORK/backup.log. Its stream is taken at `rate` bytes a second at most. One
    that holds a lock for longer than it may is killed, and so is one whose wrapper has been killed.
    """
    wait = f"--ftwrl-wait-timeout={start_seconds}"
    limits = [str(rate), f"{ddl_seconds:g}", f"{commit_seconds:g}"]
    return [python, "-c", _RUN, work, *limits, *argv, wait]
