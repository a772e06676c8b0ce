"""What failed checks become: each the finding that the check says it stands for."""

from dataclasses import replace

from blocks.engines.checks import (
    Answer,
    CheckSpec,
    SqlQuestion,
    Ticks,
    judged,
    listed,
    question,
    run_check,
)
from blocks.engines.common.tally import Tally
from blocks.errors import PermanentError
from blocks.evidence.record import Check, CheckStatus
from tasks.verify import _failures, _is_usable, heartbeat_check


def made(name: str, answer: Answer, finding: str) -> Check:
    return run_check(CheckSpec(name, "all", lambda: answer, finding=finding))


def test_a_check_says_which_finding_it_is_when_it_fails() -> None:
    wrong = made("roles", judged(["clerk is missing"], "all"), "login-missing")
    parts = made("loadable", judged(["a", "b"], "", subjects=("a", "b")), "tool-missing")
    right = made("roles", judged([], "all 7"), "login-missing")
    unknown = Check("leases", CheckStatus.UNKNOWN, finding="incomplete-restore")
    assert (right.status, right.actual) == (CheckStatus.PASSED, "all 7")
    found = [(item.id, item.subject) for item in _failures([wrong, parts, right, unknown])]
    assert found == [("login-missing", "roles"), ("tool-missing", "a"), ("tool-missing", "b")]


def test_a_finding_shows_what_is_wrong_with_its_own_subject() -> None:
    tally = Tally(seen=1)
    for number in range(12):
        tally.fail(f"library l{number % 3}: gone", f"l{number % 3}")
    found = list(_failures([made("loadable", tally.answer(""), "tool-missing")]))
    text = "; ".join(["library l2: gone"] * 4)
    assert (found[2].subject, found[2].evidence) == ("l2", f"expected all; got {text}")


def test_a_question_of_the_plan_is_its_own_finding_whatever_it_is_called() -> None:
    answers = iter(["0", "0", None, None])
    asked = question(SqlQuestion("login", "shop", "SELECT 0", "0"), lambda: next(answers))
    assert run_check(asked).status is CheckStatus.PASSED
    failed = run_check(asked)
    assert failed.actual == "NULL"
    assert [item.id for item in _failures([failed])] == ["check-failed"]


def test_a_gap_in_the_heartbeat_is_an_incomplete_restore() -> None:
    for ticks in (Ticks(0, None, None, None), Ticks(8, 9, None, 4)):
        (item,) = _failures([heartbeat_check(ticks, 0)])
        assert (item.id, item.subject) == ("incomplete-restore", "heartbeat")
    assert heartbeat_check(Ticks(9, 9, None, None), 0).status is CheckStatus.PASSED


def test_a_service_that_stops_to_answer_is_not_in_use() -> None:
    login = Check("login", CheckStatus.PASSED)
    gone = [Check(f"check {n}", CheckStatus.UNKNOWN) for n in range(3)]
    assert _is_usable([login])
    assert _is_usable([login, *gone[:1]])
    assert not _is_usable([login, *gone])
    assert not _is_usable([])


def test_a_long_list_is_cut_and_says_so() -> None:
    assert listed([str(n) for n in range(12)]) == "0; 1; 2; 3; 4; 5; 6; 7; 8; 9; and 2 more"


def test_what_could_not_run_expected_the_same() -> None:
    def refused() -> Answer:
        raise PermanentError("no such table")

    def mistaken() -> Answer:
        raise KeyError("rows")

    for run, text in ((refused, "no such table"), (mistaken, "KeyError: 'rows'")):
        check = run_check(CheckSpec("row-counts", "the manifest's", run, "incomplete-restore"))
        assert (check.name, check.expected) == ("row-counts", "the manifest's")
        assert (check.status, check.actual) == (CheckStatus.UNKNOWN, f"could not run: {text}")


def test_an_answer_may_be_a_finding_of_its_own() -> None:
    narrow = replace(judged(["the old name"], ""), finding="node-identity-reused")
    check = made("identity", narrow, "incomplete-restore")
    assert [item.id for item in _failures([check])] == ["node-identity-reused"]
