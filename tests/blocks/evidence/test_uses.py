"""The ledger of uses."""

from concurrent.futures import ThreadPoolExecutor

from blocks.evidence.uses import ledger, new_ledger


def test_the_same_thing_is_noted_once_a_stage_from_any_thread() -> None:
    outside, before = ledger(), ledger().uses()
    with new_ledger() as book, ThreadPoolExecutor(8) as pool:
        assert ledger() is book
        for stage in ("transfer", "restore"):
            book.enter(stage)
            list(pool.map(lambda n: ledger().note("object", f"o{n % 5}", "west"), range(200)))
    noted = sorted((use.stage, use.name) for use in book.uses())
    assert noted == [(stage, f"o{n}") for stage in ("restore", "transfer") for n in range(5)]
    assert ledger() is outside
    assert outside.uses() == before
