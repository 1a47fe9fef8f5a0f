//! The settings there are: name, default, what values they take.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int {
        min: i64,
        max: i64,
    },
    /// Stored in milliseconds, shown with the largest unit that divides it.
    Millis,
    /// Stored in kilobytes, shown likewise.
    Kilobytes,
    Choice(&'static [&'static str]),
    Text,
    TimeZone,
    /// Set when the server starts, or a property of it.
    Fixed,
}

pub struct Definition {
    pub name: &'static str,
    pub default: &'static str,
    pub(super) kind: Kind,
    /// Sent to the client as ParameterStatus, at start and on change.
    pub reported: bool,
    pub description: &'static str,
}

const fn var(name: &'static str, default: &'static str, kind: Kind, description: &'static str) -> Definition {
    Definition { name, default, kind, reported: false, description }
}

const fn reported(name: &'static str, default: &'static str, kind: Kind, description: &'static str) -> Definition {
    Definition { name, default, kind, reported: true, description }
}

/// The version we answer as; clients choose their catalog queries by it.
pub const SERVER_VERSION: &str = "15.18";
const SERVER_VERSION_NUM: &str = "150018";

/// A transaction of this name that was committed is not applied again.
pub const IDEMPOTENCY_KEY: &str = "seriatim.idempotency_key";

/// `on`: all joins that can be.
pub const SHUFFLE: &str = "seriatim.shuffle";

const ISOLATION: &[&str] = &["read committed", "read uncommitted", "repeatable read", "serializable"];
const LEVELS: &[&str] =
    &["debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error", "info", "fatal", "panic"];
const INT: Kind = Kind::Int { min: i32::MIN as i64, max: i32::MAX as i64 };
const COUNT: Kind = Kind::Int { min: 0, max: i32::MAX as i64 };

/// Every setting that can be shown, sorted by name.
pub const DEFINITIONS: &[Definition] = &[
    reported("application_name", "", Kind::Text, "Sets the application name to be reported in statistics and logs."),
    var("array_nulls", "on", Kind::Bool, "Enable input of NULL elements in arrays."),
    var("backslash_quote", "safe_encoding", Kind::Text, "Sets whether \"\\'\" is allowed in string literals."),
    var("block_size", "8192", Kind::Fixed, "Shows the size of a disk block."),
    var("bytea_output", "hex", Kind::Choice(&["hex", "escape"]), "Sets the output format for bytea."),
    var("check_function_bodies", "on", Kind::Bool, "Check routine bodies during CREATE FUNCTION."),
    reported("client_encoding", "UTF8", Kind::Text, "Sets the client's character set encoding."),
    var("client_min_messages", "notice", Kind::Choice(LEVELS), "Sets the message levels that are sent to the client."),
    var("data_directory_mode", "0700", Kind::Fixed, "Shows the mode of the data directory."),
    reported("DateStyle", "ISO, MDY", Kind::Text, "Sets the display format for date and time values."),
    var("default_statistics_target", "100", COUNT, "Sets the default statistics target."),
    var("default_table_access_method", "heap", Kind::Text, "Sets the default table access method for new tables."),
    var("default_tablespace", "", Kind::Text, "Sets the default tablespace to create tables and indexes in."),
    var("default_transaction_deferrable", "off", Kind::Bool, "Sets the default deferrable status of new transactions."),
    var(
        "default_transaction_isolation",
        "read committed",
        Kind::Choice(ISOLATION),
        "Sets the default isolation level.",
    ),
    reported("default_transaction_read_only", "off", Kind::Bool, "Sets the default read-only status."),
    var("enable_hashagg", "on", Kind::Bool, "Enables the planner's use of hashed aggregation plans."),
    var("enable_hashjoin", "on", Kind::Bool, "Enables the planner's use of hash join plans."),
    var("enable_indexscan", "on", Kind::Bool, "Enables the planner's use of index-scan plans."),
    var("enable_mergejoin", "on", Kind::Bool, "Enables the planner's use of merge join plans."),
    var("enable_nestloop", "on", Kind::Bool, "Enables the planner's use of nested-loop join plans."),
    var("enable_partitionwise_aggregate", "on", Kind::Bool, "Enables push-down of aggregation to the data nodes."),
    var("enable_partitionwise_join", "off", Kind::Bool, "Enables partitionwise join."),
    var("enable_seqscan", "on", Kind::Bool, "Enables the planner's use of sequential-scan plans."),
    var(
        "extra_float_digits",
        "1",
        Kind::Int { min: -15, max: 3 },
        "Sets the number of digits of floating-point values.",
    ),
    var("geqo", "on", Kind::Bool, "Enables genetic query optimization."),
    var("idle_in_transaction_session_timeout", "0", Kind::Millis, "Sets the maximum idle time in a transaction."),
    var("idle_session_timeout", "0", Kind::Millis, "Sets the maximum idle time outside of a transaction."),
    reported("in_hot_standby", "off", Kind::Fixed, "Shows whether hot standby is currently active."),
    reported("integer_datetimes", "on", Kind::Fixed, "Shows whether datetimes are integer based."),
    reported("IntervalStyle", "postgres", Kind::Choice(&["postgres"]), "Sets the display format for interval values."),
    reported("is_superuser", "off", Kind::Fixed, "Shows whether the current user is a superuser."),
    var("jit", "off", Kind::Bool, "Allow JIT compilation."),
    var("lc_collate", "C.UTF-8", Kind::Fixed, "Shows the collation order locale."),
    var("lc_ctype", "C.UTF-8", Kind::Fixed, "Shows the character classification and case conversion locale."),
    var("lc_messages", "C.UTF-8", Kind::Text, "Sets the language in which messages are displayed."),
    var("lc_monetary", "C.UTF-8", Kind::Text, "Sets the locale for formatting monetary amounts."),
    var("lc_numeric", "C.UTF-8", Kind::Text, "Sets the locale for formatting numbers."),
    var("lc_time", "C.UTF-8", Kind::Text, "Sets the locale for formatting date and time values."),
    var("lock_timeout", "0", Kind::Millis, "Sets the maximum allowed duration of any wait for a lock."),
    var("log_min_duration_statement", "-1", INT, "Sets the minimum execution time above which statements are logged."),
    var("log_statement", "none", Kind::Text, "Sets the type of statements logged."),
    var("maintenance_work_mem", "65536", Kind::Kilobytes, "Sets the maximum memory for maintenance operations."),
    var("max_connections", "1000", Kind::Fixed, "Sets the maximum number of concurrent connections."),
    var("max_identifier_length", "63", Kind::Fixed, "Shows the maximum identifier length."),
    var("max_index_keys", "32", Kind::Fixed, "Shows the maximum number of index keys."),
    var(
        "max_parallel_workers_per_gather",
        "2",
        COUNT,
        "Sets the maximum number of parallel processes per executor node.",
    ),
    var("max_prepared_transactions", "150", Kind::Fixed, "Sets the maximum number of prepared transactions."),
    var(
        "password_encryption",
        "scram-sha-256",
        Kind::Choice(&["scram-sha-256", "md5"]),
        "Chooses the password algorithm.",
    ),
    var("plan_cache_mode", "auto", Kind::Text, "Controls the planner's selection of custom or generic plan."),
    var("port", "5433", Kind::Fixed, "Sets the TCP port the server listens on."),
    var("quote_all_identifiers", "off", Kind::Bool, "When generating SQL fragments, quote all identifiers."),
    var("role", "none", Kind::Text, "Sets the current role."),
    var("row_security", "on", Kind::Bool, "Enable row security."),
    var("search_path", "\"$user\", public", Kind::Text, "Sets the schema search order for names."),
    var(IDEMPOTENCY_KEY, "", Kind::Text, "Sets a name for the next transaction, under which it happens once."),
    var(
        SHUFFLE,
        "auto",
        Kind::Choice(&["auto", "on", "off"]),
        "Sets which joins have data nodes send each other their rows.",
    ),
    reported("server_encoding", "UTF8", Kind::Fixed, "Shows the server (database) character set encoding."),
    reported("server_version", SERVER_VERSION, Kind::Fixed, "Shows the server version."),
    var("server_version_num", SERVER_VERSION_NUM, Kind::Fixed, "Shows the server version as an integer."),
    reported("session_authorization", "", Kind::Text, "Sets the session user name."),
    var("shared_preload_libraries", "timescaledb", Kind::Fixed, "Lists shared libraries to preload into server."),
    var("ssl", "off", Kind::Fixed, "Enables SSL connections."),
    reported(
        "standard_conforming_strings",
        "on",
        Kind::Choice(&["on"]),
        "Causes '...' strings to treat backslashes literally.",
    ),
    var("statement_timeout", "0", Kind::Millis, "Sets the maximum allowed duration of any statement."),
    var("synchronize_seqscans", "on", Kind::Bool, "Enable synchronized sequential scans."),
    var(
        "synchronous_commit",
        "on",
        Kind::Choice(&["local", "remote_write", "remote_apply", "on", "off"]),
        "Sets the current transaction's synchronization level.",
    ),
    var("tcp_keepalives_idle", "0", COUNT, "Time between issuing TCP keepalives."),
    var("temp_buffers", "8192", Kind::Kilobytes, "Sets the maximum number of temporary buffers."),
    reported("TimeZone", "UTC", Kind::TimeZone, "Sets the time zone for displaying and interpreting time stamps."),
    var("timescaledb.enable_2pc", "on", Kind::Bool, "Two-phase commit over nodes; always on here."),
    var("transaction_deferrable", "off", Kind::Bool, "Whether to defer a read-only serializable transaction."),
    var(
        "transaction_isolation",
        "read committed",
        Kind::Choice(ISOLATION),
        "Sets the current transaction's isolation level.",
    ),
    var("transaction_read_only", "off", Kind::Bool, "Sets the current transaction's read-only status."),
    var("wal_level", "replica", Kind::Fixed, "Sets the level of information written to the WAL."),
    var("work_mem", "4096", Kind::Kilobytes, "Sets the maximum memory to be used for query workspaces."),
    var("xmloption", "content", Kind::Text, "Sets whether XML data is to be considered a document."),
];

impl Kind {
    pub(super) fn vartype(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int { .. } | Kind::Millis | Kind::Kilobytes => "integer",
            Kind::Choice(_) => "enum",
            Kind::Text | Kind::TimeZone | Kind::Fixed => "string",
        }
    }
}

pub(super) fn definition(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.name.eq_ignore_ascii_case(name))
}
