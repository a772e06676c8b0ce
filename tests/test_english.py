"""Code and docs are in plain trade English: the phrases of .pre-commit-config.yaml stay out."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
HOOKS = [
    hook
    for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repository["hooks"]
    if hook["language"] == "pygrep"
]


TEXTS = [
    path
    for top in ROOT.iterdir()
    if not top.name.startswith(".")
    for path in ([top] if top.is_file() else top.rglob("*"))
    if path.suffix in (".py", ".md")
]


def checked_files(hook: dict[str, Any]) -> Iterator[Path]:
    """The files of the checkout that a hook looks at."""
    for path in TEXTS:
        name = path.relative_to(ROOT).as_posix()
        if re.search(hook["files"], name) and not re.search(hook["exclude"], name):
            yield path


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_phrases_that_have_a_plain_word(hook: dict[str, Any]) -> None:
    pattern = re.compile(hook["entry"], re.IGNORECASE)
    files = list(checked_files(hook))
    assert len(files) > 100
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join([f"{hook['name']}:", *found])


def test_a_phrase_is_found() -> None:
    """The patterns match what they are made for."""
    patterns = [re.compile(hook["entry"], re.IGNORECASE) for hook in HOOKS]
    for text in ("Works a second time.", "begun anew", "Nobody reads it", "they vouch for it"):
        assert sum(bool(pattern.search(text)) for pattern in patterns) == 1, text
