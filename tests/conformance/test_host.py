"""What `blocks/hosts/host.py` says of every host: run a command, talk to one, put and get files."""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from blocks.errors import FarsideError
from blocks.evidence.uses import new_ledger
from blocks.hosts.host import FileMissing, FileRefused, Host
from blocks.hosts.process import (
    CommandFailed,
    CommandNotStarted,
    CommandTimeout,
    ConnectionLost,
    OutputTooLarge,
)
from tests.conformance.table import HOSTS, Implementation

ECHO_ARGV = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
NASTY = ["", " ", "$HOME", "`id`", "a'b", 'a"b', "\\", "*", "~", "!x", "-n", "a\nb", "é", ";", "#"]


@pytest.fixture(params=HOSTS, ids=str)
def kind(request: pytest.FixtureRequest) -> Implementation:
    made: Implementation = request.param
    return made


@pytest.fixture
def host(kind: Implementation, request: pytest.FixtureRequest) -> Host:
    """A host, connected: a time limit is for what a test asks of it."""
    made = kind.made(request)
    assert isinstance(made, Host)
    assert isinstance(made, kind.block)
    made.run(["true"])
    return made


def gone(pid: int, within: float = 5.0) -> bool:
    give_up = time.monotonic() + within
    while time.monotonic() < give_up:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def refused(host: Host, argv: list[str], password: SecretStr) -> tuple[str, str]:
    """What an error says of a command that fails."""
    with pytest.raises(CommandFailed) as caught:
        host.run(argv, password=password)
    return str(caught.value), caught.value.stderr


def test_arguments_arrive_as_they_are(host: Host) -> None:
    done = host.run([sys.executable, "-c", ECHO_ARGV, *NASTY])
    assert done.stdout == "\0".join(NASTY).encode()


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    argv=st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1
    )
)
def test_any_text_is_an_argument(host: Host, argv: list[str]) -> None:
    # printf of the shell is fast, and ends every argument with a NUL.
    done = host.run(["printf", r"%s\0", *argv])
    assert done.stdout == "".join(f"{word}\0" for word in argv).encode()


def test_no_command_is_refused(host: Host) -> None:
    for argv in ([], ["a\0b"]):
        with pytest.raises(CommandNotStarted):
            host.run(argv)


def test_exit_code_and_stderr(host: Host) -> None:
    argv = ["sh", "-c", "echo out; echo because >&2; exit 3"]
    done = host.run(argv, check=False)
    assert (done.exit_code, done.text, done.stderr) == (3, "out", b"because\n")
    with pytest.raises(CommandFailed, match="sh ended with exit code 3: because") as caught:
        host.run(argv)
    assert (caught.value.exit_code, caught.value.stderr) == (3, "because")
    assert caught.value.host == host.name


@pytest.mark.parametrize("password", ["hunter2", 'it\'s "q" $x \\', "näive%/", "x" * 900])
def test_a_password_is_the_first_line_and_never_said(host: Host, password: str) -> None:
    script = 'read -r line; set -x; : "$line" "user:$line@"; cat; printf %s "$line" >&2; exit 3'
    given = SecretStr(password)
    argv = ["bash", "-c", script]
    done = host.run(argv, password=given, input=b"the rest", check=False)
    assert done.text == "the rest"
    for said in (done.stderr.decode(), *refused(host, argv, given)):
        assert password not in said
        assert "***" in said


def test_no_part_of_a_password_begins_what_is_kept(host: Host) -> None:
    script = 'read -r line; for i in 1 2 3 4 5 6 7 8 9; do printf %s "$line" >&2; done; exit 3'
    for said in refused(host, ["sh", "-c", script], SecretStr("hunter22" * 150)):
        assert "hunter2" not in said


def test_what_looks_like_a_secret_is_in_no_error(host: Host) -> None:
    argv = ["sh", "-c", "echo postgresql://app:hunter2@10.1.1.1/shop is down >&2; exit 3"]
    with pytest.raises(CommandFailed, match=r"app:\*\*\*@10\.1\.1\.1/shop is down"):
        host.run(argv)


def test_error_does_not_repeat_the_arguments(host: Host) -> None:
    with pytest.raises(CommandFailed) as caught:
        host.run(["false", "hunter2"])
    assert "hunter2" not in str(caught.value)


def test_missing_program(host: Host) -> None:
    assert host.run(["/no/such/program"], check=False).exit_code == 127


def test_death_by_signal_is_negative(host: Host) -> None:
    assert host.run(["sh", "-c", "kill -9 $$"], check=False).exit_code < 0


def test_megabytes_both_ways_at_once(host: Host) -> None:
    data = os.urandom(1 << 20) * 6
    assert host.run(["cat"], input=data).stdout == data


def test_megabytes_of_stderr_block_nobody(host: Host) -> None:
    script = "head -c 6000000 /dev/zero >&2; head -c 6000000 /dev/zero; echo end >&2"
    done = host.run(["sh", "-c", script])
    assert len(done.stdout) == 6_000_000
    assert done.stderr.endswith(b"end\n")
    assert len(done.stderr) <= 8192


def test_input_that_nobody_reads_is_no_failure(host: Host) -> None:
    assert host.run(["true"], input=bytes(4_000_000)).exit_code == 0


def test_input_ends(host: Host) -> None:
    assert host.run(["wc", "-c"]).text == "0"


def test_time_limit_kills(host: Host, kind: Implementation) -> None:
    with host.start(["sh", "-c", "echo $$; exec sleep 60"]) as process:
        pid = int(next(process.lines()))
        process.kill()
    assert not kind.can_signal or gone(pid)
    began = time.monotonic()
    with pytest.raises(CommandTimeout, match=r"sleep did not end within 0\.5 s"):
        host.run(["sleep", "60"], timeout=0.5)
    assert time.monotonic() - began < 4


def test_time_limit_while_input_is_stuck(host: Host) -> None:
    with pytest.raises(CommandTimeout):
        host.run(["sleep", "60"], input=bytes(8_000_000), timeout=0.5)


def test_background_program_that_keeps_the_output(host: Host) -> None:
    with pytest.raises(CommandTimeout, match=r"did not end|keeps its output open"):
        host.run(["sh", "-c", "sleep 30 & exit 0"], timeout=1)


def test_conversation(host: Host) -> None:
    script = "while read line; do echo got $line; done; echo end; echo bye >&2; exit 7"
    with host.start(["sh", "-c", script]) as process:
        lines = process.lines(idle=10)
        for word in ("one", "zwei ü"):
            process.write_line(word)
            assert next(lines) == f"got {word}"
        process.close_input()
        assert list(lines) == ["end"]
        assert process.wait(10) == 7
        assert process.stderr_tail() == "bye"


def test_lines_of_any_length(host: Host) -> None:
    script = "import sys; [print('x' * n) for n in (0, 1, 300000, 5)]; sys.stdout.write('rest')"
    with host.start([sys.executable, "-c", script]) as process:
        assert [len(line) for line in process.lines(idle=10)] == [0, 1, 300000, 5, 4]


def test_silence_has_a_limit(host: Host) -> None:
    with host.start(["sleep", "60"]) as process:
        with pytest.raises(CommandTimeout, match=r"silent for 0\.2 s"):
            next(process.lines(idle=0.2))
        process.kill()


def test_leaving_ends_the_input(host: Host, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = f"cat >/dev/null; echo closed > {mark}"
    with host.start(["sh", "-c", script]):
        pass
    assert mark.read_text() == "closed\n"


def test_leaving_kills_what_goes_on(
    host: Host, kind: Implementation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks.hosts.process.EXIT_GRACE_SECONDS", 0.3)
    with host.start(["sh", "-c", "echo $$; exec sleep 60"]) as process:
        pid = int(next(process.lines()))
    assert not kind.can_signal or gone(pid)


def test_leaving_with_output_unread(host: Host) -> None:
    began = time.monotonic()
    with host.start(["head", "-c", "20000000", "/dev/zero"]) as process:
        pass
    assert time.monotonic() - began < 5
    assert process.wait(1) is not None


def test_writing_to_a_process_that_has_ended(host: Host) -> None:
    with host.start(["true"]) as process:
        process.wait(10)
        with pytest.raises(ConnectionLost, match="no longer reads"):  # noqa: PT012
            for _ in range(100):
                process.write_line("x" * 10000)


@pytest.mark.slow(60)  # OpenSSH starts 400 sessions
def test_threads_share_a_host(host: Host) -> None:
    """So many that the ends of some fall together with the beginnings of others."""
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda n: host.run(["echo", str(n)]).text, range(400)))
    assert said == [str(n) for n in range(400)]


def test_put_and_get(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "a file"
    for data in (b"", os.urandom(3_000_000), b"short"):
        host.put(data, str(path))
        assert path.read_bytes() == data == host.get(str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    host.put(b"x", str(path), 0o750)
    assert path.stat().st_mode & 0o777 == 0o750
    assert [entry.name for entry in tmp_path.iterdir()] == ["a file"]


def test_files_that_cannot_be(host: Host, tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="no-file is not there"):
        host.get(str(tmp_path / "no-file"))
    with pytest.raises(FileMissing):
        host.put(b"x", str(tmp_path / "no-directory" / "file"))
    with pytest.raises(FileRefused):
        host.get(str(tmp_path))
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileRefused):
        host.put(b"x", str(tmp_path / "taken"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


def test_uses_are_noted(host: Host) -> None:
    host.join("east")
    with new_ledger() as uses:
        uses.enter("restore")
        host.run(["true"])
        host.run(["env", "-uFOO", "BAR=a b", "true"])
        host.run(["env", "BAR=b", "env", "-uFOO", "true"])
    noted = [(use.stage, use.kind, use.name, use.domain) for use in uses.uses()]
    tools = [item for item in noted if item[1] == "tool"]
    assert tools == [("restore", "tool", f"{host.name}:true", "east")]
    assert ("restore", "host", host.name, "east") in noted


def test_close_and_use_again(host: Host) -> None:
    for _ in range(2):
        assert host.run(["echo", "x"]).text == "x"
        host.close()


def test_its_working_directory_is_an_absolute_path(host: Host) -> None:
    assert host.work_root.startswith("/")
    assert host.work_root.endswith("/.farside")
    assert host.run(["sh", "-c", "cd && pwd -P"]).text in host.work_root
    other = host.model_copy(update={"work_dir": "/srv/farside/"})
    other._work_root = ""
    assert other.work_root == "/srv/farside"


def test_no_more_is_read_than_was_asked_for(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1001))
    assert len(host.get(str(tmp_path / "file"), most=1001)) == 1001
    with pytest.raises(FileRefused, match="larger than 1,000 bytes"):
        host.get(str(tmp_path / "file"), most=1000)
    with pytest.raises(OutputTooLarge):
        host.run(["head", "-c", "3000000", "/dev/zero"], most=1000)


def test_what_may_print_a_secret_is_not_repeated(host: Host) -> None:
    argv = ["sh", "-c", "echo out-hunter2; echo err-hunter2 >&2; exit 3"]
    with pytest.raises(CommandFailed, match="may hold the secret") as caught:
        host.run(argv, secret=True)
    assert "hunter2" not in f"{caught.value} {caught.value.stderr}"


def test_the_locale_is_c(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert host.run(["sh", "-c", 'echo "$LC_ALL:$LANGUAGE"']).text == "C:"


def test_a_reader_never_sees_half_a_file(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [letter * 200_000 for letter in (b"a", b"b")]

    def put_all() -> None:
        for data in contents * 5:
            host.put(data, str(path))

    host.put(contents[0], str(path))
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(put_all)
        while not writing.done():
            assert path.read_bytes() in contents
        writing.result()


FAILURES: dict[str, Callable[[Host, Path], object]] = {
    "run": lambda host, _: host.run(["false"]),
    "get": lambda host, folder: host.get(str(folder / "nothing")),
    "put": lambda host, folder: host.put(b"x", str(folder / "nothing" / "file")),
}


@pytest.mark.parametrize("operation", FAILURES)
def test_errors_say_where(host: Host, tmp_path: Path, operation: str) -> None:
    host.join("east")
    with pytest.raises(FarsideError) as caught:
        FAILURES[operation](host, tmp_path)
    said = (caught.value.operation, caught.value.domain, caught.value.host)
    assert said == (operation, "east", host.name)


def test_files_are_uses_of_the_host(host: Host, tmp_path: Path) -> None:
    host.join("east")
    with new_ledger() as uses:
        host.put(b"x", str(tmp_path / "file"))
        host.get(str(tmp_path / "file"))
    assert {(use.kind, use.name) for use in uses.uses() if use.domain == "east"} >= {
        ("host", host.name)
    }


def test_it_names_the_credentials_that_it_uses(host: Host) -> None:
    host.join("east")
    host.close()
    with new_ledger() as uses:
        host.run(["true"])
    shown = {use.name for use in uses.uses() if use.kind == "credential"}
    assert shown == host.credentials()


def test_a_plan_keeps_it_as_it_is(host: Host) -> None:
    document = host.model_dump(mode="json")
    assert type(host).model_validate(document).model_dump(mode="json") == document
