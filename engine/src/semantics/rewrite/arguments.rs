//! Arguments by name become arguments by position, and functions that only have another name get ours.

use crate::functions::gapfill;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart, Value,
    ValueWithSpan,
};
use proto::{Error, SqlState};

/// PostgreSQL's name, ours.
const RENAMED: &[(&str, &str)] =
    &[("array_remove", "array_remove_all"), ("array_replace", "array_replace_all"), ("array_upper", "array_length")];

const INTERVAL_PARTS: &[&str] = &["years", "months", "weeks", "days", "hours", "mins", "secs"];

const LOCF_ARGS: &[&str] = &["value", "prev", "treat_null_as_missing"];
const INTERPOLATE_ARGS: &[&str] = &["value", "prev", "next"];
const GAPFILL_ARGS: &[&str] = &["bucket_width", "ts", "timezone", "start", "finish"];
const GAPFILL_WITHIN_ARGS: &[&str] = &["bucket_width", "ts", "start", "finish"];

/// # Errors
/// 42883 for a name that the function has not.
pub fn position(call: &mut Function) -> Result<(), Error> {
    let Some(name) = plain_name(&call.name) else { return Ok(()) };
    if let Some((_, ours)) = RENAMED.iter().find(|row| row.0 == name) {
        call.name = ObjectName::from(vec![Ident::new(*ours)]);
    }
    let FunctionArguments::List(list) = &mut call.args else { return Ok(()) };
    let named = list.args.iter().any(|arg| !matches!(arg, FunctionArg::Unnamed(_)));
    match (name.as_str(), named) {
        ("make_interval", true) => list.args = interval_parts(std::mem::take(&mut list.args))?,
        ("time_bucket", true) => {
            let (ours, args) = bucket(std::mem::take(&mut list.args))?;
            list.args = args;
            call.name = ObjectName::from(vec![Ident::new(ours)]);
        }
        (gapfill::BUCKET, true) => {
            let (ours, args) = gapfill_bucket(std::mem::take(&mut list.args))?;
            list.args = args;
            call.name = ObjectName::from(vec![Ident::new(ours)]);
        }
        (gapfill::LOCF, true) => list.args = in_order(gapfill::LOCF, LOCF_ARGS, std::mem::take(&mut list.args))?,
        (gapfill::INTERPOLATE, true) => {
            list.args = in_order(gapfill::INTERPOLATE, INTERPOLATE_ARGS, std::mem::take(&mut list.args))?;
        }
        _ => {}
    }
    Ok(())
}

fn plain_name(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => Some(name.value.to_ascii_lowercase()),
        _ => None,
    }
}

/// `(name, value)`, the name lower-case; `None` for an argument by position.
fn parts(arg: FunctionArg) -> Option<(Option<String>, Expr)> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some((None, value)),
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
            Some((Some(name.value.to_ascii_lowercase()), value))
        }
        FunctionArg::ExprNamed { name: Expr::Identifier(name), arg: FunctionArgExpr::Expr(value), .. } => {
            Some((Some(name.value.to_ascii_lowercase()), value))
        }
        _ => None,
    }
}

fn no_argument(function: &str) -> Error {
    Error::new(SqlState::UNDEFINED_FUNCTION, format!("function {function} has no argument of that name"))
}

fn unnamed(value: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(value))
}

fn interval_parts(args: Vec<FunctionArg>) -> Result<Vec<FunctionArg>, Error> {
    let zero = || Expr::Value(ValueWithSpan::from(Value::Number("0".to_owned(), false)));
    let mut values = vec![zero(); INTERVAL_PARTS.len()];
    for (index, arg) in args.into_iter().enumerate() {
        let (name, value) = parts(arg).ok_or_else(|| no_argument("make_interval"))?;
        let place = match name {
            None => Some(index),
            Some(name) => INTERVAL_PARTS.iter().position(|part| *part == name),
        };
        *place.and_then(|place| values.get_mut(place)).ok_or_else(|| no_argument("make_interval"))? = value;
    }
    Ok(values.into_iter().map(unnamed).collect())
}

/// Arguments in the order of `names`; NULL for those left out.
fn in_order(function: &str, names: &[&str], args: Vec<FunctionArg>) -> Result<Vec<FunctionArg>, Error> {
    let mut values = vec![null(); names.len()];
    for (index, arg) in args.into_iter().enumerate() {
        let (name, value) = parts(arg).ok_or_else(|| no_argument(function))?;
        let place = match name {
            None => Some(index),
            Some(name) => names.iter().position(|known| *known == name),
        };
        *place.and_then(|place| values.get_mut(place)).ok_or_else(|| no_argument(function))? = value;
    }
    Ok(values.into_iter().map(unnamed).collect())
}

fn null() -> Expr {
    Expr::Value(ValueWithSpan::from(Value::Null))
}

/// Without a zone, `start` and `finish` have a function of their own: an untyped literal in third place would be read as
/// a zone.
fn gapfill_bucket(args: Vec<FunctionArg>) -> Result<(&'static str, Vec<FunctionArg>), Error> {
    let by_position = args.iter().take_while(|arg| matches!(arg, FunctionArg::Unnamed(_))).count();
    let has = |wanted: &str| {
        let name_of = |arg: &FunctionArg| parts(arg.clone()).and_then(|(name, _)| name);
        args.iter().any(|arg| name_of(arg).as_deref() == Some(wanted))
    };
    let literal = |arg: &FunctionArg| match parts(arg.clone()) {
        Some((None, Expr::Value(value))) => matches!(value.value, Value::SingleQuotedString(_)),
        _ => false,
    };
    let zoned = has("timezone") || by_position > 3 || (by_position == 3 && (has("start") || literal(&args[2])));
    let (function, names) = match zoned {
        true => (gapfill::BUCKET, GAPFILL_ARGS),
        false => (gapfill::BUCKET_WITHIN, GAPFILL_WITHIN_ARGS),
    };
    Ok((function, in_order(function, names, args)?))
}

/// `origin`, `offset` and `timezone` of `time_bucket`; the first two have functions of their own, so that an untyped literal
/// is read as what it was named.
fn bucket(args: Vec<FunctionArg>) -> Result<(&'static str, Vec<FunctionArg>), Error> {
    let mut values = Vec::new();
    let (mut zone, mut origin, mut offset) = (None, None, None);
    for arg in args {
        let (name, value) = parts(arg).ok_or_else(|| no_argument("time_bucket"))?;
        match name.as_deref() {
            None | Some("bucket_width" | "ts") => values.push(value),
            Some("timezone") => zone = Some(value),
            Some("origin") => origin = Some(value),
            Some("offset") => offset = Some(value),
            Some(_) => return Err(no_argument("time_bucket")),
        }
    }
    // A zone by position is the third.
    if zone.is_none() && values.len() > 2 {
        zone = Some(values.remove(2));
    }
    let function = match (zone, origin, offset) {
        (Some(zone), origin, offset) => {
            values.extend([zone, origin.unwrap_or_else(null), offset.unwrap_or_else(null)]);
            "time_bucket"
        }
        (None, Some(origin), None) => {
            values.push(origin);
            "time_bucket_origin"
        }
        (None, None, Some(offset)) => {
            values.push(offset);
            "time_bucket_offset"
        }
        (None, None, None) => "time_bucket",
        (None, Some(_), Some(_)) => return Err(no_argument("time_bucket")),
    };
    Ok((function, values.into_iter().map(unnamed).collect()))
}
