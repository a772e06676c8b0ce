"""Secrets in what a site's settings, programs and command lines say: shown as `***`.

Standard library only: hosts use it, too. What stands beside a secret stays as it is, for addresses
and paths are looked for in these texts.
"""

import base64
import json
import re
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from urllib.parse import quote, quote_plus

MASK = "***"

_SECRET = re.compile(
    r"""passw(?:or)?[dt] | pass[_.-]?phrase | secret | credential | token(?!i[sz]) | authorization
      | (?:access|account|aes|api|auth|azure|cipher|customer|enc|encryption|hmac|libsodium|license
         |master|private|role|s3|secret|shared|signing|storage|stripe)[_.-]?key
      | \w\.(?:\w*[_-])?key $ | (?:^|[_.-]) (?:pepper|salt) $
      | (?:^|[_.-]) (?:pass|psk|pwd|sig|signature) (?:$|[_.-]|\d)
      | (?:(?<!by)(?<!com)pass|pwd|pw|(?:cli_?|master|sst_?)auth|signature) \d* $""",
    re.IGNORECASE | re.VERBOSE,
)
# The last word says what a name is of: password_encryption is an encryption, ssl_key_file a file.
_HARMLESS = re.compile(
    r"""(?: command | directory | encryption | file | filename | lifetime | path | timeout | url
      | username | (?:^|[_.-]) (?:
        address | age | algorithm | attempts | audience | case | character | cmd | count |
        dictionary | digit | dir | disabled | enabled | endpoint | errors | expir\w* |
        format | header | history | host | interval | issuer | iterations | keyring | length
        | letter | library | limit | max | method | min | mode | module | name | plugin |
        policy | port | prefix | program | reload | required | rounds | scope | size | ttl |
        type | uri | validation
      )) s? $""",
    re.IGNORECASE | re.VERBOSE,
)
_SWITCHES = frozenset({"", "off", "on", "no", "yes", "false", "true", "none", "null", "0", "1"})
"""Values of whatever name that are no secrets."""

_NAME = re.compile(r"(?<![\w.-])[\w.-]++")
_ASSIGNED = re.compile(r"""(?:\\*["'\]])*+[ \t]*(?:=>|:=|=|:(?!:|//))[ \t]*""")
_BLANK = re.compile(r"[ \t]+(?!-[A-Za-z](?:\s|$)|--?[a-z]+[a-z-]*(?:[=\s]|$))")
"""Between an option and its value, which is not the next option."""
_SPOKEN = re.compile(r"""[ \t]*\(?[ \t]*(?=["'])""")
"""Between PASSWORD and its value in SQL."""
_DIRECTIVES = frozenset({"requirepass", "masterauth", "bindpw", "rootpw"})
"""Names that files of settings have before a value without more than a blank."""
_QUOTED = r"""(?:(?P<e>\\+["'])(?s:.)*?(?:(?<!\\)(?P=e)|\Z)
    | (?:'(?:'"'"'|'\\''|''|\\(?!'"'"'|'\\'')(?s:.)|\\|[^'\\])*+(?:'|\Z)
        |"(?:""|\\(?s:.)|[^"\\])*+(?:"|\\?\Z)) [^\s,;&|)}\]>"'\\]*+)"""
"""A value in quotes, as shells, libpq, SQL, JSON and JSON in JSON write it; or the rest."""
_BARE = r"(?:(?:Basic|Bearer|Digest|Negotiate|Token)[ \t]+)?(?:\\\S|(?![&;,][A-Za-z_][\w.-]*=)\S)+"
"""One without: until a blank, or until the next NAME= of a URL or a list."""
_VALUE = re.compile(rf"{_QUOTED}|(?P<bare>{_BARE})", re.VERBOSE)
_CLOSING = "\"')]}>,;\\"

_URL = re.compile(
    r"""(?<=://) (?P<user>[^\s/:@\[]*+:) (?!\d+(?:[/?#,;"'\s)]|$))
        [^\s@]{0,2000}+ (?:@[^\s/?#@]{0,2000}+(?=@))*+ (?=@)""",
    re.VERBOSE,
)
_ECHOED = re.compile(r"(?<![\w-])(?P<lead>(?:echo|printf)[ \t]+).*")
_ASKS = r"""(?: pass | stdin | \b(?:gpg2?|openssl|cryptsetup|kinit|su)\b
            | \bsudo\b[^\n|;&]{0,99}[ ]-S )"""
_FED = re.compile(
    rf"""(?P<lead>(?<![\w-])(?:echo|printf)[ \t]+(?:-\w+[ \t]+)*) [^\n|;&]{{1,2000}}?
        (?P<to>[ \t]*\|[ \t]*[^\n|;&]{{0,2000}} {_ASKS})""",
    re.IGNORECASE | re.VERBOSE,
)
"""What a shell writes to a program that asks for a password."""
_HERE_STRING = re.compile(
    rf"""(?P<lead>(?<![^\n;&])(?=[^\n;&]{{0,2000}}{_ASKS})[^\n;&]{{0,2000}}?<<<[ \t]*)
        (?:{_QUOTED}|[^\s|;&]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_HERE_DOCUMENT = re.compile(
    rf"""(?=.{{0,2000}}{_ASKS}) .{{0,2000}}?
        (?<!<)<<-?[ \t]*(?P<quote>["']?)\\?(?P<word>\w+)(?P=quote)""",
    re.IGNORECASE | re.VERBOSE,
)
"""The line that begins one, of a program that asks for a password. A shift is written alike."""
_PRINTED = re.compile(
    r"""(?P<lead>pass\w{0,20}[_-]?command[ \t]*[=:]?[ \t]*\\?["']?[ \t]*
          (?:/[\w/]{0,99}/)?(?:echo|printf)[ \t]+(?:-\w+[ \t]+)*) [^\n"'|;&]+""",
    re.IGNORECASE | re.VERBOSE,
)
"""What a command prints that a program runs for a password."""
_DSN = re.compile(r"(?<![\w./-])(?P<user>[\w.-]++:)[^\s@/]{1,2000}+(?=@(?:tcp|unix)\()")
_IDENTIFIED = re.compile(
    r"""(?P<lead>\bIDENTIFIED\s+(?:BY|AS|USING|(?:VIA|WITH)\s+\w+\s+(?:AS|BY|USING))\s+
        (?:PASSWORD\s*\(?\s*)?)"""
    + _QUOTED,
    re.IGNORECASE | re.VERBOSE,
)
_SHAPES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.)*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|AGE-SECRET-KEY-1[0-9A-Z]+"
    r"|(?<=hooks\.slack\.com/services/)[\w/]+|(?<=api\.telegram\.org/bot)[\w:-]+"
)

_REST = r"""(?=\s)(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^|;&\n])*"""
_OPTIONS = (
    (r"(?:mysql|mariadb|mariabackup|xtrabackup|innobackupex|sshpass|mongo)[\w-]*", "-p"),
    (r"mongo\w*|mydumper|myloader|sshpass", r"-p[ \t]+"),
    (r"curl", r"(?:-[uU]|--(?:proxy-)?user(?=[\s=])|--oauth2-bearer(?=[\s=]))[ \t=]*"),
    (r"zip|unzip", r"-P[ \t]*"),
    (r"7z[ar]?|rar|unrar", r"-h?p(?=\S)"),
    (r"(?:docker|podman|oc|az)[ \t]+login", r"-p[ \t]+"),
    (r"(?:vault|docker|podman)[ \t]+login", r"login[ \t]+(?=[^\s-]+\s*(?:$|[;&|]))"),
    (r"mc[ \t]+(?:alias|config[ \t]+host)", r"(?:set|add)(?:[ \t]+[^\s;&|]+){3}[ \t]+"),
    (r"b2", r"authorize-account[ \t]+[^\s;&|]+[ \t]+"),
    (r"aws[ \t]+configure", r"set[ \t]+\S*(?:secret|token)\S*[ \t]+"),
    (r"snmp\w+", r"-[AXc][ \t]+"),
    (r"ipmitool|sqlcmd|mosquitto_\w+", r"-P[ \t]*"),
    (r"rabbitmqadmin|ncftp\w*", r"-p[ \t]+"),
    (r"lftp", r"-u[ \t]+[^\s,]+,"),
    (r"swift", r"-K[ \t]+"),
    (r"sqlplus|rman|expdp|impdp", r"[\w.]+/(?=[^\s/@]+@)"),
    (r"etcdctl", r"--user[ \t=]+(?=[^\s:]+:)"),
    (r"(?:redis|valkey)-cli", r"-a[ \t]+"),
    (r"ldap\w+", r"-w[ \t]*"),
    (r"openssl", r"-[kK][ \t]+"),
    (r"htpasswd", r"-\w*b\w*[ \t]+(?:-\w+[ \t]+)*(?:[^\s-]\S*[ \t]+){1,2}(?=\S+\s*(?:$|[;&|]))"),
    (r"smbclient|rpcclient", r"(?:-U|--user)[ \t=]*[^\s%]+%"),
)
"""Programs, and those of their options whose value is a secret."""


@cache
def _of_programs() -> tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]:
    """The rest of a command after its program, and the options: compiled once they are needed."""
    return tuple(
        (
            re.compile(rf"(?<![\w-])(?:{programs}){_REST}"),
            re.compile(rf"(?P<option>(?<=\s)(?:{options}))(?:{_VALUE.pattern})", re.VERBOSE),
        )
        for programs, options in _OPTIONS
    )


def is_secret(name: str) -> bool:
    """Whether what has this name (a setting, a variable, an option) is likely to be a secret."""
    return _SECRET.search(name) is not None and _HARMLESS.search(name) is None


def redacted(text: str) -> str:
    """A text without the values of what is named like a secret, passwords in URLs, and keys."""
    text = _SHAPES.sub(MASK, text)
    text = _URL.sub(rf"\g<user>{MASK}", text)
    text = _DSN.sub(rf"\g<user>{MASK}", text)
    text = _IDENTIFIED.sub(rf"\g<lead>{MASK}", text)
    text = _FED.sub(rf"\g<lead>{MASK}\g<to>", text)
    text = _HERE_STRING.sub(rf"\g<lead>{MASK}", text)
    text = _without_documents(text) if "<<" in text else text
    text = _PRINTED.sub(rf"\g<lead>{MASK}", text)
    for command, option in _of_programs():
        text = command.sub(partial(_without_option, option), text)
    return "".join(_without_values(text))


def redacted_value(name: str, value: str) -> str:
    """The value of a setting, without secrets."""
    if is_secret(name) and value.lower() not in _SWITCHES:
        return MASK
    if _SECRET.search(name):  # a command that prints one
        value = _ECHOED.sub(rf"\g<lead>{MASK}", value)
    return redacted(value)


def redacted_command(words: Sequence[str]) -> str:
    """A command line as text, without secrets."""
    alone = [_of_word(word) for word in words]
    # Where a word ends is known here: to find it again in the text, values are quoted.
    text = " ".join(map(_quoted, alone))
    shown = redacted(text)
    return " ".join(alone) if shown == text else shown


def command_of(pid: int) -> str:
    """The command line of a process of this machine, without secrets. Raises OSError."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return redacted_command([word.decode("utf-8", "replace") for word in words if word])


def without(said: bytes, secret: str, kept: int = sys.maxsize) -> bytes:
    """What a program said that was given a secret, without that secret in any usual spelling.

    One of less than three characters is in any text, and protects nothing. Of what was longer than
    `kept`, which is cut off where it begins, the part goes that may be the rest of a secret.
    """
    longest = len(secret.encode("utf-8", "surrogateescape")) * 4
    begins = longest if len(said) >= kept else 0
    for form in _forms(secret):
        said = said.replace(form.encode("utf-8", "surrogateescape"), MASK.encode())
    return said[begins:]


def _without_option(option: re.Pattern[str], command: re.Match[str]) -> str:
    return option.sub(rf"\g<option>{MASK}", command[0])


def _without_documents(text: str) -> str:
    """A text without its here-documents for passwords; one that does not end is none."""
    lines = text.split("\n")
    alone: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        alone.setdefault(line.strip(), []).append(number)
    shown, number = list[str](), 0
    while number < len(lines):
        shown.append(lines[number])
        begun = _HERE_DOCUMENT.match(lines[number])
        ends = alone.get(begun["word"], []) if begun else []
        at = bisect_right(ends, number)
        number += 1
        if at < len(ends):
            shown.append(MASK)
            number = ends[at]
    return "\n".join(shown)


_WITHIN = re.compile(r"""\A\\?["']?(.*?)\\?["']?\Z""", re.DOTALL)
"""A value within one pair of quotes, which may be escaped: more of them are a part of it."""


def _without_values(text: str) -> Iterator[str]:
    at = 0
    for found in _NAME.finditer(text):
        if found.start() < at or not is_secret(name := found[0]):
            continue
        value = _value(text, found.start(), found.end(), name)
        if value is not None:
            yield f"{text[at : value[0]]}{MASK}"
            at = value[1]
    yield text[at:]


def _value(text: str, start: int, end: int, name: str) -> tuple[int, int] | None:
    """Where the value of a name in a text begins and ends; None where it has none."""
    join = _ASSIGNED.match(text, end)
    if join and join[0].strip() == ":" and text[start - 1 : start] in ("/", "\\"):
        return None  # a path, and what it is bound to
    if not join and (name.startswith("-") or name.lower() in _DIRECTIVES):
        join = _BLANK.match(text, end)
    if not join and name.lower() == "password":
        join = _SPOKEN.match(text, end)
    value = _VALUE.match(text, join.end()) if join else None
    if not value:
        return None
    shown = value[0].rstrip(_CLOSING) if value["bare"] else value[0]
    end = value.start() + len(shown)
    if _WITHIN.sub(r"\1", shown).lower() in _SWITCHES and not text.startswith(("&", ";", ","), end):
        return None
    return value.start(), end


def _of_word(word: str) -> str:
    name, join, _ = word.partition("=")
    return f"{name}={MASK}" if join and is_secret(name) else redacted(word)


def _quoted(word: str) -> str:
    lead = re.match(r"-{0,2}[\w.-]+=|-[A-Za-z](?=[^-])|", word)
    assert lead is not None
    rest = word[lead.end() :]
    if not re.search(r"""[\s"'\\|&;]""", rest):
        return word
    return lead[0] + '"' + rest.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _forms(secret: str) -> list[str]:
    """A secret as it is, and as shells, SQL, JSON, Python and URLs spell it; the longest first."""
    plain = {secret, *(line for line in secret.splitlines() if len(line) >= 8)}
    if line := re.fullmatch(r'\w+="(.*)"', secret):  # of an option file
        plain |= {line[1], re.sub(r"\\(.)", r"\1", line[1])}
    forms = set(plain)
    for text in plain:
        data = text.encode("utf-8", "surrogateescape")
        octal = (chr(b) if 32 <= b < 127 else f"\\{b:03o}" for b in data)
        forms |= {
            repr(text)[1:-1],
            json.dumps(text)[1:-1],
            json.dumps(text, ensure_ascii=False)[1:-1],
            text.replace("'", "'\\''"),
            text.replace("'", "'\"'\"'"),
            text.replace("'", "''"),
            text.replace("\\", "\\\\").replace("'", "\\'"),
            text.replace("\\", "\\\\").replace("'", "''"),
            text.replace("\\", "\\\\").replace('"', '\\"'),
            re.sub(r"([^\w@%+=:,./-])", r"\\\1", text),
            "".join(octal).replace("'", "\\'"),
            quote(data, safe=""),
            quote(data),
            quote_plus(data),
            base64.b64encode(data).decode(),
        }
    return sorted((form for form in forms if len(form) > 2), key=len, reverse=True)
