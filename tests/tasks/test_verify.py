"""What failed checks become: each the finding that the check says it stands for."""

from blocks.engines.checks import SqlQuestion, Ticks, asked, checked, listed
from blocks.engines.common.tally import Tally
from blocks.evidence.record import Check, CheckStatus
from tasks.verify import _failures, _is_usable, heartbeat_check


def test_a_check_says_which_finding_it_is_when_it_fails() -> None:
    wrong = checked("roles", "all", ["clerk is missing"], "all", finding="login-missing")
    parts = checked("loadable", "all", ["a", "b"], "", finding="tool-missing", subjects=("a", "b"))
    right = checked("roles", "all", [], "all 7", finding="login-missing")
    unknown = Check("leases", CheckStatus.UNKNOWN, finding="incomplete-restore")
    assert (right.status, right.actual) == (CheckStatus.PASSED, "all 7")
    found = [(item.id, item.subject) for item in _failures([wrong, parts, right, unknown])]
    assert found == [("login-missing", "roles"), ("tool-missing", "a"), ("tool-missing", "b")]


def test_a_finding_shows_what_is_wrong_with_its_own_subject() -> None:
    tally = Tally(seen=1)
    for number in range(12):
        tally.fail(f"library l{number % 3}: gone", f"l{number % 3}")
    found = list(_failures([tally.check("loadable", "all", "", finding="tool-missing")]))
    text = "; ".join(["library l2: gone"] * 4)
    assert (found[2].subject, found[2].evidence) == ("l2", f"expected all; got {text}")


def test_a_question_of_the_plan_is_its_own_finding_whatever_it_is_called() -> None:
    answers = iter(["0", "0", None, None])
    question = SqlQuestion("login", "shop", "SELECT 0", "0")
    assert asked(question, lambda: next(answers)).status is CheckStatus.PASSED
    failed = asked(question, lambda: next(answers))
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
