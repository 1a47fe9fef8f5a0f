//! The session's settings: which exist, their defaults, units and checks, and who has set them to what.
//!
//! `SET` is transactional: `Variables` is a plain value; the transaction block keeps the copy to go back to.

use proto::{Error, Result, SqlState};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
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
    kind: Kind,
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
        Kind::Choice(&["on", "local", "remote_write", "remote_apply"]),
        "Sets the synchronization level.",
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
    fn vartype(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int { .. } | Kind::Millis | Kind::Kilobytes => "integer",
            Kind::Choice(_) => "enum",
            Kind::Text | Kind::TimeZone | Kind::Fixed => "string",
        }
    }
}

/// One setting as it is shown.
pub struct Shown {
    pub name: String,
    pub value: String,
    pub default: String,
    pub description: &'static str,
    pub vartype: &'static str,
    pub context: &'static str,
}

/// The values a session sees: what it set itself over what its role and database set over the defaults.
#[derive(Debug, Clone, Default)]
pub struct Variables {
    values: BTreeMap<String, String>,
    /// What `RESET` goes back to, where that is not the definition's default.
    base: BTreeMap<String, String>,
}

fn definition(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.name.eq_ignore_ascii_case(name))
}

fn unknown(name: &str) -> Error {
    Error::new(SqlState::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""))
}

/// `timescaledb.x`, `myapp.user_id`: names with a dot are free for extensions and applications.
fn is_custom(name: &str) -> bool {
    name.contains('.')
}

impl Variables {
    /// # Errors
    /// `UNDEFINED_OBJECT` for a name nobody defined or set.
    pub fn show(&self, name: &str) -> Result<String> {
        let definition = definition(name);
        let key = definition.map_or_else(|| name.to_ascii_lowercase(), |definition| definition.name.to_owned());
        let raw = self.values.get(&key).or_else(|| self.base.get(&key)).map(String::as_str);
        match (raw.or(definition.map(|definition| definition.default)), definition) {
            (Some(raw), Some(definition)) => Ok(with_unit(raw, definition.kind)),
            (Some(raw), None) => Ok(raw.to_owned()),
            (None, _) => Err(unknown(name)),
        }
    }

    /// The stored form: milliseconds and kilobytes as plain numbers.
    pub fn raw(&self, name: &str) -> &str {
        let definition = definition(name).expect("asked for by a name in the table");
        let set = self.values.get(definition.name).or_else(|| self.base.get(definition.name));
        set.map_or(definition.default, String::as_str)
    }

    pub fn is_on(&self, name: &str) -> bool {
        self.raw(name) == "on"
    }

    /// # Errors
    /// Unknown name, a value outside the setting's domain, or a setting that only the server's start can set.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let (key, value) = checked(name, value)?;
        self.values.insert(key, value);
        Ok(())
    }

    /// What the server itself knows better than any default: the user, the role's and the database's settings.
    pub fn set_base(&mut self, name: &str, value: &str) {
        let key = definition(name).map_or_else(|| name.to_ascii_lowercase(), |definition| definition.name.to_owned());
        self.base.insert(key, value.to_owned());
    }

    pub fn reset(&mut self, name: &str) -> Result<()> {
        match definition(name) {
            Some(definition) if definition.kind == Kind::Fixed => Err(fixed(definition.name)),
            Some(definition) => {
                self.values.remove(definition.name);
                Ok(())
            }
            None if is_custom(name) => {
                self.values.remove(&name.to_ascii_lowercase());
                Ok(())
            }
            None => Err(unknown(name)),
        }
    }

    pub fn reset_all(&mut self) {
        let keep = ["role", "session_authorization", "transaction_isolation", "transaction_read_only"];
        self.values.retain(|name, _| keep.contains(&name.as_str()));
    }

    /// The ParameterStatus values that differ between two states of a session.
    pub fn reported_changes(&self, before: &Variables) -> Vec<(String, String)> {
        let reported = DEFINITIONS.iter().filter(|definition| definition.reported);
        reported
            .filter(|definition| self.raw(definition.name) != before.raw(definition.name))
            .map(|definition| (definition.name.to_owned(), self.raw(definition.name).to_owned()))
            .collect()
    }

    pub fn reported(&self) -> Vec<(String, String)> {
        let reported = DEFINITIONS.iter().filter(|definition| definition.reported);
        reported.map(|definition| (definition.name.to_owned(), self.raw(definition.name).to_owned())).collect()
    }

    /// Everything there is, for `SHOW ALL` and `pg_settings`.
    pub fn all(&self) -> Vec<Shown> {
        let defined = DEFINITIONS.iter().map(|definition| Shown {
            name: definition.name.to_owned(),
            value: self.show(definition.name).expect("a defined name"),
            default: with_unit(definition.default, definition.kind),
            description: definition.description,
            vartype: definition.kind.vartype(),
            context: if definition.kind == Kind::Fixed { "postmaster" } else { "user" },
        });
        let custom = self.values.iter().filter(|(name, _)| definition(name).is_none());
        let custom = custom.map(|(name, value)| Shown {
            name: name.clone(),
            value: value.clone(),
            default: String::new(),
            description: "",
            vartype: "string",
            context: "user",
        });
        defined.chain(custom).collect()
    }

    /// `search_path` as names, `$user` replaced.
    pub fn search_path(&self, user: &str) -> Vec<String> {
        let unquoted = self.raw("search_path").split(',').map(|part| part.trim().trim_matches('"'));
        unquoted
            .filter(|part| !part.is_empty())
            .map(|part| if part == "$user" { user.to_owned() } else { part.to_owned() })
            .collect()
    }
}

fn fixed(name: &str) -> Error {
    let code = SqlState::CANT_CHANGE_RUNTIME_PARAM;
    match name {
        "max_prepared_transactions" | "max_connections" | "port" | "wal_level" | "shared_preload_libraries" => {
            Error::new(code, format!("parameter \"{name}\" cannot be changed without restarting the server"))
        }
        _ => Error::new(code, format!("parameter \"{name}\" cannot be changed")),
    }
}

/// The key and the stored form of a value, once it is known to be acceptable.
fn checked(name: &str, value: &str) -> Result<(String, String)> {
    let Some(definition) = definition(name) else {
        return match is_custom(name) {
            true => Ok((name.to_ascii_lowercase(), value.to_owned())),
            false => Err(unknown(name)),
        };
    };
    let stored = match definition.kind {
        Kind::Fixed => return Err(fixed(definition.name)),
        Kind::Bool => boolean(definition.name, value)?,
        Kind::Int { min, max } => integer(definition.name, value, min, max)?,
        Kind::Millis => with_factor(definition.name, value, MILLIS)?,
        Kind::Kilobytes => with_factor(definition.name, value, KILOBYTES)?,
        Kind::Choice(choices) => choice(definition.name, value, choices)?,
        Kind::TimeZone => time_zone(value)?,
        Kind::Text => text(definition.name, value)?,
    };
    Ok((definition.name.to_owned(), stored))
}

fn invalid(name: &str, value: &str) -> Error {
    let message = format!("invalid value for parameter \"{name}\": \"{value}\"");
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

fn boolean(name: &str, value: &str) -> Result<String> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "t" | "yes" | "y" | "1" => Ok("on".to_owned()),
        "off" | "false" | "f" | "no" | "n" | "0" => Ok("off".to_owned()),
        _ => {
            let message = format!("parameter \"{name}\" requires a Boolean value");
            Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message))
        }
    }
}

fn integer(name: &str, value: &str, min: i64, max: i64) -> Result<String> {
    let number = value.trim().parse::<i64>().map_err(|_| invalid(name, value))?;
    if number < min || number > max {
        let message = format!("{number} is outside the valid range for parameter \"{name}\" ({min} .. {max})");
        return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message));
    }
    Ok(number.to_string())
}

const MILLIS: &[(&str, i64)] = &[("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("", 1)];
const KILOBYTES: &[(&str, i64)] = &[("kB", 1), ("MB", 1 << 10), ("GB", 1 << 20), ("TB", 1 << 30), ("", 1)];

fn with_factor(name: &str, value: &str, units: &[(&str, i64)]) -> Result<String> {
    let value = value.trim();
    let digits = value.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(value.len());
    let (number, unit) = (&value[..digits], value[digits..].trim());
    let number = number.parse::<i64>().map_err(|_| invalid(name, value))?;
    let factor = units.iter().find(|(known, _)| *known == unit).map(|(_, factor)| *factor);
    let scaled = factor.and_then(|factor| number.checked_mul(factor)).ok_or_else(|| invalid(name, value))?;
    integer(name, &scaled.to_string(), 0, i64::from(i32::MAX))
}

/// `5000` milliseconds are shown as `5s`.
fn with_unit(raw: &str, kind: Kind) -> String {
    let units = match kind {
        Kind::Millis => MILLIS,
        Kind::Kilobytes => KILOBYTES,
        _ => return raw.to_owned(),
    };
    match raw.parse::<i64>() {
        Ok(number) if number > 0 => {
            let fits = units.iter().filter(|(unit, factor)| !unit.is_empty() && number % factor == 0);
            let (unit, factor) = fits.max_by_key(|(_, factor)| *factor).expect("the smallest unit always divides");
            format!("{}{unit}", number / factor)
        }
        _ => raw.to_owned(),
    }
}

fn choice(name: &str, value: &str, choices: &[&str]) -> Result<String> {
    let lower = value.to_ascii_lowercase();
    let lower = match (name, lower.as_str()) {
        ("synchronous_commit" | "standard_conforming_strings", "true" | "yes" | "1") => "on",
        (_, other) => other,
    };
    if name == "password_encryption" && lower == "md5" {
        return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, "password encryption \"md5\" is not supported")
            .hint("Passwords are kept as SCRAM-SHA-256 verifiers only."));
    }
    match choices.contains(&lower) {
        true => Ok(lower.to_owned()),
        false => Err(invalid(name, value).hint(format!("Available values: {}.", choices.join(", ")))),
    }
}

/// Zone names are taken whatever their case; offsets as `+05:30`, `-8`, `UTC`.
fn time_zone(value: &str) -> Result<String> {
    let wanted = value.trim();
    match wanted.to_ascii_lowercase().as_str() {
        "default" | "local" => return Ok("UTC".to_owned()),
        _ => {}
    }
    let named = chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(wanted));
    if let Some(zone) = named {
        return Ok(zone.name().to_owned());
    }
    match fixed_offset(wanted) {
        Some(offset) => Ok(offset),
        None => Err(invalid("TimeZone", value)),
    }
}

/// `+05:30`, `-8` and `5.5`: hours east of Greenwich, normalised to `+HH:MM`.
fn fixed_offset(text: &str) -> Option<String> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => ('+', &text[1..]),
        b'-' => ('-', &text[1..]),
        _ => ('+', text),
    };
    let (hours, minutes) = match (digits.split_once(':'), digits.split_once('.')) {
        (Some((hours, minutes)), _) => (hours.parse::<u32>().ok()?, minutes.parse::<u32>().ok()?),
        (None, Some(_)) => {
            let minutes = (digits.parse::<f64>().ok()? * 60.0).round() as u32;
            (minutes / 60, minutes % 60)
        }
        (None, None) => (digits.parse::<u32>().ok()?, 0),
    };
    (hours <= 15 && minutes < 60).then(|| format!("{sign}{hours:02}:{minutes:02}"))
}

fn text(name: &str, value: &str) -> Result<String> {
    match name {
        "client_encoding" => match value.trim_matches('\'').to_ascii_lowercase().replace(['-', '_'], "").as_str() {
            "utf8" | "unicode" => Ok("UTF8".to_owned()),
            "sqlascii" => Ok("SQL_ASCII".to_owned()),
            _ => Err(invalid(name, value).hint("Only UTF8 is served.")),
        },
        "DateStyle" => match value.trim().to_ascii_uppercase().split(',').next().map(str::trim) {
            Some("ISO" | "MDY" | "DMY" | "YMD") => Ok("ISO, MDY".to_owned()),
            _ => Err(Error::unsupported(format!("DateStyle \"{value}\""))),
        },
        _ => Ok(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_shown_as_postgres_shows_them() {
        let mut variables = Variables::default();
        variables.set("statement_timeout", "90s").unwrap();
        assert_eq!(variables.show("statement_timeout").unwrap(), "90s");
        variables.set("STATEMENT_TIMEOUT", "120000").unwrap();
        assert_eq!(variables.show("statement_timeout").unwrap(), "2min");
        assert_eq!(variables.raw("statement_timeout"), "120000");
        assert_eq!(variables.show("work_mem").unwrap(), "4MB");
        assert_eq!(variables.set("jit", "maybe").unwrap_err().code.as_str(), "22023");
        assert_eq!(variables.set("nonsense", "1").unwrap_err().code.as_str(), "42704");
        assert_eq!(variables.set("max_prepared_transactions", "1").unwrap_err().code.as_str(), "55P02");
        assert_eq!(variables.show("max_prepared_transactions").unwrap(), "150");
    }

    #[test]
    fn zones_are_known_by_name_and_by_offset() {
        let mut variables = Variables::default();
        for (given, shown) in
            [("europe/berlin", "Europe/Berlin"), ("+05:30", "+05:30"), ("-8", "-08:00"), ("utc", "UTC")]
        {
            variables.set("timezone", given).unwrap();
            assert_eq!(variables.show("TimeZone").unwrap(), shown);
        }
        assert!(variables.set("timezone", "Mars/Olympus").is_err());
    }

    #[test]
    fn names_with_a_dot_are_free() {
        let mut variables = Variables::default();
        assert!(variables.show("myapp.user").is_err());
        variables.set("myapp.user", "7").unwrap();
        assert_eq!(variables.show("MyApp.User").unwrap(), "7");
    }

    #[test]
    fn changes_of_reported_settings_are_told() {
        let before = Variables::default();
        let mut after = before.clone();
        after.set("timezone", "Asia/Tokyo").unwrap();
        after.set("jit", "on").unwrap();
        assert_eq!(after.reported_changes(&before), [("TimeZone".to_owned(), "Asia/Tokyo".to_owned())]);
    }

    #[test]
    fn thirteen_settings_are_reported() {
        assert_eq!(Variables::default().reported().len(), 13);
    }
}
