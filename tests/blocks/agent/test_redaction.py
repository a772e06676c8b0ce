"""No secret survives, whatever names it and however it is quoted; what stands beside it stays."""

import json
import shlex
import time
from collections.abc import Callable, Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blocks.agent.redaction import (
    MASK,
    is_secret,
    redacted,
    redacted_command,
    redacted_value,
    without,
)
from blocks.ownership import hosts_in

SECRET_NAMES = [
    *("password", "PGPASSWORD", "MYSQL_PWD", "sslpassword", "ldapbindpasswd", "radiussecrets"),
    *("app.jwt_secret", "AWS_SECRET_ACCESS_KEY", "aws_session_token", "client-secret", "apiKey"),
    *("X-Amz-Signature", "passphrase", "db_pass", "rootpw", "wsrep_sst_auth", "SECRET_KEY_BASE"),
    *("repo1-cipher-pass", "credentials", "private_key", "requirepass", "accessKeyId", "sig"),
    *("PASSWORD_ADMIN", "password_stage", "secret_transport", "DB_PASSWORD_2"),
]
HARMLESS_NAMES = [
    *("ssl_key_file", "password_encryption", "krb_server_keyfile", "track_io_timing", "passfile"),
    *("max_password_errors", "primary_key", "bypass", "compass.mode", "default_password_lifetime"),
    *("strict_password_validation", "tokenizer", "authentication_timeout", "secret_name", "key"),
]
ANY = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=30)
"""Secrets of one word."""
PLAIN = st.text("abcXYZ0189+/=_-@:#%^*~.!", min_size=6, max_size=30).filter(
    lambda text: text[0].isalnum()
)
"""Those that every notation takes as they are."""
WITH_BLANKS = st.text("abcXYZ019 '\"\\$;|&,%", min_size=6, max_size=30).filter(
    lambda text: text.strip() == text and len(set(text)) > 2
)
BEFORE, BEHIND = "user=app host=db1.east.example:5432 ", " dir=/srv/east -h 10.1.1.1"

NOTATIONS: Mapping[str, Callable[[str, str], str]] = {
    "conninfo": lambda name, it: f"{name}='" + it.replace("\\", "\\\\").replace("'", "\\'") + "'",
    "shell": lambda name, it: f"{name}={shlex.quote(it)}",
    "option": lambda name, it: f"--{name} {shlex.quote(it)}",
    "option=": lambda name, it: f"--{name}={shlex.quote(it)}",
    "json": lambda name, it: json.dumps({name: it}),
    "json in json": lambda name, it: json.dumps(json.dumps({name: it})),
    "option file": lambda name, it: (
        f'{name} = "' + it.replace("\\", "\\\\").replace('"', '\\"') + '"'
    ),
}


def spellings(secret: str) -> set[str]:
    """A secret as the notations write it."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(json.dumps(secret)[1:-1])[1:-1],
        secret.replace("\\", "\\\\").replace("'", "\\'"),
        secret.replace("'", "'\"'\"'"),
    }


@given(st.sampled_from(SECRET_NAMES), st.sampled_from(list(NOTATIONS)), WITH_BLANKS)
@example("password", "shell", "a'b c'd")
@example("password", "conninfo", '0\'\'"""')
def test_quoted_secrets(name: str, notation: str, secret: str) -> None:
    shown = redacted(f"{BEFORE}{NOTATIONS[notation](name, secret)}{BEHIND}")
    assert not any(text in shown for text in spellings(secret)), shown
    assert MASK in shown
    assert shown.startswith(BEFORE)
    # A backslash in single quotes is one to a shell, and half of a quote to libpq.
    assert shown.endswith(BEHIND) or {"\\", "'"} & set(secret)
    assert redacted(shown) == shown


@given(st.sampled_from(SECRET_NAMES), st.sampled_from(["=", ": ", " = ", "=>", ":"]), PLAIN)
def test_plain_secrets(name: str, join: str, secret: str) -> None:
    shown = redacted(f"{BEFORE}{name}{join}{secret}{BEHIND}")
    assert shown == f"{BEFORE}{name}{join}{MASK}{BEHIND}"


@given(st.text("abz019._%-"), ANY)
def test_passwords_in_urls(user: str, secret: str) -> None:
    shown = redacted(f"{BEFORE}postgresql://{user}:{percent(secret)}@db2.east.example/shop{BEHIND}")
    assert shown == f"{BEFORE}postgresql://{user}:{MASK}@db2.east.example/shop{BEHIND}"


def percent(text: str) -> str:
    """As a URL has it, but for an @, which many forget."""
    return "".join(f"%{ord(c):02x}" if c in "/?#[]%" or c.isdigit() else c for c in text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("curl -u backup:S3cret -T %p https://10.1.1.1/%f", "curl -u *** -T %p https://10.1.1.1/%f"),
        ("curl --oauth2-bearer pw https://h/x", "curl --oauth2-bearer *** https://h/x"),
        ("zip -P pw x.zip %p", "zip -P *** x.zip %p"),
        ("7za a -ppw x.7z %p", "7za a -p*** x.7z %p"),
        ("docker login -u a -p pw 10.1.1.1", "docker login -u a -p *** 10.1.1.1"),
        ("docker run -p 80:80 x", "docker run -p 80:80 x"),
        ("vault login pw", "vault login ***"),
        ("vault login -method=userpass x=1", "vault login -method=userpass x=1"),
        ("mc alias set m https://10.1.1.1 id pw", "mc alias set m https://10.1.1.1 id ***"),
        ("mc config host add m https://h id pw", "mc config host add m https://h id ***"),
        ("b2 authorize-account id pw && b2 ls", "b2 authorize-account id *** && b2 ls"),
        ("aws configure set x_secret_key pw", "aws configure set x_secret_key ***"),
        ("aws s3 cp --sse-customer-key pw %p s3://b", "aws s3 cp --sse-customer-key *** %p s3://b"),
        ("snmpget -v3 -A pw -X pw 10.1.1.1", "snmpget -v3 -A *** -X *** 10.1.1.1"),
        ("mosquitto_sub -P pw -h h", "mosquitto_sub -P *** -h h"),
        ("lftp -u bob,pw sftp://10.1.1.1", "lftp -u bob,*** sftp://10.1.1.1"),
        ("sqlplus scott/pw@db @x", "sqlplus scott/*** @x"),
        ("https://hooks.slack.com/services/T0/B0/pw x", "https://hooks.slack.com/services/*** x"),
        ("https://api.telegram.org/bot12:pw/send", "https://api.telegram.org/bot***/send"),
        ("app.key=pw x.stripe_key=pw anon.salt=pw", "app.key=*** x.stripe_key=*** anon.salt=***"),
        ("supabase.service_role_key=pw", "supabase.service_role_key=***"),
        ("echo pw | gpg --passphrase-fd 0 -d %p", "echo *** | gpg --passphrase-fd 0 -d %p"),
        ("printf '%s' pw | sudo -S cp %p /x", "printf *** | sudo -S cp %p /x"),
        ("echo -n 'p w' | x login --stdin", "echo -n *** | x login --stdin"),
        ("echo app:pw | chpasswd", "echo *** | chpasswd"),
        ("restic --password-command 'echo pw' ls", "restic --password-command 'echo ***' ls"),
        ('ssl_passphrase_command = "echo pw"', 'ssl_passphrase_command = "echo ***"'),
        ("BORG_PASSCOMMAND='/bin/echo pw'", "BORG_PASSCOMMAND='/bin/echo ***'"),
        ("htpasswd -b /srv/x app pw", "htpasswd -b /srv/x app ***"),
        ("gpg --passphrase-fd 0 -d f <<< pw > out", "gpg --passphrase-fd 0 -d f <<< *** > out"),
        ('x; gpg -d f <<<"p w"; echo hi', "x; gpg -d f <<<***; echo hi"),
        ("cat <<< pw | gpg -d f\nssh h", "cat <<< *** | gpg -d f\nssh h"),
        ("gpg <<A\npw\nA\nx\nsu <<A\npw\nA", "gpg <<A\n***\nA\nx\nsu <<A\n***\nA"),
        ("chpasswd <<EOF\nroot:pw\nEOF\nssh h", "chpasswd <<EOF\n***\nEOF\nssh h"),
        ("cat <<-'E' | gpg -d f\n\tpw\n\tE\nx", "cat <<-'E' | gpg -d f\n***\n\tE\nx"),
        ("mysql -ppw -h db1", "mysql -p*** -h db1"),
        ("mysqldump -u root -p'a b' shop | gzip -p x", "mysqldump -u root -p*** shop | gzip -p x"),
        ("openssl enc -k pw -in x", "openssl enc -k *** -in x"),
        ("smbclient -U backup%pw //10.1.0.5/x", "smbclient -U backup%*** //10.1.0.5/x"),
        ("redis-cli -a pw --no-auth-warning", "redis-cli -a *** --no-auth-warning"),
        ("etcdctl --user root:pw get k", "etcdctl --user *** get k"),
        ("sshpass -p pw ssh db1", "sshpass -p *** ssh db1"),
        ("curl -H 'Authorization: Bearer abc' x", "curl -H 'Authorization: ***' x"),
        ("Authorization: Basic YTpi\nHost: x", "Authorization: ***\nHost: x"),
        ("https://h/b?X-Amz-Signature=ab&X-Amz-Date=1", "https://h/b?X-Amz-Signature=***&X-Amz-Date=1"),
        ("Server=10.1.1.1;Pwd=x1;Database=y", "Server=10.1.1.1;Pwd=***;Database=y"),
        ("ALTER ROLE a PASSWORD 'p''w' LOGIN", "ALTER ROLE a PASSWORD *** LOGIN"),
        ("CREATE USER a IDENTIFIED BY 'pw' WITH x", "CREATE USER a IDENTIFIED BY *** WITH x"),
        ("app:pw@tcp(10.1.1.1:3306)/shop", "app:***@tcp(10.1.1.1:3306)/shop"),
        ("openssl enc -passin pass:pw -in /x", "openssl enc -passin pass:*** -in /x"),
        ("redis://:pw@10.1.1.1:6379/0", "redis://:***@10.1.1.1:6379/0"),
        ("key AGE-SECRET-KEY-1ABC0 end", "key *** end"),
        ("password='a\\'b c' host=x", "password=*** host=x"),
        ("""password='a'"'"'b c' host=x""", "password=*** host=x"),
        ("password='a'\\''b c' host=x", "password=*** host=x"),
        ("password='unclosed and long", "password=***"),
    ],
)  # fmt: skip
def test_of_programs_and_languages(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        *(f"{name}=/srv/x host=10.1.1.1" for name in HARMLESS_NAMES),
        "password authentication failed for user app",
        "http://10.1.1.1:8080/x@y s3://[::1]:80/x@y ssh://git@h/x",
        "token::text",
        "-v /run/secrets:/srv vault+secret://10.1.1.1/x",
        "--ask-pass -h db1 --no-password --host=db1",
        "password = off",
        "host=db1 passfile=/srv/pass",
        "mysql -p shop",
        "echo %p",
        "echo done | mail -s backup dba@x && openssl version",
        "SELECT pass FROM t WHERE a << inet '10.1.1.0/24'\nhost=10.1.1.1",
        "bypass = flags << bits\nhost=10.1.1.1",
        "cat <<EOF\nhost=10.1.1.1\nEOF\ngpg -d f",
        "ssl_passphrase_command = '/etc/ask %p'",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


@given(st.text())
def test_any_text_is_taken(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)


def test_long_texts_take_no_long() -> None:
    start = time.monotonic()
    for text in (
        "a",
        "echo ",
        "echo a|",
        "password",
        "password=",
        "='",
        "://",
        "a:",
        "mysql ",
        "password='",
        '\\"',
    ):
        redacted(text * 10**4)
    assert time.monotonic() - start < 20


def test_names() -> None:
    assert [name for name in SECRET_NAMES if not is_secret(name)] == []
    assert [name for name in HARMLESS_NAMES if is_secret(name)] == []


def test_values_of_settings() -> None:
    assert redacted_value("app.jwt_secret", "10.1.1.1 or so") == MASK
    assert redacted_value("old_passwords", "OFF") == "OFF"
    assert redacted_value("password_encryption", "md5") == "md5"
    assert redacted_value("ssl_passphrase_command", "echo hunter2") == f"echo {MASK}"
    assert redacted_value("ssl_passphrase_command", "/srv/east/ask %p") == "/srv/east/ask %p"
    shown = redacted_value("primary_conninfo", "host=db1,10.1.1.1 password=pw sslmode=require")
    assert shown == f"host=db1,10.1.1.1 password={MASK} sslmode=require"
    assert "db1" in hosts_in(shown)


@given(WITH_BLANKS)
def test_command_lines(secret: str) -> None:
    for words in (
        ["psql", f"host=db1 {NOTATIONS['conninfo']('password', secret)}"],
        ["curl", "-u", f"backup:{secret}"],
        ["mysql", f"-p{secret}"],
        ["x", f"--password={secret}"],
        ["x", "--password", f"_{secret}"],
        ["env", f"PGPASSWORD={secret}", "psql"],
        ["sh", "-c", f"mysql -p{shlex.quote(secret)}"],
    ):
        shown = redacted_command([*words, "-h", "10.1.1.1"])
        assert secret not in shown
        assert shown.startswith(words[0])
        assert shown.endswith("-h 10.1.1.1") or ("\\" in secret and words[0] == "sh")


def test_a_command_line_without_secrets_stays() -> None:
    words = ["python3", "-c", "import x; print('y')", "2026-01-01-ab", "probe"]
    assert redacted_command(words) == " ".join(words)


@given(ANY, st.sampled_from([shlex.quote, repr, json.dumps, lambda text: f'password="{text}"']))
def test_a_given_secret_is_not_said(secret: str, spelled: Callable[[str], str]) -> None:
    said = f"+ login {spelled(secret)} at 10.1.1.1".encode()
    shown = without(said, secret)
    assert secret.encode() not in shown
    assert shown.startswith(b"+ login ")
    assert shown.endswith(b" at 10.1.1.1")


def test_a_given_line_of_an_option_file() -> None:
    said = rb"""+ line='password="a\"b\\c"' a"b\c a\"b\\c"""
    assert without(said, r'password="a\"b\\c"') == b"+ line='***' *** ***"
