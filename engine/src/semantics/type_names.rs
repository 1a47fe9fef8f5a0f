//! SQL type names become Arrow types.

use crate::PgType;
use crate::functions::raise;
use arrow::datatypes::FieldRef;
use datafusion::common::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, DataType as SqlType, ExactNumberInfo, TimezoneInfo};
use proto::{Error, SqlState};
use std::sync::Arc;

#[derive(Debug)]
pub struct PgTypes;

impl TypePlanner for PgTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        let ty = pg_type(sql_type).map_err(raise)?;
        Ok(Some(Arc::new(ty.field("", true))))
    }
}

/// The Postgres type that SQL spells this way.
///
/// # Errors
/// 42704 for unknown names, 0A000 for types that have no values here (`regclass` and its kin).
pub fn pg_type(sql_type: &SqlType) -> Result<PgType, Error> {
    Ok(match sql_type {
        SqlType::Array(ArrayElemTypeDef::SquareBracket(element, _) | ArrayElemTypeDef::AngleBracket(element)) => {
            PgType::Array(Box::new(pg_type(element)?))
        }
        SqlType::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => PgType::Timestamptz,
        SqlType::Timestamp(..) => PgType::Timestamp,
        SqlType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => PgType::Time,
        SqlType::Interval { .. } => PgType::Interval,
        SqlType::Float(ExactNumberInfo::Precision(digits)) if *digits <= 24 => PgType::Float4,
        SqlType::Float(_) | SqlType::Double(_) | SqlType::DoublePrecision => PgType::Float8,
        SqlType::Numeric(bounds) | SqlType::Decimal(bounds) | SqlType::Dec(bounds) => match bounds {
            ExactNumberInfo::None => PgType::Numeric(None),
            ExactNumberInfo::Precision(precision) => numeric(*precision, 0)?,
            ExactNumberInfo::PrecisionAndScale(precision, scale) => numeric(*precision, *scale)?,
        },
        other => named(&other.to_string())?,
    })
}

fn numeric(precision: u64, scale: i64) -> Result<PgType, Error> {
    let bound = |message: String| Error::new(SqlState::INVALID_PARAMETER_VALUE, message);
    if !(1..=1000).contains(&precision) {
        return Err(bound(format!("NUMERIC precision {precision} must be between 1 and 1000")));
    }
    if !(-1000..=1000).contains(&scale) {
        return Err(bound(format!("NUMERIC scale {scale} must be between -1000 and 1000")));
    }
    if precision > 38 {
        return Err(Error::unsupported("numeric precision above 38"));
    }
    if !(0..=precision as i64).contains(&scale) {
        return Err(Error::unsupported("a numeric scale below 0 or above the precision"));
    }
    Ok(PgType::Numeric(Some((precision as u8, scale as i8))))
}

fn named(text: &str) -> Result<PgType, Error> {
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_prefix("pg_catalog.").unwrap_or(&lower);
    let plain = match bare {
        "nvarchar" | "char varying" => "varchar",
        other => other,
    };
    let plain = plain.replace("character varying", "varchar").replace("char varying", "varchar");
    let unquoted = if plain == "\"char\"" { plain.clone() } else { plain.replace('"', "") };
    match PgType::parse(&unquoted) {
        Some(PgType::Regclass | PgType::Regtype | PgType::Regproc | PgType::Regnamespace | PgType::Regrole) => {
            Err(Error::unsupported(format!("a value of type {unquoted} in this place")))
        }
        Some(ty) => Ok(ty),
        None => Err(Error::new(SqlState::UNDEFINED_OBJECT, format!("type \"{bare}\" does not exist"))),
    }
}
