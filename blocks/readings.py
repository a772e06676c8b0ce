"""How a text reads that was encoded, escaped or composed, so that names in it can be looked for.

Standard library only.
"""

import base64
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache

# What characters other than those of names are written as: in JSON, in E'' and bytea, in URLs.
_ESCAPE = re.compile(
    r"""\\(?:u(?P<unicode>[0-9A-Fa-f]{4})|x(?P<hex>[0-9A-Fa-f]{2})|(?P<octal>[0-3][0-7]{2})
          |(?P<letter>[bfnrt"'/\\])|(?P<plain>[.-]))
      | (?P<bytes>%[CDEFcdef][0-9A-Fa-f](?:%[89ABab][0-9A-Fa-f])+)
      | %(?P<byte>0[009ADad]|[2-7][0-9A-Fa-f])""",
    re.VERBOSE,
)
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
# As kubeconfigs, headers and secrets hold text, and as PostgreSQL and MariaDB show binary values.
_BASE64 = re.compile(
    r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{16,}+={0,2}(?![A-Za-z0-9+/_=-])", re.ASCII
)
_HEX = re.compile(r"(?:\\x|\b0x|\b[xX]')((?:[0-9A-Fa-f]{2}){8,}+)(?![0-9A-Fa-f])", re.ASCII)
_URL_SAFE = str.maketrans("-_", "+/")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_GZIP = b"\x1f\x8b"
_PEM = re.compile(r"-----BEGIN (?:TRUSTED |X509 )?(?:CERTIFICATE|CRL)-----")
_OF_PEM = re.compile(r"[A-Za-z0-9+/=]*", re.ASCII)
_DER = b"\x30\x82"
_URL_IN_DER = re.compile(
    rb"\x86(?:\x81(?P<long>[\x80-\xff])|(?P<short>[\x01-\x7f]))(?=(?:https?|ldaps?|ftp)://)",
    re.DOTALL | re.IGNORECASE,
)
"""A uniformResourceIdentifier (RFC 5280, 4.2.1.6) with the octets of its length."""
_UNPACKED = 2**20
_ARCHIVES = (b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh")
"""Zip, zstd, xz, bzip2."""
_SHORTEST = 5
"""Characters of what is also looked for encoded: less would be found everywhere."""
_DEEPEST = 5
"""How many times over what is found may have been escaped: JSON in JSON, in a row, in a dump."""

# 'db1.' || 'east.example', with the casts and parentheses of a definition as PostgreSQL shows it,
# and the same with + and with a dot.
_JOINED = re.compile(
    r"""['"](?:::[\w.]+(?:[ ]varying)?)?\)*\s*(?:\|\||\+|\.\.?)\s*\(*(?:[EN]|U&)?['"]""",
    re.IGNORECASE,
)
_CALL = re.compile(
    r"""(?P<of>(?P<quote>["'])[^"'\n]{0,500}(?P=quote)\.format|
        \b(?:concat|concat_ws|format|s?printf|coalesce|ifnull|nvl|current_setting|getenv))
        [ ]*\((?P<arguments>[^()]{1,1000})\)""",
    re.IGNORECASE | re.VERBOSE,
)
_COMMENT = re.compile(r"\s*(?:#(?!!|\s*(?:define|include|if)\b)|--\s)")
_NESTED = 3
_LITERAL = re.compile(r"""(["'])([^"'\n]*)\1""")
_PLACE = re.compile(r"%[sILd]|\{\w*\}")

_COMPOSING = ("$", "{", "%", "||", "+", "concat", "CONCAT", "format", "FORMAT")
"""What a line has in which a variable may be a part of a name."""
_ASSIGNED = re.compile(
    r"""(?:^|[;&(,])\s*
        (?:(?:export|set|local|readonly|declare|define|var|let|const|ARG|ENV)\s+)?
        (?P<name>[A-Za-z_]\w*)(?:\s+[A-Za-z]\w*)?
        \s*(?:[:?]?=|:(?=\s)|\bDEFAULT\s)\s*["']?(?P<value>[^\s"'#;,()]{1,255})""",
    re.IGNORECASE | re.VERBOSE,
)
_VARIABLE = re.compile(
    r"""\$\{(?P<shell>[A-Za-z_]\w*)(?:(?P<how>:?[-=])(?P<default>[^{}\s]{0,255}))?\}
      | \{{1,2}\s*(?P<braced>[A-Za-z_]\w*)\s*\}{1,2} | \$(?P<plain>[A-Za-z_]\w*)
      | %\((?P<python>[A-Za-z_]\w*)\)s | %(?P<batch>[A-Za-z_]\w*)%
      | (?:(?<=\|\|)|(?<=[+,]))\s*(?P<after>[A-Za-z_]\w*)(?=\s*(?:\|\||[+;,)]|$))
      | \b(?P<before>[A-Za-z_]\w*)(?=\s*(?:\|\||\+)\s*['"])""",
    re.VERBOSE,
)


@lru_cache(maxsize=2)  # a line is asked for addresses, then for hosts, then for paths
def of(text: str) -> tuple[str, ...]:
    """A text as it is, and as it reads decoded and without its escapes, again and again."""
    found = [text]
    while len(found) <= _DEEPEST and (text := _read(text)) != found[-1]:
        found.append(text)
    return tuple(found)


def bare(text: str) -> str:
    r"""A text whose escapes are no part of a name: `\ndb1` is none."""
    return _ESCAPE.sub(" ", text)


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of each line.

    Variables that were given a value above are read as that, or as what they are for want of one;
    a certificate as the URLs that it has, where it begins.
    """
    values: dict[str, str] = {}
    begun, certificate = 0, ""

    def value(used: re.Match[str]) -> str:
        name = used["shell"]
        if name is not None and used["how"]:
            found = values.get(name, used["default"])
            if used["how"].endswith("="):
                values[name] = found
            return found
        name = used[used.lastgroup or 0]
        if name not in values:
            return used[0]
        return f"'{values[name]}'" if used["after"] or used["before"] else values[name]

    for number, line in enumerate(text.splitlines(), 1):
        if begun and _OF_PEM.fullmatch(line):
            certificate += line
            continue
        if begun:
            yield begun, urls_of(_bytes_of(certificate))
        begun, certificate = number if _PEM.fullmatch(line) else 0, ""
        if begun:
            continue
        if "${" in line or (values and any(sign in line for sign in _COMPOSING)):
            line = _VARIABLE.sub(value, line)
        for assigned in _ASSIGNED.finditer(line):
            values[assigned["name"]] = assigned["value"]
        yield number, line
    if begun:
        yield begun, urls_of(_bytes_of(certificate))


def comments(text: str) -> frozenset[int]:
    """Numbers of the lines, from 1, that are a comment in a script, in SQL, in most settings."""
    return frozenset(
        number for number, line in enumerate(text.splitlines(), 1) if _COMMENT.match(line)
    )


def encoded(text: str) -> Iterator[str]:
    """What base64, by where in it a text begins, and hexadecimal digits of that text hold."""
    data = text.encode()
    if len(data) < _SHORTEST:
        return
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data).decode()
        sure = whole[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield sure.replace("+", "[+-]").replace("/", "[/_]")
    yield data.hex()


def urls_of(der: bytes) -> str:
    """The URLs in a certificate or a list of revoked ones: where it says that more is to be got."""
    return " ".join(
        der[url.end() : url.end() + ord(url["long"] or url["short"])].decode(errors="replace")
        for url in _URL_IN_DER.finditer(der)
    )


def is_certificate(data: bytes) -> bool:
    """Whether it may be a certificate in DER."""
    return data.startswith(_DER)


def is_packed(data: bytes) -> bool:
    """Whether it is an archive, or compressed, in a way that `unpacked` does not undo."""
    return data.startswith(_ARCHIVES)


def unpacked(data: bytes) -> bytes:
    """What was compressed by gzip, a MiB of it at most; anything else as it is."""
    if not data.startswith(_GZIP):
        return data
    try:
        return zlib.decompressobj(wbits=31).decompress(data, _UNPACKED)
    except zlib.error:
        return data


def without_hex(text: str) -> str:
    """A text with the bytes, unpacked, that hexadecimal digits in it stand for."""
    return _HEX.sub(_bytes, text)


def _read(text: str) -> str:
    plain = _BASE64.sub(_decoded, without_hex(text))
    plain = _ESCAPE.sub(_meant, plain)
    for _ in range(_NESTED):
        plain = _CALL.sub(_composed, plain)
    return _JOINED.sub("", plain)


def _bytes(written: re.Match[str]) -> str:
    return unpacked(bytes.fromhex(written[1])).decode(errors="replace")


def _bytes_of(base64_text: str) -> bytes:
    try:
        return base64.b64decode(base64_text)
    except ValueError:
        return b""


def _decoded(word: re.Match[str]) -> str:
    """What a word means in base64 if that is text; else the word."""
    whole = word[0].rstrip("=").translate(_URL_SAFE)
    try:
        text = unpacked(base64.b64decode(whole + "=" * (-len(whole) % 4))).decode()
    except ValueError:
        return word[0]
    return f" {text} " if text.isprintable() or not _CONTROL.search(text) else word[0]


def _meant(escape: re.Match[str]) -> str:
    """The character that is written as an escape; no tool does so with those that names have."""
    if escape["bytes"]:
        return bytes.fromhex(escape["bytes"].replace("%", "")).decode(errors="replace")
    if escape["plain"]:  # of a regular expression
        return escape["plain"]
    if letter := escape["letter"]:
        return _LETTERS.get(letter, letter)
    code = escape["unicode"] or escape["hex"] or escape["byte"]
    meant = chr(int(code, 16) if code else int(escape["octal"], 8))
    return escape[0] if re.fullmatch(r"[A-Za-z0-9._-]", meant) else meant


def _composed(call: re.Match[str]) -> str:
    """The text that a call makes of literals: what is no literal is left out of it."""
    name = call["of"].lower()
    literals = [text for _, text in _LITERAL.findall(call["arguments"])]
    if call["quote"]:
        literals.insert(0, _LITERAL.match(call["of"])[2])  # type: ignore[index]  # it begins so
        name = "format"
    if name in ("current_setting", "getenv"):
        return "NULL"
    if not literals:
        return call[0]
    if name in ("coalesce", "ifnull", "nvl"):
        text = literals[-1]
    elif name == "concat":
        text = "".join(literals)
    elif name == "concat_ws":
        text = literals[0].join(literals[1:])
    else:
        values = iter(literals[1:])
        text = _PLACE.sub(lambda place: next(values, place[0]), literals[0])
    return f"'{text}'"
