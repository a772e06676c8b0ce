"""A fence of commands."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blocks.domain import FailureDomain
from blocks.errors import FarsideError
from blocks.fences.command import CommandFence
from blocks.fences.fence import FenceBroken, FenceNotRaised, Gap, Observed
from blocks.fences.nftables import NftablesFence
from blocks.fences.several import SeveralFences
from blocks.hosts.local import LocalHost
from blocks.hosts.machine import MachineUnknown, machine
from blocks.hosts.process import CommandFailed, CommandTimeout
from blocks.ids import name_of
from blocks.stores.s3 import S3Store


def domain(name: str) -> FailureDomain:
    """A domain that is this machine."""
    store = S3Store(endpoint="https://127.0.0.1:1", bucket="b", credentials_file=Path("/none"))
    return FailureDomain(name=name, hosts=[LocalHost(name="here")], store=store)


GAP = Gap(domain("east"), domain("west"), (("10.9.8.7", 22),), "r20260101-000000-aaaaaa")


def fence(folder: Path, **changes: object) -> CommandFence:
    flag = str(folder / "up")
    settings: dict[str, object] = {"raise_argv": ["touch", flag], "lift_argv": ["rm", "-f", flag]}
    return CommandFence(**(settings | changes))


def test_cut_and_lift_twice(tmp_path: Path) -> None:
    made = fence(tmp_path)
    before = datetime.now(UTC)
    first, second = made.cut(GAP), made.cut(GAP)
    assert (tmp_path / "up").exists()
    assert before <= first < second <= datetime.now(UTC)
    for _ in range(2):
        made.lift(GAP)
        assert not (tmp_path / "up").exists()


def test_the_declaration_is_before_the_command(tmp_path: Path) -> None:
    script = f"import time; open({str(tmp_path / 'at')!r}, 'w').write(str(time.time()))"
    at = fence(tmp_path, raise_argv=[sys.executable, "-c", script]).cut(GAP)
    assert at.timestamp() < float((tmp_path / "at").read_text())


def test_attempts_oldest_first(tmp_path: Path) -> None:
    lines = [
        {"at": "2026-01-02T00:00:01Z", "host": "db1", "address": "10.1.0.5", "port": 22},
        {"at": "2026-01-02T00:00:00+00:00", "host": "db1", "address": "10.1.0.5", "port": 5432}
        | {"pid": 7, "process": "psql -h 10.1.0.5", "colour": "red"},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    earlier, later = fence(tmp_path, observe_argv=["echo", text]).attempts(GAP).attempts
    assert (earlier.port, earlier.pid, earlier.process) == (5432, 7, "psql -h 10.1.0.5")
    assert (later.port, later.pid, later.process) == (22, None, None)
    assert later.at == datetime(2026, 1, 2, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "line", ["nonsense", "{}", '{"at": "2026-01-02T00:00:00", "host": "a", "address": "b"}']
)
def test_evidence_that_cannot_be_read_is_not_dropped(tmp_path: Path, line: str) -> None:
    (problem,) = fence(tmp_path, observe_argv=["echo", line]).attempts(GAP).unseen
    assert isinstance(problem, FenceBroken)
    assert "observe_argv printed" in problem.message


def test_a_fence_that_cannot_tell(tmp_path: Path) -> None:
    blind = fence(tmp_path)
    assert (blind.attempts(GAP), blind.tells) == (Observed(), False)
    assert SeveralFences(fences=[blind, fence(tmp_path, observe_argv=["true"])]).tells


def test_commands_that_fail(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="fence: run: false ended with exit code 1"):
        fence(tmp_path, raise_argv=["false"]).cut(GAP)
    with pytest.raises(CommandTimeout):
        fence(tmp_path, lift_argv=["sleep", "60"], timeout_seconds=0.3).lift(GAP)


def test_several_are_raised_in_order_and_all_lifted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    late = f"test -e {tmp_path}/a/up && sleep 0.3 && touch {tmp_path}/b/up"
    first, second = fence(tmp_path / "a"), fence(tmp_path / "b", raise_argv=["sh", "-c", late])
    both = SeveralFences(fences=[first, second])
    before = datetime.now(UTC)
    at = both.cut(GAP)
    assert before <= at <= datetime.now(UTC) - timedelta(seconds=0.3)
    broken = SeveralFences(fences=[first, fence(tmp_path / "b", lift_argv=["false"])])
    with pytest.raises(CommandFailed):
        broken.lift(GAP)
    assert not (tmp_path / "a" / "up").exists(), "the first is lifted though the second is not"


def test_several_see_what_each_sees(tmp_path: Path) -> None:
    lines = [
        json.dumps({"at": f"2026-01-02T00:00:0{n}Z", "host": "a", "address": "b", "port": n})
        for n in (2, 1)
    ]
    fences = [fence(tmp_path, observe_argv=["echo", line]) for line in lines]
    late = json.dumps({"at": "2026-01-02T00:00:03Z", "host": "a", "address": "b", "port": 3})
    broken = fence(tmp_path, observe_argv=["sh", "-c", f"echo '{late}'; echo it died >&2; exit 1"])
    seen = SeveralFences(fences=[broken, *fences]).attempts(GAP)
    assert [item.port for item in seen.attempts] == [1, 2, 3], "though one could not tell all"
    (problem,) = seen.unseen
    assert "it died" in problem.message


def test_commands_are_lifted_by_the_last_that_raised_them(tmp_path: Path) -> None:
    made, other = fence(tmp_path), fence(tmp_path, lift_argv=["true"])
    ours, another = "r20260101-000000-aaaaaa", "r20260101-000000-bbbbbb"
    made.cut(GAP)
    swept = replace(GAP, rehearsal_id=None)
    assert made.lift(swept) == frozenset()
    assert (tmp_path / "up").exists(), "an operator has raised it"
    made.lift(replace(swept, raised={another: other.marks}))
    assert (tmp_path / "up").exists(), "another command's rehearsal is none of its own"
    both = {ours: made.marks, another: made.marks | other.marks}
    for gap in (GAP, swept):
        held = replace(gap, spared=frozenset({another}), raised=both)
        assert SeveralFences(fences=[made]).lift(held) == {another}
        assert (tmp_path / "up").exists()
    made.lift(replace(swept, raised=both))
    assert not (tmp_path / "up").exists()


def test_no_nft_there_is_a_tool_that_is_missing() -> None:
    made = NftablesFence(nft_argv=["/nowhere/nft"])
    with pytest.raises(FarsideError, match="/nowhere/nft") as caught:
        made.check(GAP)
    assert (caught.value.finding, caught.value.subject) == (
        "tool-missing",
        "west/here /nowhere/nft",
    )
    made.lift(GAP)  # what is not there has raised nothing


def test_an_nft_that_may_not_is_a_fence_that_leaks() -> None:
    made = NftablesFence(nft_argv=["sh", "-c", "echo may not >&2; exit 1"])
    with pytest.raises(FarsideError, match="may not") as caught:
        made.check(GAP)
    assert caught.value.finding == "fence-leaks"
    assert "sudoers" in caught.value.hint
    with pytest.raises(FarsideError, match="may not"):
        made.lift(GAP)


def test_no_filter_where_the_ssh_server_does_not_say_where_farside_comes_from(
    ssh_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It might shut farside out for good."""
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    box = ssh_server.host()
    west = GAP.recovery.model_copy(update={"hosts": [box]})
    source = GAP.source.model_copy(update={"networks": [ip_network("10.9.8.0/24")]})
    made = NftablesFence(nft_argv=["touch", str(tmp_path / "raised")])
    with pytest.raises(FenceNotRaised, match="does not say from where farside comes") as caught:
        made.cut(replace(GAP, source=source, recovery=west))
    assert caught.value.host == "box"
    assert not list(tmp_path.glob("*raised*"))
    box.close()


def test_a_mistake_in_a_command_is_seen_before_anything_is_lost(tmp_path: Path) -> None:
    fence(tmp_path, check_argv=["true"]).check(GAP)
    assert not (tmp_path / "up").exists()
    with pytest.raises(FarsideError, match="not today") as caught:
        fence(tmp_path, check_argv=["sh", "-c", "echo not today >&2; exit 3"]).check(GAP)
    assert caught.value.finding == "fence-leaks"
    for name in ("raise_argv", "lift_argv", "observe_argv"):
        with pytest.raises(FarsideError, match="/nowhere/fence is not there") as caught:
            fence(tmp_path, **{name: ["/nowhere/fence", "up"]}).check(GAP)
        assert caught.value.finding == "tool-missing"


def test_a_bad_line_hides_no_good_one_and_old_ones_are_not_of_this_rehearsal(
    tmp_path: Path,
) -> None:
    """What is new is told by what was there before, and not by the clock of the site's tool."""

    def line(at: datetime, port: int) -> str:
        return json.dumps({"at": at.isoformat(), "host": "a", "address": "b", "port": port}) + "\n"

    behind = datetime.now(UTC) - timedelta(minutes=9)
    before = line(behind - timedelta(days=1), 1) + line(behind, 2)
    log = tmp_path / "log"
    log.write_text(before)
    made = fence(tmp_path, observe_argv=["cat", str(log)])
    several = SeveralFences(fences=[made])
    several.remember(GAP)
    several.cut(GAP)
    log.write_text(before + line(behind, 2) + "nonsense\n" + line(behind, 3))
    several.cut(GAP)
    seen = several.attempts(GAP)
    assert [item.port for item in seen.attempts] == [2, 3]
    assert ["nonsense" in str(item) for item in seen.unseen] == [True]


def test_a_tool_that_tells_nothing_before_the_loss_tells_after_it(tmp_path: Path) -> None:
    line = json.dumps({"at": "2026-01-02T00:00:00Z", "host": "a", "address": "b", "port": 1})
    script = f"test -e {tmp_path}/up && echo '{line}'"
    made = fence(tmp_path, observe_argv=["sh", "-c", script])
    made.remember(GAP)
    made.cut(GAP)
    seen = made.attempts(GAP)
    assert ([item.port for item in seen.attempts], seen.unseen) == ([1], ())


def test_no_filter_is_raised_on_a_machine_of_the_sources() -> None:
    own = machine(LocalHost(name="here")).addresses
    assert own, "this machine has an address"
    source = domain("east")
    source.networks.append(ip_network(min(own)))
    made = NftablesFence(nft_argv=["sh", "-c", "echo '{\"nftables\": []}'"])
    gap = replace(GAP, source=source)
    for do in (made.check, made.cut):
        with pytest.raises(FarsideError, match="would hit production") as caught:
            do(gap)
        assert caught.value.finding == "recovery-is-source"


def test_a_machine_that_shows_no_address_is_not_taken_for_harmless() -> None:
    answer = SimpleNamespace(text="")
    quiet: Any = SimpleNamespace(run=lambda _: answer, domain="west", name="quiet")
    with pytest.raises(MachineUnknown):
        machine(quiet)


def test_commands_that_nothing_tries_before_the_loss(tmp_path: Path) -> None:
    tried, untried = fence(tmp_path, check_argv=["true"]), fence(tmp_path)
    assert tried.untried == ()
    assert untried.untried == ("touch",)
    several = SeveralFences(fences=[tried, untried, NftablesFence()])
    assert several.untried == ("touch",)


@pytest.fixture
def apart() -> Iterator[list[str]]:
    """An nft that changes the packet filter of a network of its own."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE
    ) as there:
        assert there.stdout is not None
        if there.stdout.read(1):
            yield ["nsenter", "--net", f"--target={there.pid}", "nft"]
            there.kill()
        else:
            pytest.skip("only root can have a network of its own")


def test_a_sweep_lifts_only_what_is_known_to_have_ended(apart: list[str]) -> None:
    """What nobody has heard of may be a living rehearsal's of another account, or a site's own."""
    dead, unheard, living = (f"r20260101-000000-{end * 6}" for end in "abc")
    for name in (*map(name_of, (dead, unheard, living)), "farside_allow"):
        subprocess.run([*apart, "add", "table", "inet", name], check=True)
    fence, gap = NftablesFence(nft_argv=apart), replace(GAP, rehearsal_id=None)
    known = replace(gap, spared=frozenset({living}), ended=frozenset({dead}))
    assert fence.lift(known) == {unheard}
    assert there(apart) == {name_of(unheard), name_of(living), "farside_allow"}
    assert fence.lift(gap) == frozenset()
    assert there(apart) == {"farside_allow"}


def there(nft: list[str]) -> set[str]:
    listed = subprocess.run([*nft, "list", "tables"], check=True, capture_output=True, text=True)
    return {line.split()[-1] for line in listed.stdout.splitlines()}
