//! Functions that return rows: `(signature, exists for the catalogs alone, body)`. A NULL argument gives no rows.

use super::super::run::regex;
use super::super::schema;
use super::super::time;
use super::super::value::{Interval, Row, Value};
use super::EvalSet;
use chrono::{DateTime, Utc};
use chrono_tz::{OffsetComponents, OffsetName, TZ_VARIANTS};
use proto::{Error, Result, SqlState};
use std::sync::Arc;

/// Longest series; the statement's own bound on rows is close to it.
const SERIES_MAX: usize = 1_000_000;

pub(super) const FUNCTIONS: &[(&str, bool, EvalSet)] = &[
    ("generate_series(int8, int8, int8?) $1", false, |_, args| integers(args)),
    ("generate_series(timestamptz, timestamptz, interval) $1", false, |_, args| times(args)),
    // The vector types count from 0.
    ("generate_subscripts(int2vector, int4, bool?) int4", false, |_, args| Ok(subscripts(args, 0))),
    ("generate_subscripts(oidvector, int4, bool?) int4", false, |_, args| Ok(subscripts(args, 0))),
    ("generate_subscripts(any, int4, bool?) int4", false, |_, args| Ok(subscripts(args, 1))),
    ("unnest(any) $1[]", false, |_, args| Ok(column(args[0].elements().iter().cloned()))),
    ("_pg_expandarray(any) table x $1[], n int4", true, |_, args| {
        let numbered = args[0].elements().iter().zip(1..);
        Ok(numbered.map(|(value, at)| vec![value.clone(), Value::Int(at)]).collect())
    }),
    ("pg_options_to_table(text[]) table option_name text, option_value text", true, |_, args| {
        let options = args[0].elements().iter().filter_map(|option| option.as_str().split_once('='));
        Ok(options.map(|(name, value)| vec![Value::text(name), Value::text(value)]).collect())
    }),
    (
        "pg_get_keywords() table word text, catcode \"char\", barelabel bool, catdesc text, baredesc text",
        true,
        |_, _| Ok(schema::KEYWORDS.lines().filter_map(keyword).collect()),
    ),
    ("pg_timezone_names() table name text, abbrev text, utc_offset interval, is_dst bool", true, |ctx, _| {
        Ok(time_zones(ctx.catalog.now_us()))
    }),
    // Tables here are not partitions: none has ancestors.
    ("pg_partition_ancestors(regclass) regclass", true, |_, _| Ok(Vec::new())),
    (
        "pg_partition_tree(regclass) table relid regclass, parentrelid regclass, isleaf bool, level int4",
        true,
        |_, _| Ok(Vec::new()),
    ),
    ("aclexplode(text[]) table grantor oid, grantee oid, privilege_type text, is_grantable bool", true, |_, _| {
        Ok(Vec::new())
    }),
    ("pg_get_publication_tables(text) table relid oid, attrs int2vector, qual text", true, |_, _| Ok(Vec::new())),
    ("pg_listening_channels() text", true, |_, _| Ok(Vec::new())),
    ("pg_available_extensions() table name name, default_version text, comment text", true, |_, _| {
        let one = |name: &str, version: &str, comment: &str| {
            vec![Value::text(name), Value::text(version), Value::text(comment)]
        };
        Ok(vec![
            one("plpgsql", "1.0", "PL/pgSQL procedural language"),
            one(
                "timescaledb",
                crate::pgcatalog::relations::TIMESCALEDB_VERSION,
                crate::pgcatalog::relations::TIMESCALEDB_COMMENT,
            ),
        ])
    }),
    ("regexp_matches(text, text, text?) text[]", false, |_, args| {
        let flags = args.get(2).map_or("", Value::as_str);
        let regex = regex(args[1].as_str(), flags.contains('i'))?;
        let limit = if flags.contains('g') { usize::MAX } else { 1 };
        Ok(column(regex.captures_iter(args[0].as_str()).take(limit).map(|found| super::text::captures(&found))))
    }),
    ("regexp_split_to_table(text, text) text", false, |_, args| {
        Ok(column(regex(args[1].as_str(), false)?.split(args[0].as_str()).map(Value::text)))
    }),
    ("string_to_table(text, text) text", false, |_, args| {
        Ok(column(args[0].as_str().split(args[1].as_str()).map(Value::text)))
    }),
];

fn subscripts(args: &[Value], first: i64) -> Vec<Row> {
    let len = if args[1].as_int() == Some(1) { args[0].elements().len() as i64 } else { 0 };
    let rows = (first..first + len).map(|at| vec![Value::Int(at)]);
    if args.get(2).is_some_and(Value::is_true) { rows.rev().collect() } else { rows.collect() }
}

fn column(values: impl Iterator<Item = Value>) -> Vec<Row> {
    values.map(|value| vec![value]).collect()
}

fn too_long() -> Error {
    Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("a series of more than {SERIES_MAX} values over catalogs"))
}

fn integers(args: &[Value]) -> Result<Vec<Row>> {
    let int = |at: usize| args.get(at).and_then(Value::as_int);
    let (Some(start), Some(stop), step) = (int(0), int(1), int(2).unwrap_or(1)) else { return Ok(Vec::new()) };
    if step == 0 {
        return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "step size cannot equal zero"));
    }
    let mut rows = Vec::new();
    let mut at = Some(start);
    while let Some(value) = at.filter(|value| if step > 0 { *value <= stop } else { *value >= stop }) {
        if rows.len() == SERIES_MAX {
            return Err(too_long());
        }
        rows.push(vec![Value::Int(value)]);
        at = value.checked_add(step);
    }
    Ok(rows)
}

fn times(args: &[Value]) -> Result<Vec<Row>> {
    let (Value::Timestamp(start), Value::Timestamp(stop), Value::Interval(step)) = (&args[0], &args[1], &args[2])
    else {
        return Ok(Vec::new());
    };
    if step.months != 0 {
        return Err(Error::unsupported("a series by months over catalogs"));
    }
    let step = (step.days as i64).checked_mul(time::DAY_US).and_then(|days| days.checked_add(step.micros));
    let micros = integers(&[Value::Int(*start), Value::Int(*stop), step.map_or(Value::Null, Value::Int)])?;
    Ok(column(micros.into_iter().filter_map(|row| row[0].as_int()).map(Value::Timestamp)))
}

fn keyword(line: &str) -> Option<Row> {
    let mut parts = line.split(' ');
    let (word, category, bare) = (parts.next()?, parts.next()?, parts.next()? == "t");
    let meaning = match category {
        "U" => "unreserved",
        "C" => "unreserved (cannot be function or type name)",
        "T" => "reserved (can be function or type name)",
        _ => "reserved",
    };
    let label = if bare { "can be bare label" } else { "requires AS" };
    Some(vec![Value::text(word), Value::text(category), Value::Bool(bare), Value::text(meaning), Value::text(label)])
}

pub(crate) fn time_zones(now_us: i64) -> Vec<Row> {
    let now = DateTime::<Utc>::from_timestamp_micros(now_us).unwrap_or_default();
    let zones = TZ_VARIANTS.iter().map(|zone| {
        let local = now.with_timezone(zone);
        let dst_s = local.offset().dst_offset().num_seconds();
        let offset_s = local.offset().base_utc_offset().num_seconds() + dst_s;
        let offset = Interval { months: 0, days: 0, micros: offset_s * 1_000_000 };
        let abbreviation = Value::opt_text(local.offset().abbreviation());
        vec![Value::text(zone.name()), abbreviation, Value::Interval(Arc::new(offset)), Value::Bool(dst_s != 0)]
    });
    zones.collect()
}
