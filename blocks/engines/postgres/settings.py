"""Which of a source's settings a restored server takes over: an allow-list of names and formats.

A source's word is data. What is not listed here is not carried, whatever category the source files
it under: no command, no library, no path, no address. See docs/security.md.
"""

import re
from collections.abc import Iterable, Mapping

from blocks.engines.postgres.rows import Setting

# A hot standby refuses to replay with less than the source had (PostgreSQL docs, 26.4.3).
REPLAY_LIMITS = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)

_WHOLE = re.compile(r"[0-9]{1,9}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", re.ASCII)
_SWITCH = re.compile(r"on|off")
_WORD = re.compile(r"[A-Za-z0-9 _-]*", re.ASCII)
_LIST = re.compile(r"[^\x00-\x1f\x7f]{0,1000}")
_LOCALE = re.compile(r"[A-Za-z0-9_.@+-]*", re.ASCII)
_ZONE = re.compile(r"(?!.*\.\.)[A-Za-z0-9_+:<>,./-]*", re.ASCII)
_OPTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
"""Name of a customized option: a prefix, a period, a name."""
_HARMLESS = re.compile(r"[A-Za-z0-9-]*\.?[A-Za-z0-9-]*", re.ASCII)
_STARTS_CODE = re.compile(r"pl(?!pgsql\.)", re.IGNORECASE)
"""Prefixes of procedural languages, whose options name what runs at their start."""

_SWITCHES = """
    allow_alter_system array_nulls autovacuum check_function_bodies default_transaction_deferrable
    enable_async_append enable_bitmapscan enable_distinct_reordering enable_gathermerge
    enable_group_by_reordering enable_hashagg enable_hashjoin enable_incremental_sort
    enable_indexonlyscan enable_indexscan enable_material enable_memoize enable_mergejoin
    enable_nestloop enable_parallel_append enable_parallel_hash enable_partition_pruning
    enable_partitionwise_aggregate enable_partitionwise_join enable_presorted_aggregate
    enable_self_join_elimination enable_seqscan enable_sort enable_tidscan escape_string_warning
    event_triggers geqo jit lo_compat_privileges quote_all_identifiers row_security
    standard_conforming_strings synchronize_seqscans transform_null_equals vacuum_truncate
"""
_NUMBERS = """
    autovacuum_analyze_scale_factor autovacuum_analyze_threshold autovacuum_freeze_max_age
    autovacuum_max_workers autovacuum_multixact_freeze_max_age autovacuum_naptime
    autovacuum_vacuum_cost_delay autovacuum_vacuum_cost_limit
    autovacuum_vacuum_insert_scale_factor autovacuum_vacuum_insert_threshold
    autovacuum_vacuum_max_threshold autovacuum_vacuum_scale_factor autovacuum_vacuum_threshold
    autovacuum_worker_slots cpu_index_tuple_cost cpu_operator_cost cpu_tuple_cost
    cursor_tuple_fraction deadlock_timeout default_statistics_target effective_cache_size
    extra_float_digits from_collapse_limit geqo_effort geqo_generations geqo_pool_size geqo_seed
    geqo_selection_bias geqo_threshold gin_pending_list_limit idle_in_transaction_session_timeout
    idle_session_timeout jit_above_cost jit_inline_above_cost jit_optimize_above_cost
    join_collapse_limit lock_timeout max_pred_locks_per_page max_pred_locks_per_relation
    max_pred_locks_per_transaction min_parallel_index_scan_size min_parallel_table_scan_size
    parallel_setup_cost parallel_tuple_cost random_page_cost recursive_worktable_factor
    seq_page_cost statement_timeout transaction_timeout vacuum_cost_delay vacuum_cost_limit
    vacuum_cost_page_dirty vacuum_cost_page_hit vacuum_cost_page_miss vacuum_failsafe_age
    vacuum_freeze_min_age vacuum_freeze_table_age vacuum_max_eager_freeze_failure_rate
    vacuum_multixact_failsafe_age vacuum_multixact_freeze_min_age vacuum_multixact_freeze_table_age
"""
_WORDS = """
    backslash_quote bytea_output client_encoding client_min_messages constraint_exclusion
    default_table_access_method default_toast_compression default_transaction_isolation
    icu_validation_level IntervalStyle plan_cache_mode session_replication_role
    timezone_abbreviations xmlbinary xmloption
"""

CARRIED: Mapping[str, re.Pattern[str]] = {
    **dict.fromkeys(REPLAY_LIMITS, _WHOLE),
    **dict.fromkeys(_SWITCHES.split(), _SWITCH),
    **dict.fromkeys(_NUMBERS.split(), _NUMBER),
    **dict.fromkeys(_WORDS.split(), _WORD),
    **dict.fromkeys(("lc_messages", "lc_monetary", "lc_numeric", "lc_time"), _LOCALE),
    **dict.fromkeys(("createrole_self_grant", "DateStyle", "search_path"), _LIST),
    "default_text_search_config": _LIST,
    "TimeZone": _ZONE,
}
"""Name of a setting -> what its value looks like. What is missing is the restored host's own."""

_OF_SESSIONS = ("database", "user", "database user", "environment variable")
"""Sources of values that hold for some sessions only, or are in the data already."""


def carried(settings: Iterable[Setting]) -> dict[str, str]:
    """The source's settings that a restored service needs to behave the same: name -> value."""
    return {
        row.name: row.value
        for row in settings
        if row.source not in _OF_SESSIONS and is_carried(row.name, row.value, row.category)
    }


def is_carried(name: str, value: str, category: str) -> bool:
    """Whether a setting of this name and value comes along."""
    form = CARRIED.get(name)
    if form is not None:
        return form.fullmatch(value) is not None
    # An application may rely on options of its own; an extension's may name other servers.
    return (
        category == "Customized Options"
        and _OPTION.fullmatch(name) is not None
        and _STARTS_CODE.match(name) is None
        and _HARMLESS.fullmatch(value) is not None
    )
