//! Arrays.

use super::super::value::Value;
use super::Eval;

pub(super) const FUNCTIONS: &[(&str, Eval)] = &[
    ("~array_to_string(text[]*, text, text?) text", |_, args| {
        if args[0].is_null() || args[1].is_null() {
            return Ok(Value::Null);
        }
        let null = args.get(2).filter(|null| !null.is_null());
        let parts = args[0].elements().iter().filter_map(|part| match part {
            Value::Null => null.map(Value::as_str),
            part => Some(part.as_str()),
        });
        Ok(Value::text(parts.collect::<Vec<_>>().join(args[1].as_str())))
    }),
    ("~string_to_array(text, text, text?) text[]", |_, args| {
        if args[0].is_null() {
            return Ok(Value::Null);
        }
        let text = args[0].as_str();
        let part = |part: &str| match args.get(2) {
            Some(null) if !null.is_null() && null.as_str() == part => Value::Null,
            _ => Value::text(part),
        };
        Ok(match &args[1] {
            _ if text.is_empty() => Value::array([]),
            Value::Null => Value::array(text.chars().map(|c| part(c.encode_utf8(&mut [0; 4])))),
            by if by.as_str().is_empty() => Value::array([part(text)]),
            by => Value::array(text.split(by.as_str()).map(part)),
        })
    }),
    ("array_length(any, int4) int4", |_, args| Ok(length(args))),
    // The vector types count from 0.
    ("array_upper(int2vector, int4) int4", |_, args| Ok(upper(args, 0))),
    ("array_upper(oidvector, int4) int4", |_, args| Ok(upper(args, 0))),
    ("array_upper(any, int4) int4", |_, args| Ok(upper(args, 1))),
    ("array_lower(int2vector, int4) int4", |_, args| Ok(lower(args, 0))),
    ("array_lower(oidvector, int4) int4", |_, args| Ok(lower(args, 0))),
    ("array_lower(any, int4) int4", |_, args| Ok(lower(args, 1))),
    ("array_ndims(any) int4", |_, args| Ok(if args[0].elements().is_empty() { Value::Null } else { Value::Int(1) })),
    ("cardinality(any) int4", |_, args| Ok(Value::Int(args[0].elements().len() as i64))),
    ("array_position(any, any) int4", |_, args| {
        let at = args[0].elements().iter().position(|value| *value == args[1]);
        Ok(at.map_or(Value::Null, |at| Value::Int(at as i64 + 1)))
    }),
    ("~array_append(any, any) $1", |_, args| {
        Ok(Value::array(args[0].elements().iter().cloned().chain([args[1].clone()])))
    }),
    ("~array_prepend(any, any) $2", |_, args| {
        Ok(Value::array([args[0].clone()].into_iter().chain(args[1].elements().iter().cloned())))
    }),
    ("~array_cat(any, any) $1", |_, args| {
        Ok(Value::array(args[0].elements().iter().chain(args[1].elements()).cloned()))
    }),
    ("~array_remove(any, any) $1", |_, args| {
        Ok(Value::array(args[0].elements().iter().filter(|value| **value != args[1]).cloned()))
    }),
];

/// Arrays here have one dimension; an empty one has none.
fn length(args: &[Value]) -> Value {
    match (args[0].elements().len(), args[1].as_int()) {
        (0, _) => Value::Null,
        (len, Some(1)) => Value::Int(len as i64),
        _ => Value::Null,
    }
}

fn lower(args: &[Value], first: i64) -> Value {
    if length(args).is_null() { Value::Null } else { Value::Int(first) }
}

fn upper(args: &[Value], first: i64) -> Value {
    length(args).as_int().map_or(Value::Null, |len| Value::Int(first + len - 1))
}
