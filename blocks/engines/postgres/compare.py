"""A source's facts against the recovery side: what the restored service will lack."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from blocks.engines.postgres import access, config, mentions
from blocks.engines.postgres.facts import PostgresFacts
from blocks.engines.postgres.files import AtSource
from blocks.engines.postgres.findings import PostgresFinding
from blocks.engines.postgres.installation import Installation
from blocks.engines.postgres.last_look import NO_LOOK, LastLook
from blocks.engines.postgres.rows import Collation, SessionSetting
from blocks.evidence.catalogue import FindingId, Severity
from blocks.evidence.findings import Finding, finding
from blocks.hosts.host import Host
from blocks.ownership import Belongings

_RULE = re.compile(r"(<[^<>]+>|[a-z]+)[+-]?\d.*|[+-]?[\d.]+|interval .*|gmt", re.IGNORECASE)
"""A time zone that a server works out by itself, as EST5EDT or <+03>-3; all others are files."""

_LOADING = (
    *("session_preload_libraries", "local_preload_libraries"),
    *("archive_library", "oauth_validator_libraries"),
)
"""Settings that name libraries, other than those of a server's start."""
_OF_SESSIONS = ("database", "user", "database user")
"""Sources of values that are no server's own."""
_ON = re.compile(r"on|t(r(ue?)?)?|y(es?)?|1", re.IGNORECASE)
"""What a server takes for a switch that is on."""


def without_host(
    facts: PostgresFacts, settings: Mapping[str, str], where: str, foreign: Belongings
) -> Iterator[Finding]:
    """What can be told from the facts alone; `settings` are the recovery site's own."""
    for name, had in config.too_low(facts.settings, settings).items():
        text = (
            f"engine.target.settings gives {settings[name]}, the source has {had}: a server that"
            " answers while it replays, as each standby does, stops there"
        )
        yield finding(PostgresFinding.SETTING_TOO_LOW, f"{where} {name}", text)
    for database in facts.databases:
        for table in database.tables or ():
            if table.unlogged and table.rows:
                yield finding(
                    FindingId.INCOMPLETE_RESTORE,
                    f"{database.name}.{table.schema}.{table.name}",
                    f"it is unlogged: its {table.rows} rows or so are in no physical backup",
                    severity=Severity.MEDIUM,  # its owner has chosen to lose it in a crash
                    remedy="Make it a logged table, or know how the application fills it again.",
                )
    yield from _as_at_the_source(facts)
    for row in facts.logical_slots:
        yield finding(
            FindingId.INCOMPLETE_RESTORE,
            f"logical slot {row.name}",
            f"no backup holds it: its consumer of {row.database} cannot go on",
            severity=Severity.MEDIUM,
            remedy="Plan how each consumer of changes starts anew after a recovery.",
        )
    for login in facts.logins or ():
        for _, mention in foreign.lines(login.options or ""):
            text = f"logins by {login.method} ask {mention}"
            yield finding(FindingId.ADDRESS_HARD_CODED, access.place(login), text)
    for name in config.preloaded(facts.shared_preload_libraries):
        if not config.is_installed_name(name):
            text = f"the source preloads {name!r}: only an installation's own libraries are loaded"
            yield finding(FindingId.LIBRARY_PRELOADED, name, text)
    for whose, name in (*_loaded_by_all(facts), *_loaded_by_some(facts)):
        if not config.is_installed_name(name):
            text = f"{whose} loads {name!r}: only an installation's own libraries are looked for"
            yield finding(FindingId.LIBRARY_PRELOADED, name, text)
    yield from mentions.in_settings(facts, foreign)


def on_host(facts: PostgresFacts, host: Host, bin_dir: str, where: str) -> Iterator[Finding]:
    """What the recovery host's installation lacks. Raises as `Host.run`."""
    version = host.run([f"{bin_dir}/postgres", "--version"], check=False)
    match = re.search(r"\(PostgreSQL\) (\d+)", version.text)
    if match and int(match[1]) != facts.major:
        text = f"{bin_dir}/postgres is {version.text!r}; the set needs major version"
        yield finding(FindingId.ENGINE_VERSION, where, f"{text} {facts.major}")
    there = installation(facts, host, bin_dir)
    for name, why in there.lacking("libraries").items():
        for whose in (whose for whose, library in _loaded_by_some(facts) if library == name):
            text = f"{whose} loads {name} ({why} on {where}): such sessions are refused"
            yield finding(FindingId.LIBRARY_PRELOADED, name, text, severity=Severity.CRITICAL)
        for setting in (setting for setting, library in _loaded_by_all(facts) if library == name):
            text = f"the source's {setting} loads {name}; on {where}: {why}"
            # A restored server works without archiving: that is set up after a real recovery.
            severity = Severity.MEDIUM if setting == "archive_library" else None
            yield finding(FindingId.LIBRARY_PRELOADED, name, text, severity=severity)
        if name in _preloaded(facts):
            text = f"the source preloads {name}; on {where}: {why}"
            yield finding(FindingId.LIBRARY_PRELOADED, name, text)
    for name, why in there.lacking("extensions").items():
        if _is_lost_at_the_source(facts, name, why):
            continue
        text = f"a database of the source has extension {name}; on {where}: {why}"
        yield finding(FindingId.EXTENSION_MISSING, name, text)
    for subject, locale in _locales(facts):
        if locale in there.lacking("locales"):
            text = f"it needs the locale {locale}, which {where} does not have"
            yield finding(PostgresFinding.LOCALE_MISSING, subject, text)
    for subject, zone in _zones(facts):
        if zone in there.lacking("zones"):
            text = f"it names the time zone {zone}, which {where} does not have"
            yield finding(PostgresFinding.LOCALE_MISSING, subject, text)
    for subject, names in _abbreviations(facts):
        if said := there.lacking("abbreviations").get(names):
            text = f"it names the time zone abbreviations {names}; on {where}: {said}"
            yield finding(PostgresFinding.LOCALE_MISSING, subject, text)
    for text in there.lacking("settings"):
        text = f"the source has {text}, which the build on {where} cannot do: nor read what has it"
        yield finding(FindingId.ENGINE_VERSION, where, text)
    for name, path in mentions.files_in_settings(facts).items():
        if host.run(["test", "-e", path], check=False).exit_code != 0:
            text = f"the source's {name} is {path}, which is not on {where}"
            unused = name.startswith("ssl_") and not takes_tls(facts)
            severity = Severity.MEDIUM if unused else None
            yield finding(FindingId.PATH_HARD_CODED, f"setting {name}", text, severity=severity)
    for name, path in mentions.files_in_commands(facts):
        if host.run(["test", "-e", path], check=False).exit_code != 0:
            text = f"the source's {name} names {path}, which is not on {where}"
            yield finding(
                FindingId.PATH_HARD_CODED, f"setting {name}", text, severity=Severity.MEDIUM
            )


def takes_tls(facts: PostgresFacts) -> bool:
    """Whether the source's server offers TLS."""
    return any(row.name == "ssl" and row.setting == "on" for row in facts.settings)


def outside(facts: PostgresFacts) -> list[str]:
    """Files by which the source is configured and that lie outside of its data directory: no
    backup of the server has them.
    """
    data = PurePosixPath(facts.data_directory)
    own = ("hba_file", "ident_file")
    files = {row.sourcefile or "" for row in facts.settings}
    files |= {row.value for row in facts.settings if row.name in own}
    files |= {rule.path or "" for rule in facts.access or ()}
    paths = (PurePosixPath(file) for file in files if file.startswith("/"))
    return sorted(str(path) for path in paths if not path.is_relative_to(data))


def libraries(facts: PostgresFacts) -> list[str]:
    """What the source preloads from its installation, and is known to be harmless."""
    return [name for name in _preloaded(facts) if PurePosixPath(name).name in config.HARMLESS]


def loaded_here(facts: PostgresFacts, host: Host, bin_dir: str) -> list[str]:
    """What of these a host's installation has. Raises as Host.run."""
    lacking = installation(facts, host, bin_dir).lacking("libraries")
    return [name for name in libraries(facts) if name not in lacking]


def asleep(facts: PostgresFacts) -> list[str]:
    """What the source preloads and a rehearsal does not, without directories."""
    names = (PurePosixPath(name).name for name in _preloaded(facts))
    return [name for name in names if name not in config.HARMLESS]


def _preloaded(facts: PostgresFacts) -> list[str]:
    names = config.preloaded(facts.shared_preload_libraries)
    return [name for name in names if config.is_installed_name(name)]


def installation(facts: PostgresFacts, host: Host, bin_dir: str) -> Installation:
    """A recovery host's installation, to be asked for all that a source needs of it."""
    others = (name for _, name in (*_loaded_by_all(facts), *_loaded_by_some(facts)))
    return Installation(
        host,
        bin_dir,
        libraries=(*_preloaded(facts), *filter(config.is_installed_name, others)),
        extensions=(e.name for d in facts.databases for e in d.extensions),
        locales=(locale for _, locale in _locales(facts)),
        zones=(zone for _, zone in _zones(facts)),
        abbreviations=(names for _, names in _abbreviations(facts)),
        settings=_compressions(facts),
    )


def of_sessions(
    facts: PostgresFacts, there: Installation, role: str, databases: Sequence[str]
) -> list[str]:
    """Libraries that are not there, and that a role's sessions in databases are made to load.

    Raises as Host.run.
    """
    return [
        name
        for row in _preloads(facts)
        if row.role in ("", role) and row.database in ("", *databases)
        for name in _libraries_of(row.name, row.value)
        if name in there.lacking("libraries")
    ]


def refuses(facts: PostgresFacts, role: str) -> str:
    """Why the source itself lets a role log in neither; empty where it does, as far as is known."""
    own = next((row for row in facts.roles if row.name == role), None)
    if own is not None and not own.login:
        return f"{role} has NOLOGIN there"
    return f"VALID UNTIL of {role} is over there" if own is not None and own.expired else ""


def read_only(
    facts: PostgresFacts, role: str, database: str, last: LastLook = NO_LOOK
) -> str | None:
    """The setting by which the source lets a role's sessions in a database only read, if any."""
    for rows in (last.sessions(), facts.sessions):
        own = [
            row
            for row in rows
            if row.name.lower() == "default_transaction_read_only"
            and row.role in ("", role)
            and row.database in ("", database)
        ]
        # Of several, the server takes that of the role in the database, then the role's.
        own.sort(key=lambda row: (bool(row.role), bool(row.database)))
        if own and _ON.fullmatch(own[-1].value):
            return f"{own[-1].name} of {_place(own[-1])}"
    return None


def loaded_by_all(facts: PostgresFacts) -> dict[str, list[str]]:
    """Settings of the source's server by which it loads libraries, but for those at its start.

    None of them comes along.
    """
    found = dict[str, list[str]]()
    for setting, name in _loaded_by_all(facts):
        found.setdefault(setting, []).append(name)
    return found


def _loaded_by_all(facts: PostgresFacts) -> Iterator[tuple[str, str]]:
    """A setting of the server, and a library that it names."""
    for row in facts.settings:
        if row.name in _LOADING and row.source not in _OF_SESSIONS:
            for name in _libraries_of(row.name, row.value):
                yield row.name, name


def _loaded_by_some(facts: PostgresFacts) -> Iterator[tuple[str, str]]:
    """Whose sessions are made to load a library, and the library."""
    for row in _preloads(facts):
        for name in _libraries_of(row.name, row.value):
            yield _place(row), name


def _libraries_of(setting: str, value: str) -> Iterator[str]:
    """The libraries that a setting names, as they are found in an installation."""
    for name in config.preloaded(value):
        local = setting.lower() == "local_preload_libraries" and "/" not in name
        yield f"$libdir/plugins/{name}" if local else name


def _preloads(facts: PostgresFacts) -> list[SessionSetting]:
    """Settings of roles and databases by which sessions load libraries."""
    return [row for row in facts.sessions if row.name.endswith("_preload_libraries")]


def _place(row: SessionSetting) -> str:
    role, database = row.role, row.database
    whom = [f"role {role}"] if role else []
    return " in ".join([*whom, *([f"database {database}"] if database else [])]) or "all roles"


def _locales(facts: PostgresFacts) -> Iterator[tuple[str, str]]:
    """What names a locale of the C library: a database, a collation, or a setting; and it."""
    for database in facts.databases:
        for locale in dict.fromkeys(filter(None, (database.collate, database.ctype))):
            yield f"database {database.name}", locale
        for row in database.locales:
            yield f"{database.name}: collation {row.name}", row.locale
    for subject, name, value in _settings(facts):
        # The messages of a restored server are never translated.
        if name in ("lc_monetary", "lc_numeric", "lc_time") and value:
            yield subject, value


def _zones(facts: PostgresFacts) -> Iterator[tuple[str, str]]:
    for subject, name, value in _settings(facts):
        if name == "timezone" and value and not _RULE.fullmatch(value):
            yield subject, value.removeprefix(":")


def _abbreviations(facts: PostgresFacts) -> Iterator[tuple[str, str]]:
    for subject, name, value in _settings(facts):
        if name == "timezone_abbreviations" and value:
            yield subject, value


def _compressions(facts: PostgresFacts) -> Iterator[str]:
    """How the source compresses values and its log; a build has only some of the ways."""
    for _, name, value in _settings(facts):
        if name in ("default_toast_compression", "wal_compression"):
            yield f"{name}={value}"


def _settings(facts: PostgresFacts) -> Iterator[tuple[str, str, str]]:
    """Subject, name in lower case and value of settings: the server's, and those of sessions."""
    for row in facts.settings:
        if row.source not in _OF_SESSIONS:
            yield f"setting {row.name}", row.name.lower(), row.value
    for own in facts.sessions:
        value = own.value.strip("'")
        yield f"setting {own.name} of {_place(own)}", own.name.lower(), value


def _is_lost_at_the_source(facts: PostgresFacts, extension: str, why: str) -> bool:
    """Whether the source lacks the same file of an extension, and goes on without."""
    return any(
        (why == "missing" and extension in source.extensions_lost())
        or any(why.startswith(f"library {name} ") for name in source.libraries_lost())
        for source in map(AtSource, facts.databases)
    )


def _as_at_the_source(facts: PostgresFacts) -> Iterator[Finding]:
    """What the source itself cannot use: a faithful restore cannot, either."""
    for database in facts.databases:
        for row in database.unusable or ():
            yield finding(
                FindingId.USABLE_NOT_RESTORED,
                f"{database.name}: {row.name}",
                "it is not valid, or was never refreshed: so it is at the source",
                severity=Severity.MEDIUM,
                remedy="Rebuild the index, or refresh the materialized view, at the source.",
            )
        default = Collation(
            name="default",
            recorded_version=database.recorded_version,
            actual_version=database.actual_version,
        )
        for collation in (default, *(database.collations or ())):
            had, has = collation.recorded_version, collation.actual_version
            if None not in (had, has) and had != has:
                yield finding(
                    PostgresFinding.LOCALE_CHANGED,
                    f"{database.name}: {collation.name}",
                    f"its data was sorted by version {had}, the source has {has}",
                    severity=Severity.MEDIUM,
                    remedy="Rebuild its text indexes at the source, then REFRESH its VERSION.",
                )
