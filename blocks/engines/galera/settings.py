"""Which of a source's settings a restored node takes over: an allow-list of names and formats.

A source's word is data: nothing else of it reaches a configuration, no path and no line feed.
"""

import re
from collections.abc import Iterable, Mapping

_SWITCH = re.compile(r"ON|OFF")
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,10}(\.[0-9]{1,6})?", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
_MODES = re.compile(r"[A-Z0-9_,]{0,1000}", re.ASCII)
_LEVEL = re.compile(r"READ-(UNCOMMITTED|COMMITTED)|REPEATABLE-READ|SERIALIZABLE")
_ZONE = re.compile(r"(?!.*\.\.)[A-Za-z0-9_+:-][A-Za-z0-9_+:/-]{0,63}", re.ASCII)
_VERSIONS = re.compile(r"[A-Za-z0-9.,]{0,100}", re.ASCII)
_FILE = r"\w[\w.-]*:[0-9]{1,12}[KMGkmg]?(:autoextend(:max:[0-9]{1,12}[KMGkmg]?)?)?"
_FILES = re.compile(rf"{_FILE}(;{_FILE})*", re.ASCII)

CARRIED: Mapping[str, re.Pattern[str]] = {
    "autocommit": _SWITCH,
    "character_set_server": _WORD,
    "collation_server": _WORD,
    "completion_type": _WORD,
    "default_password_lifetime": _NUMBER,
    "default_week_format": _NUMBER,
    "disconnect_on_expired_password": _SWITCH,
    "div_precision_increment": _NUMBER,
    "explicit_defaults_for_timestamp": _SWITCH,
    "ft_max_word_len": _NUMBER,
    "ft_min_word_len": _NUMBER,
    "ft_query_expansion_limit": _NUMBER,
    "group_concat_max_len": _NUMBER,
    "idle_readonly_transaction_timeout": _NUMBER,
    "idle_transaction_timeout": _NUMBER,
    "idle_write_transaction_timeout": _NUMBER,
    "innodb_data_file_path": _FILES,
    "innodb_default_row_format": _WORD,
    "innodb_ft_enable_stopword": _SWITCH,
    "innodb_ft_max_token_size": _NUMBER,
    "innodb_ft_min_token_size": _NUMBER,
    "innodb_lock_wait_timeout": _NUMBER,
    "innodb_page_size": _NUMBER,
    "innodb_rollback_on_timeout": _SWITCH,
    "innodb_snapshot_isolation": _SWITCH,
    "innodb_strict_mode": _SWITCH,
    "innodb_undo_tablespaces": _NUMBER,
    "interactive_timeout": _NUMBER,
    "lc_time_names": _WORD,
    "local_infile": _SWITCH,
    "lock_wait_timeout": _NUMBER,
    "log_bin_trust_function_creators": _SWITCH,
    "lower_case_table_names": _NUMBER,
    "max_allowed_packet": _NUMBER,
    "max_connections": _NUMBER,
    "max_heap_table_size": _NUMBER,
    "max_join_size": _NUMBER,
    "max_password_errors": _NUMBER,
    "max_recursive_iterations": _NUMBER,
    "max_sort_length": _NUMBER,
    "max_sp_recursion_depth": _NUMBER,
    "max_statement_time": _SECONDS,
    "max_user_connections": _NUMBER,
    "old_mode": _MODES,
    "password_reuse_check_interval": _NUMBER,
    "plugin_maturity": _WORD,
    "require_secure_transport": _SWITCH,
    "simple_password_check_digits": _NUMBER,
    "simple_password_check_letters_same_case": _NUMBER,
    "simple_password_check_minimal_length": _NUMBER,
    "simple_password_check_other_characters": _NUMBER,
    "skip_name_resolve": _SWITCH,
    "sql_mode": _MODES,
    "sql_safe_updates": _SWITCH,
    "strict_password_validation": _SWITCH,
    "system_versioning_alter_history": _WORD,
    "time_zone": _ZONE,
    "tls_version": _VERSIONS,
    "transaction_isolation": _LEVEL,
    "tx_isolation": _LEVEL,
    "updatable_views_with_limit": _WORD,
    "wait_timeout": _NUMBER,
    "wsrep_certify_nonpk": _SWITCH,
    "wsrep_max_ws_rows": _NUMBER,
    "wsrep_max_ws_size": _NUMBER,
    "wsrep_mode": _MODES,
    "wsrep_osu_method": _WORD,
    "wsrep_retry_autocommit": _NUMBER,
    "wsrep_sync_wait": _NUMBER,
    "wsrep_trx_fragment_size": _NUMBER,
    "wsrep_trx_fragment_unit": _WORD,
}
"""Settings that the data, what is written to it and read from it, or who may connect depends on."""

LIBRARY = re.compile(r"\w[\w.-]{0,100}", re.ASCII)
"""The name of a library in the server's own plugin directory."""
PLUGIN = re.compile(r"[A-Za-z]\w{0,63}", re.ASCII)
"""The name of a plugin that can stand in an option file."""
VERSION = re.compile(r"\d+\.\d+\.\d+[\w.+:~-]*", re.ASCII)
"""A server's version."""


def carried(settings: Mapping[str, str]) -> dict[str, str]:
    """The source's settings that come along, by name."""
    return {
        name: settings[name]
        for name, form in CARRIED.items()
        if name in settings and form.fullmatch(settings[name])
    }


def dropped(changed: Iterable[str]) -> list[str]:
    """Settings that somebody has changed at the source, and that do not come along."""
    return [name for name in changed if name not in CARRIED]


def malformed(settings: Mapping[str, str]) -> list[str]:
    """Settings that come along and whose values no server has, a phrase each."""
    return [
        f"setting {name} is {settings[name][:80]!r}"
        for name, form in CARRIED.items()
        if name in settings and not form.fullmatch(settings[name])
    ]
