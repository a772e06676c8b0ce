"""Who is told of a rehearsal: the watcher of where it runs, and no other."""

from contextvars import copy_context
from threading import Thread

from flows.rehearse.watching import Watcher, present, watching


def test_the_innermost_watcher_is_told_and_the_outer_one_after_it() -> None:
    assert present() is not present(), "without one, nothing is shared between rehearsals"
    with watching(Watcher()) as outer:
        assert present() is outer
        with watching(Watcher()) as inner:
            assert present() is inner
        assert present() is outer
    assert present() is not outer


def test_rehearsals_side_by_side_have_a_watcher_each() -> None:
    seen: list[Watcher] = []

    def rehearse() -> None:
        seen.append(present())

    with watching(Watcher()) as mine:
        alone, shared = Thread(target=rehearse), Thread(target=copy_context().run, args=[rehearse])
        for thread in (alone, shared):
            thread.start()
            thread.join()
    assert [watcher is mine for watcher in seen] == [False, True]
