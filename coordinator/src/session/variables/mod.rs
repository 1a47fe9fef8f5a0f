//! The session's settings and who has set them to what.
//!
//! `definitions` which exist, with their defaults · `check` what values they take, and how they are shown.
//!
//! `SET` is transactional: `Variables` is a plain value; the transaction block keeps the copy to go back to.

mod check;
mod definitions;

pub use definitions::{DEFINITIONS, IDEMPOTENCY_KEY, SERVER_VERSION, SHUFFLE};

use check::{checked, fixed, is_custom, unknown, with_unit};
use definitions::{Kind, definition};
use proto::Result;
use std::collections::BTreeMap;

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
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Variables {
    values: BTreeMap<String, String>,
    /// What `RESET` goes back to, where that is not the definition's default.
    base: BTreeMap<String, String>,
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

    /// As PostgreSQL 15 takes, shows and refuses them.
    #[test]
    fn levels_of_synchronous_commit_are_postgres() {
        let mut variables = Variables::default();
        assert_eq!(variables.show("synchronous_commit").unwrap(), "on");
        for (given, shown) in [
            ("off", "off"),
            ("LOCAL", "local"),
            ("remote_write", "remote_write"),
            ("remote_apply", "remote_apply"),
            ("true", "on"),
            ("no", "off"),
            ("1", "on"),
            ("0", "off"),
        ] {
            variables.set("synchronous_commit", given).unwrap();
            assert_eq!(variables.show("synchronous_commit").unwrap(), shown);
        }
        let error = variables.set("synchronous_commit", "maybe").unwrap_err();
        assert_eq!(error.code.as_str(), "22023");
        assert_eq!(error.message, "invalid value for parameter \"synchronous_commit\": \"maybe\"");
        let hint = "Available values: local, remote_write, remote_apply, on, off.";
        assert_eq!(error.hint.as_deref(), Some(hint));
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
