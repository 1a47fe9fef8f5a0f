//! Which functions there are: their arguments with defaults, and what they return.

use super::{compress, jobs, policies};
use crate::pgcatalog::{Argument, Row, Signature, Value};
use engine::PgType;
use proto::{Error, Result, SqlState};

pub struct Function {
    pub name: &'static str,
    pub params: &'static [Param],
    pub columns: &'static [(&'static str, PgType)],
    pub set: bool,
}

pub struct Param {
    pub name: &'static str,
    pub required: bool,
    /// As `\df` shows it.
    pub ty: &'static str,
    /// As `\df` shows it; empty for a required one.
    pub default: &'static str,
}

pub(super) const fn need(name: &'static str, ty: &'static str) -> Param {
    Param { name, required: true, ty, default: "" }
}

pub(super) const fn may(name: &'static str, ty: &'static str, default: &'static str) -> Param {
    Param { name, required: false, ty, default }
}

pub(super) const fn scalar(
    name: &'static str,
    params: &'static [Param],
    columns: &'static [(&'static str, PgType)],
) -> Function {
    Function { name, params, columns, set: false }
}

pub(super) const fn rows(
    name: &'static str,
    params: &'static [Param],
    columns: &'static [(&'static str, PgType)],
) -> Function {
    Function { name, params, columns, set: true }
}

const HYPERTABLE: &[(&str, PgType)] = &[
    ("hypertable_id", PgType::Int4),
    ("schema_name", PgType::Name),
    ("table_name", PgType::Name),
    ("created", PgType::Bool),
];

const CREATE_PARAMS: &[Param] = &[
    need("relation", "regclass"),
    need("time_column_name", "name"),
    may("partitioning_column", "name", "NULL::name"),
    may("number_partitions", "integer", "NULL::integer"),
    may("associated_schema_name", "name", "NULL::name"),
    may("associated_table_prefix", "name", "NULL::name"),
    may("chunk_time_interval", "anyelement", "NULL::bigint"),
    may("create_default_indexes", "boolean", "true"),
    may("if_not_exists", "boolean", "false"),
    may("partitioning_func", "regproc", "NULL::regproc"),
    may("migrate_data", "boolean", "false"),
    may("chunk_target_size", "text", "NULL::text"),
    may("chunk_sizing_func", "regproc", "'_timescaledb_functions.calculate_chunk_interval'::regproc"),
    may("time_partitioning_func", "regproc", "NULL::regproc"),
    may("replication_factor", "integer", "NULL::integer"),
    may("data_nodes", "name[]", "NULL::name[]"),
    may("distributed", "boolean", "NULL::boolean"),
];

const NODE_SIZES: &[(&str, PgType)] = &[
    ("table_bytes", PgType::Int8),
    ("index_bytes", PgType::Int8),
    ("toast_bytes", PgType::Int8),
    ("total_bytes", PgType::Int8),
    ("node_name", PgType::Name),
];

const FUNCTIONS: &[Function] = &[
    rows(
        "add_data_node",
        &[
            need("node_name", "name"),
            may("host", "text", "NULL::text"),
            may("database", "name", "NULL::name"),
            may("port", "integer", "NULL::integer"),
            may("if_not_exists", "boolean", "false"),
            may("bootstrap", "boolean", "true"),
            may("password", "text", "NULL::text"),
        ],
        &[
            ("node_name", PgType::Name),
            ("host", PgType::Text),
            ("port", PgType::Int4),
            ("database", PgType::Name),
            ("node_created", PgType::Bool),
            ("database_created", PgType::Bool),
            ("extension_created", PgType::Bool),
        ],
    ),
    scalar(
        "delete_data_node",
        &[
            need("node_name", "name"),
            may("if_exists", "boolean", "false"),
            may("force", "boolean", "false"),
            may("repartition", "boolean", "true"),
            may("drop_database", "boolean", "false"),
        ],
        &[("delete_data_node", PgType::Bool)],
    ),
    scalar(
        "ping_data_node",
        &[need("node_name", "name"), may("timeout", "interval", "NULL::interval")],
        &[("ping_data_node", PgType::Bool)],
    ),
    scalar(
        "distributed_exec",
        &[need("query", "text"), may("node_list", "name[]", "NULL::name[]"), may("transactional", "boolean", "true")],
        &[("distributed_exec", PgType::Void)],
    ),
    scalar("create_distributed_hypertable", CREATE_PARAMS, HYPERTABLE),
    scalar("create_hypertable", CREATE_PARAMS, HYPERTABLE),
    scalar(
        "add_dimension",
        &[
            need("hypertable", "regclass"),
            need("column_name", "name"),
            may("number_partitions", "integer", "NULL::integer"),
            may("chunk_time_interval", "anyelement", "NULL::bigint"),
            may("partitioning_func", "regproc", "NULL::regproc"),
            may("if_not_exists", "boolean", "false"),
        ],
        &[
            ("dimension_id", PgType::Int4),
            ("schema_name", PgType::Name),
            ("table_name", PgType::Name),
            ("column_name", PgType::Name),
            ("created", PgType::Bool),
        ],
    ),
    scalar(
        "by_range",
        &[
            need("column_name", "name"),
            may("partition_interval", "anyelement", "NULL::unknown"),
            may("partition_func", "regproc", "NULL::regproc"),
        ],
        &[("by_range", PgType::Text)],
    ),
    scalar(
        "by_hash",
        &[
            need("column_name", "name"),
            need("number_partitions", "integer"),
            may("partition_func", "regproc", "NULL::regproc"),
        ],
        &[("by_hash", PgType::Text)],
    ),
    scalar(
        "set_chunk_time_interval",
        &[
            need("hypertable", "regclass"),
            need("chunk_time_interval", "anyelement"),
            may("dimension_name", "name", "NULL::name"),
        ],
        &[("set_chunk_time_interval", PgType::Void)],
    ),
    scalar(
        "set_number_partitions",
        &[
            need("hypertable", "regclass"),
            need("number_partitions", "integer"),
            may("dimension_name", "name", "NULL::name"),
        ],
        &[("set_number_partitions", PgType::Void)],
    ),
    scalar(
        "set_replication_factor",
        &[need("hypertable", "regclass"), need("replication_factor", "integer")],
        &[("set_replication_factor", PgType::Void)],
    ),
    rows(
        "show_chunks",
        &[
            need("relation", "regclass"),
            may("older_than", "\"any\"", "NULL::unknown"),
            may("newer_than", "\"any\"", "NULL::unknown"),
            may("created_before", "\"any\"", "NULL::unknown"),
            may("created_after", "\"any\"", "NULL::unknown"),
        ],
        &[("show_chunks", PgType::Regclass)],
    ),
    rows(
        "drop_chunks",
        &[
            need("relation", "regclass"),
            may("older_than", "\"any\"", "NULL::unknown"),
            may("newer_than", "\"any\"", "NULL::unknown"),
            may("verbose", "boolean", "false"),
            may("created_before", "\"any\"", "NULL::unknown"),
            may("created_after", "\"any\"", "NULL::unknown"),
        ],
        &[("drop_chunks", PgType::Text)],
    ),
    scalar("hypertable_size", &[need("hypertable", "regclass")], &[("hypertable_size", PgType::Int8)]),
    scalar("hypertable_index_size", &[need("index_name", "regclass")], &[("hypertable_index_size", PgType::Int8)]),
    rows("hypertable_detailed_size", &[need("hypertable", "regclass")], NODE_SIZES),
    rows(
        "hypertable_data_node_relation_size",
        &[need("main_table", "regclass")],
        &[
            ("node_name", PgType::Name),
            ("num_chunks", PgType::Int8),
            ("table_size", PgType::Text),
            ("index_size", PgType::Text),
            ("toast_size", PgType::Text),
            ("total_size", PgType::Text),
        ],
    ),
    rows(
        "chunks_detailed_size",
        &[need("hypertable", "regclass")],
        &[
            ("chunk_schema", PgType::Name),
            ("chunk_name", PgType::Name),
            ("table_bytes", PgType::Int8),
            ("index_bytes", PgType::Int8),
            ("toast_bytes", PgType::Int8),
            ("total_bytes", PgType::Int8),
            ("node_name", PgType::Name),
        ],
    ),
    scalar("approximate_row_count", &[need("relation", "regclass")], &[("approximate_row_count", PgType::Int8)]),
    scalar(
        "set_config",
        &[need("setting_name", "text"), need("new_value", "text"), need("is_local", "boolean")],
        &[("set_config", PgType::Text)],
    ),
    scalar("pg_cancel_backend", &[need("pid", "integer")], &[("pg_cancel_backend", PgType::Bool)]),
    scalar(
        "pg_terminate_backend",
        &[need("pid", "integer"), may("timeout", "interval", "NULL::interval")],
        &[("pg_terminate_backend", PgType::Bool)],
    ),
];

/// What a function of type void returns: one empty value.
pub fn void() -> Row {
    vec![Value::text("")]
}

/// TimescaleDB functions users know that are answered with a clear refusal.
const REFUSED: &[&str] = &[
    "attach_data_node",
    "detach_data_node",
    "alter_data_node",
    "block_new_chunks",
    "allow_new_chunks",
    "move_chunk",
    "copy_chunk",
    "create_distributed_restore_point",
    "recompress_chunk",
    "add_job",
    "reorder_chunk",
    "add_reorder_policy",
    "refresh_continuous_aggregate",
    "add_continuous_aggregate_policy",
    "remove_continuous_aggregate_policy",
    "set_integer_now_func",
];

/// All that are served: those above, and those that are listed beside what serves them.
pub fn functions() -> impl Iterator<Item = &'static Function> {
    FUNCTIONS.iter().chain(compress::FUNCTIONS).chain(policies::FUNCTIONS).chain(jobs::FUNCTIONS)
}

pub fn find(name: &str) -> Option<&'static Function> {
    functions().find(|function| function.name == name)
}

/// Functions that only answer.
const READERS: &[&str] = &[
    "show_chunks",
    "by_range",
    "by_hash",
    "ping_data_node",
    "hypertable_size",
    "hypertable_index_size",
    "hypertable_detailed_size",
    "hypertable_data_node_relation_size",
    "hypertable_compression_stats",
    "chunk_compression_stats",
    "chunks_detailed_size",
    "approximate_row_count",
];

pub fn is_refused(name: &str) -> bool {
    REFUSED.contains(&name)
}

pub fn signature(name: &str) -> Option<Signature> {
    if is_refused(name) {
        return Some(Signature { columns: vec![(name.to_owned(), PgType::Text)], set: false, changes: false });
    }
    let function = find(name)?;
    let columns = function.columns.iter().map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect();
    Some(Signature { columns, set: function.set, changes: !READERS.contains(&name) })
}

/// Arguments by parameter name; a parameter not given is NULL.
pub struct Bound<'a> {
    function: &'static Function,
    values: Vec<Option<&'a Argument>>,
}

/// # Errors
/// `42883` when a name or a count does not fit, as PostgreSQL says it.
pub fn bind<'a>(function: &'static Function, args: &'a [Argument]) -> Result<Bound<'a>> {
    let mut values: Vec<Option<&Argument>> = function.params.iter().map(|_| None).collect();
    for (position, arg) in args.iter().enumerate() {
        let slot = match &arg.name {
            None => Some(position),
            Some(name) => function.params.iter().position(|param| is_named(function, param, name)),
        };
        match slot.and_then(|slot| values.get_mut(slot)) {
            Some(free @ None) => *free = Some(arg),
            _ => return Err(no_such(function, args)),
        }
    }
    let missing = function.params.iter().zip(&values).any(|(param, value)| param.required && value.is_none());
    if missing { Err(no_such(function, args)) } else { Ok(Bound { function, values }) }
}

/// The beta called the first argument of the create functions `main_table`.
fn is_named(function: &Function, param: &Param, name: &str) -> bool {
    let alias = param.name == "relation" && function.name.starts_with("create_") && name == "main_table";
    param.name == name || alias || (param.name == "relation" && name == "hypertable")
}

fn no_such(function: &Function, args: &[Argument]) -> Error {
    let spelled = args.iter().map(|arg| match &arg.name {
        Some(name) => format!("{name} => {}", arg.ty),
        None => arg.ty.to_string(),
    });
    let list = spelled.collect::<Vec<_>>().join(", ");
    Error::new(SqlState::UNDEFINED_FUNCTION, format!("function {}({list}) does not exist", function.name))
        .hint("No function matches the given name and argument types. You might need to add explicit type casts.")
}

impl<'a> Bound<'a> {
    pub fn argument(&self, name: &str) -> Option<&'a Argument> {
        let position = self.function.params.iter().position(|param| param.name == name);
        self.values[position.expect("a parameter of this function")]
    }

    pub fn value(&self, name: &str) -> &'a Value {
        self.argument(name).map_or(&Value::Null, |argument| &argument.value)
    }

    pub fn text(&self, name: &str) -> Option<&'a str> {
        match self.value(name) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// # Errors
    /// `22P02` for text that is no number.
    pub fn int(&self, name: &str) -> Result<Option<i64>> {
        match self.value(name) {
            Value::Null => Ok(None),
            Value::Text(text) => text.trim().parse().map(Some).map_err(|_| {
                let message = format!("invalid input syntax for type integer: \"{text}\"");
                Error::new(SqlState::INVALID_TEXT_REPRESENTATION, message)
            }),
            other => Ok(other.as_int()),
        }
    }

    /// `default` when not given or NULL.
    pub fn bool(&self, name: &str, default: bool) -> bool {
        match self.value(name) {
            Value::Bool(value) => *value,
            Value::Text(text) => matches!(&**text, "t" | "true" | "on" | "yes" | "1"),
            _ => default,
        }
    }

    /// The texts of an array, or of an array literal `{a,b}`.
    pub fn names(&self, name: &str) -> Option<Vec<String>> {
        match self.value(name) {
            Value::Array(values) => Some(values.iter().map(|value| value.as_str().to_owned()).collect()),
            Value::Text(text) => {
                let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
                let names = inner.split(',').map(|name| name.trim().trim_matches('"').to_owned());
                Some(names.filter(|name| !name.is_empty()).collect())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arg(name: Option<&str>, text: &str) -> Argument {
        Argument { name: name.map(str::to_owned), value: Value::text(text), ty: PgType::Unknown }
    }

    #[test]
    fn positional_and_named_arguments_meet_their_parameters() {
        let args = [arg(None, "dn1"), arg(Some("host"), "data1.example.com")];
        let bound = bind(find("add_data_node").unwrap(), &args).unwrap();
        assert_eq!(
            (bound.text("node_name"), bound.text("host"), bound.text("port")),
            (Some("dn1"), Some("data1.example.com"), None)
        );
    }

    #[test]
    fn unknown_missing_and_doubled_arguments_are_no_function() {
        let function = find("add_data_node").unwrap();
        for args in [vec![], vec![arg(Some("nosuch"), "x")], vec![arg(None, "a"), arg(Some("node_name"), "b")]] {
            assert_eq!(bind(function, &args).err().unwrap().code.as_str(), "42883");
        }
    }

    #[test]
    fn the_beta_name_of_the_first_argument_still_works() {
        let args = [arg(Some("main_table"), "t"), arg(None, "time")];
        assert!(bind(find("create_distributed_hypertable").unwrap(), &args).is_ok());
    }
}
