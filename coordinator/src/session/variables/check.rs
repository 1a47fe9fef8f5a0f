//! Values on their way in and out: checked and brought to the stored form, shown with their unit.

use super::definitions::{Kind, definition};
use proto::{Error, Result, SqlState};

pub(super) fn unknown(name: &str) -> Error {
    Error::new(SqlState::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""))
}

/// `timescaledb.x`, `myapp.user_id`: names with a dot are free for extensions and applications.
pub(super) fn is_custom(name: &str) -> bool {
    name.contains('.')
}

pub(super) fn fixed(name: &str) -> Error {
    let code = SqlState::CANT_CHANGE_RUNTIME_PARAM;
    match name {
        "max_prepared_transactions" | "max_connections" | "port" | "wal_level" | "shared_preload_libraries" => {
            Error::new(code, format!("parameter \"{name}\" cannot be changed without restarting the server"))
        }
        _ => Error::new(code, format!("parameter \"{name}\" cannot be changed")),
    }
}

/// The key and the stored form of a value, once it is known to be acceptable.
pub(super) fn checked(name: &str, value: &str) -> Result<(String, String)> {
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
pub(super) fn with_unit(raw: &str, kind: Kind) -> String {
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
        ("synchronous_commit", "false" | "no" | "0") => "off",
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
