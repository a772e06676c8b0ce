"""Programs that do nothing else when they are asked for their version, and how to ask them."""

from collections.abc import Mapping


def asked_by(word: str, *names: str) -> Mapping[str, str]:
    """For Engine.version_words: programs that all take the same word."""
    return dict.fromkeys(names, word)


COMMON = asked_by(
    "--version",
    *("age", "bash", "cp", "curl", "nft", "openssl", "python3", "setsid", "socat", "ss", "tar"),
    "zstd",
)
"""Those of no engine: what runbooks, vaults, fences and several engines use."""
