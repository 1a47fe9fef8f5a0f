//! The functions as `\df` and `pg_proc` list them: those of `signature`, and those the engine computes.

use super::signature::{Function, functions};
use crate::pgcatalog::{ListedArgument, ListedFunction};

/// Functions of PostgreSQL itself, and those whose dimension type has no form here.
const UNLISTED: &[&str] = &["by_range", "by_hash", "set_config", "pg_cancel_backend", "pg_terminate_backend"];

/// `(name, result, kind, arguments as name, type and default)` of what the engine computes.
type Computed = (&'static str, &'static str, char, Arguments);

const COMPUTED: &[Computed] = &[
    ("first", "anyelement", 'a', &[("", "anyelement", ""), ("", "\"any\"", "")]),
    ("last", "anyelement", 'a', &[("", "anyelement", ""), ("", "\"any\"", "")]),
    (
        "histogram",
        "integer[]",
        'a',
        &[
            ("", "double precision", ""),
            ("", "double precision", ""),
            ("", "double precision", ""),
            ("", "integer", ""),
        ],
    ),
    bucket("bigint", &[("bucket_width", "bigint", ""), ("ts", "bigint", "")]),
    bucket("bigint", &[("bucket_width", "bigint", ""), ("ts", "bigint", ""), ("offset", "bigint", "")]),
    bucket("integer", &[("bucket_width", "integer", ""), ("ts", "integer", "")]),
    bucket("integer", &[("bucket_width", "integer", ""), ("ts", "integer", ""), ("offset", "integer", "")]),
    bucket("smallint", &[("bucket_width", "smallint", ""), ("ts", "smallint", "")]),
    bucket("smallint", &[("bucket_width", "smallint", ""), ("ts", "smallint", ""), ("offset", "smallint", "")]),
    bucket("date", &[WIDTH, ("ts", "date", "")]),
    bucket("date", &[WIDTH, ("ts", "date", ""), ("origin", "date", "")]),
    bucket("date", &[WIDTH, ("ts", "date", ""), OFFSET]),
    bucket(STAMP, &[WIDTH, ("ts", STAMP, "")]),
    bucket(STAMP, &[WIDTH, ("ts", STAMP, ""), OFFSET]),
    bucket(STAMP, &[WIDTH, ("ts", STAMP, ""), ("origin", STAMP, "")]),
    bucket(INSTANT, &[WIDTH, ("ts", INSTANT, "")]),
    bucket(INSTANT, &[WIDTH, ("ts", INSTANT, ""), OFFSET]),
    bucket(
        INSTANT,
        &[
            WIDTH,
            ("ts", INSTANT, ""),
            ("timezone", "text", ""),
            ("origin", INSTANT, "NULL::timestamp with time zone"),
            ("offset", "interval", "NULL::interval"),
        ],
    ),
    bucket(INSTANT, &[WIDTH, ("ts", INSTANT, ""), ("origin", INSTANT, "")]),
    gapfill(
        "bigint",
        &[
            ("bucket_width", "bigint", ""),
            ("ts", "bigint", ""),
            ("start", "bigint", "NULL::bigint"),
            ("finish", "bigint", "NULL::bigint"),
        ],
    ),
    gapfill(
        "integer",
        &[
            ("bucket_width", "integer", ""),
            ("ts", "integer", ""),
            ("start", "integer", "NULL::integer"),
            ("finish", "integer", "NULL::integer"),
        ],
    ),
    gapfill(
        "smallint",
        &[
            ("bucket_width", "smallint", ""),
            ("ts", "smallint", ""),
            ("start", "smallint", "NULL::smallint"),
            ("finish", "smallint", "NULL::smallint"),
        ],
    ),
    gapfill("date", &[WIDTH, ("ts", "date", ""), ("start", "date", "NULL::date"), ("finish", "date", "NULL::date")]),
    gapfill(STAMP, &[WIDTH, ("ts", STAMP, ""), ("start", STAMP, NULL_STAMP), ("finish", STAMP, NULL_STAMP)]),
    gapfill(
        INSTANT,
        &[WIDTH, ("ts", INSTANT, ""), ("start", INSTANT, NULL_INSTANT), ("finish", INSTANT, NULL_INSTANT)],
    ),
    gapfill(
        INSTANT,
        &[
            WIDTH,
            ("ts", INSTANT, ""),
            ("timezone", "text", ""),
            ("start", INSTANT, NULL_INSTANT),
            ("finish", INSTANT, NULL_INSTANT),
        ],
    ),
    (
        "locf",
        "anyelement",
        'f',
        &[
            ("value", "anyelement", ""),
            ("prev", "anyelement", "NULL::unknown"),
            ("treat_null_as_missing", "boolean", "false"),
        ],
    ),
    interpolate("bigint", &[("value", "bigint", ""), PREV, NEXT]),
    interpolate("double precision", &[("value", "double precision", ""), PREV, NEXT]),
    interpolate("integer", &[("value", "integer", ""), PREV, NEXT]),
    interpolate("real", &[("value", "real", ""), PREV, NEXT]),
    interpolate("smallint", &[("value", "smallint", ""), PREV, NEXT]),
];

const STAMP: &str = "timestamp without time zone";
const INSTANT: &str = "timestamp with time zone";
const WIDTH: (&str, &str, &str) = ("bucket_width", "interval", "");
const OFFSET: (&str, &str, &str) = ("offset", "interval", "");
const NULL_STAMP: &str = "NULL::timestamp without time zone";
const NULL_INSTANT: &str = "NULL::timestamp with time zone";
const PREV: (&str, &str, &str) = ("prev", "record", "NULL::record");
const NEXT: (&str, &str, &str) = ("next", "record", "NULL::record");

type Arguments = &'static [(&'static str, &'static str, &'static str)];

const fn bucket(result: &'static str, arguments: Arguments) -> Computed {
    ("time_bucket", result, 'f', arguments)
}

const fn gapfill(result: &'static str, arguments: Arguments) -> Computed {
    ("time_bucket_gapfill", result, 'f', arguments)
}

const fn interpolate(result: &'static str, arguments: Arguments) -> Computed {
    ("interpolate", result, 'f', arguments)
}

pub(crate) fn listed() -> Vec<ListedFunction> {
    let own = functions().filter(|function| !UNLISTED.contains(&function.name)).map(of_signature);
    let computed = COMPUTED.iter().map(|(name, result, kind, arguments)| ListedFunction {
        name,
        kind: *kind,
        arguments: arguments.iter().map(|(name, ty, default)| ListedArgument { name, ty, default }).collect(),
        result: (*result).to_owned(),
        set: false,
    });
    own.chain(computed).collect()
}

fn of_signature(function: &Function) -> ListedFunction {
    // What only create_hypertable takes.
    let foreign = |name: &str| name == "distributed" && function.name != "create_hypertable";
    let arguments = function.params.iter().filter(|param| !foreign(param.name));
    let columns = function.columns.iter().map(|(name, ty)| format!("{name} {ty}")).collect::<Vec<_>>();
    let table = columns.len() > 1;
    let result = match function.columns {
        _ if matches!(function.name, "distributed_exec" | "run_job") => String::new(),
        [(_, ty)] if function.set => format!("SETOF {ty}"),
        [(_, ty)] => ty.to_string(),
        _ => format!("TABLE({})", columns.join(", ")),
    };
    ListedFunction {
        name: function.name,
        kind: if result.is_empty() { 'p' } else { 'f' },
        arguments: arguments
            .map(|param| ListedArgument { name: param.name, ty: param.ty, default: param.default })
            .collect(),
        result,
        set: function.set || table,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(name: &str) -> String {
        let function = listed().into_iter().find(|function| function.name == name).unwrap();
        function.argument_list(true)
    }

    /// As TimescaleDB's SQL declares them, in `\df`'s spelling.
    #[test]
    fn signatures_read_as_timescaledb_declares_them() {
        assert_eq!(
            arguments("add_data_node"),
            "node_name name, host text DEFAULT NULL::text, database name DEFAULT NULL::name, \
             port integer DEFAULT NULL::integer, if_not_exists boolean DEFAULT false, \
             bootstrap boolean DEFAULT true, password text DEFAULT NULL::text"
        );
        assert_eq!(
            arguments("show_chunks"),
            "relation regclass, older_than \"any\" DEFAULT NULL::unknown, newer_than \"any\" DEFAULT NULL::unknown, \
             created_before \"any\" DEFAULT NULL::unknown, created_after \"any\" DEFAULT NULL::unknown"
        );
        assert_eq!(arguments("first"), "anyelement, \"any\"");
        let created = listed().into_iter().find(|function| function.name == "create_hypertable").unwrap();
        assert_eq!(created.result, "TABLE(hypertable_id integer, schema_name name, table_name name, created boolean)");
    }

    #[test]
    fn every_type_in_a_list_has_an_oid() {
        for function in listed() {
            assert!(function.argument_oids().iter().all(|oid| *oid != 0), "{}", function.name);
        }
    }
}
