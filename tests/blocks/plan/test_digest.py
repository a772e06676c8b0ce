"""The digest of a plan names what it sets, and nothing else of the file."""

from pathlib import Path

import pytest
import yaml

from blocks.plan.loading import load_plan
from flows.rehearse import with_objectives
from tests.blocks.plan.test_plan import save, text

__all__ = ["text"]


def digest(folder: Path, text: str) -> str:
    return load_plan(save(folder, text)).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: shop\n", "# a comment\nname: shop\n"),
        ("name: shop\n", "name: shop\ndescription: the web shop\n"),
        ("rto: 15m, rpo: 60s", "rpo: 1m, rto: 900s"),
        ("rate: 50Mbit/s", "rate: 50000kbit/s"),
        ("keys:\n", "names: []\nkeys:\n"),  # what is left out, said
        ("keys:\n", "retention: {last: 7}\nkeys:\n"),
        (
            "keys:\n",
            "accepted: [{finding: clock-skew, reason: known, until: 2027-01-01}]\nkeys:\n",
        ),
    ],
)
def test_what_changes_nothing(tmp_path: Path, text: str, old: str, new: str) -> None:
    assert old in text
    assert digest(tmp_path, text.replace(old, new)) == digest(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rto: 15m", "rto: 16m"),
        ("data_dir: /d", "data_dir: /e"),
        ("raise_argv: [a]", "raise_argv: [x]"),
        ("kind: command, raise_argv: [a], lift_argv: [b], observe_argv: [c]", "kind: nftables"),
        ("keys:\n", "names: [db.shop.example]\nkeys:\n"),
        ("identity: id\n", "identity: id\n  record_key: r\n"),
    ],
)
def test_what_changes_the_plan(tmp_path: Path, text: str, old: str, new: str) -> None:
    assert old in text
    assert digest(tmp_path, text.replace(old, new)) != digest(tmp_path, text)


def test_order_of_keys_and_a_default_that_is_written_out(tmp_path: Path, text: str) -> None:
    document = yaml.safe_load(text)
    turned = dict(reversed(list(document.items())))
    turned["source"]["hosts"][0]["port"] = 22
    assert digest(tmp_path, yaml.safe_dump(turned, sort_keys=False)) == digest(tmp_path, text)


def test_another_objective_is_another_plan_only_where_the_file_says_so(
    tmp_path: Path, text: str
) -> None:
    """An override is recorded apart: see `overrides` of the record."""
    plan = load_plan(save(tmp_path, text))
    assert with_objectives(plan, "16m", "").digest != plan.digest
