"""Bech32 (BIP 173) without its length limit: how age spells keys."""

from collections.abc import Iterable

_CHARACTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def encode(prefix: str, data: bytes) -> str:
    """The lower-case text of `data` under `prefix`."""
    prefix = prefix.lower()
    words = _regroup(data, 8, 5, pad=True)
    checksum = _polymod([*_expand(prefix), *words, 0, 0, 0, 0, 0, 0]) ^ 1
    words += [(checksum >> 5 * (5 - i)) & 31 for i in range(6)]
    return prefix + "1" + "".join(_CHARACTERS[word] for word in words)


def decode(text: str) -> tuple[str, bytes]:
    """The prefix, in lower case, and the data. Raises ValueError, without the text in it."""
    if text != text.lower() and text != text.upper():
        raise ValueError("mixed upper and lower case")
    text = text.lower()
    prefix, separator, rest = text.rpartition("1")
    if not separator or not prefix or len(rest) < 6:
        raise ValueError("no separator, or too short")
    if any(not 33 <= ord(character) <= 126 for character in prefix):
        raise ValueError("a character that is not allowed in the prefix")
    words = [_CHARACTERS.find(character) for character in rest]
    if -1 in words:
        raise ValueError("a character that bech32 does not have")
    if _polymod([*_expand(prefix), *words]) != 1:
        raise ValueError("wrong checksum")
    return prefix, bytes(_regroup(words[:-6], 5, 8, pad=False))


def _expand(prefix: str) -> list[int]:
    codes = prefix.encode()
    return [code >> 5 for code in codes] + [0] + [code & 31 for code in codes]


def _polymod(words: Iterable[int]) -> int:
    state = 1
    for word in words:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ word
        for bit, generator in enumerate(_GENERATOR):
            if top >> bit & 1:
                state ^= generator
    return state


def _regroup(values: Iterable[int], width: int, into: int, *, pad: bool) -> list[int]:
    """Words of `width` bits as words of `into` bits. Raises ValueError for dirty padding."""
    store = bits = 0
    out = []
    for value in values:
        store = store << width | value
        bits += width
        while bits >= into:
            bits -= into
            out.append(store >> bits & (1 << into) - 1)
        store &= (1 << bits) - 1
    if pad:
        if bits:
            out.append(store << (into - bits) & (1 << into) - 1)
    elif bits >= width or store:
        raise ValueError("padding that is not zero")
    return out
