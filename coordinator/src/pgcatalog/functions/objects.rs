//! What an OID means: names, definitions, comments, sizes.

use super::super::run::{Context, column_of};
use super::super::value::{Row, Value};
use super::Eval;
use crate::pgcatalog::relations::oids;
use crate::pgcatalog::system::{Bytes, ListedFunction};
use proto::Result;

pub(super) const FUNCTIONS: &[(&str, Eval)] = &[
    ("pg_table_is_visible(oid) bool", |ctx, args| visible(ctx, "pg_class", "relname", "relnamespace", &args[0])),
    ("pg_type_is_visible(oid) bool", |ctx, args| visible(ctx, "pg_type", "typname", "typnamespace", &args[0])),
    ("pg_function_is_visible(oid) bool", |ctx, args| in_path(ctx, "pg_proc", "pronamespace", &args[0])),
    ("pg_collation_is_visible(oid) bool", |ctx, args| in_path(ctx, "pg_collation", "collnamespace", &args[0])),
    ("pg_operator_is_visible(oid) bool", |ctx, args| in_path(ctx, "pg_operator", "oprnamespace", &args[0])),
    ("pg_opclass_is_visible(oid) bool", |ctx, args| in_path(ctx, "pg_opclass", "opcnamespace", &args[0])),
    ("pg_opfamily_is_visible(oid) bool", |ctx, args| in_path(ctx, "pg_opfamily", "opfnamespace", &args[0])),
    ("pg_conversion_is_visible(oid) bool", |ctx, args| in_path(ctx, "pg_conversion", "connamespace", &args[0])),
    ("pg_statistics_obj_is_visible(oid) bool", |_, _| Ok(Value::Bool(false))),
    ("pg_ts_config_is_visible(oid) bool", |_, _| Ok(Value::Bool(false))),
    ("pg_ts_dict_is_visible(oid) bool", |_, _| Ok(Value::Bool(false))),
    ("pg_ts_parser_is_visible(oid) bool", |_, _| Ok(Value::Bool(false))),
    ("pg_ts_template_is_visible(oid) bool", |_, _| Ok(Value::Bool(false))),
    ("~format_type(oid, int4) text", |ctx, args| {
        Ok(match args[0].as_int() {
            Some(0) => Value::text("-"),
            Some(oid) => ctx.type_name(oid, args[1].as_int().unwrap_or(-1)),
            None => Value::Null,
        })
    }),
    ("pg_get_userbyid(oid) name", |ctx, args| {
        let name = ctx.lookup_value("pg_authid", "oid", &args[0], "rolname");
        Ok(name.unwrap_or_else(|| Value::text(format!("unknown (OID={})", args[0].as_int().unwrap_or(0)))))
    }),
    // Stored expressions are kept as SQL text.
    ("pg_get_expr(text*, oid, bool?) text", |_, args| Ok(args[0].clone())),
    ("pg_get_indexdef(oid, int4?, bool?) text", |ctx, args| {
        let column = args.get(1).and_then(Value::as_int).unwrap_or(0);
        let pretty = args.get(2).is_some_and(Value::is_true);
        Ok(index_definition(ctx, &args[0], column, pretty))
    }),
    ("pg_get_constraintdef(oid, bool?) text", |ctx, args| Ok(constraint_definition(ctx, &args[0]))),
    ("pg_get_viewdef(regclass, any?) text", |ctx, args| {
        let Some(oid) = args[0].as_int() else { return Ok(Value::Null) };
        let view = ctx.catalog.views().into_iter().find(|view| view.oid as i64 == oid);
        Ok(Value::opt_text(view.map(|view| format!(" {};", view.sql.trim().trim_end_matches(';')))))
    }),
    ("pg_get_triggerdef(oid, bool?) text", |ctx, args| {
        let pretty = args.get(1).is_some_and(Value::is_true);
        let Some(table) = ctx.lookup_value("pg_trigger", "oid", &args[0], "tgrelid") else { return Ok(Value::Null) };
        let table = relation_name(ctx, &table, pretty);
        Ok(Value::text(format!(
            "CREATE TRIGGER ts_insert_blocker BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION \
             _timescaledb_functions.insert_blocker()"
        )))
    }),
    ("pg_get_function_result(oid) text", |ctx, args| {
        if let Some(function) = listed(ctx, &args[0]) {
            return Ok(if function.kind == 'p' { Value::Null } else { Value::text(function.result) });
        }
        let result = ctx.lookup_value("pg_proc", "oid", &args[0], "prorettype").and_then(|oid| oid.as_int());
        Ok(result.map_or(Value::Null, |oid| ctx.type_name(oid, -1)))
    }),
    ("pg_get_function_arguments(oid) text", |ctx, args| function_arguments(ctx, &args[0], true)),
    ("pg_get_function_identity_arguments(oid) text", |ctx, args| function_arguments(ctx, &args[0], false)),
    ("pg_get_functiondef(oid) text", |_, _| Ok(Value::Null)),
    ("pg_get_function_sqlbody(oid) text", |_, _| Ok(Value::Null)),
    ("pg_get_ruledef(oid, bool?) text", |_, _| Ok(Value::Null)),
    ("pg_get_partkeydef(oid) text", |_, _| Ok(Value::Null)),
    ("pg_get_partition_constraintdef(oid) text", |_, _| Ok(Value::Null)),
    ("pg_get_statisticsobjdef_columns(oid) text", |_, _| Ok(Value::Null)),
    ("pg_get_statisticsobjdef(oid) text", |_, _| Ok(Value::Null)),
    ("pg_get_serial_sequence(text, text) text", |_, _| Ok(Value::Null)),
    ("pg_sequence_last_value(regclass) int8", |_, _| Ok(Value::Null)),
    ("pg_get_replica_identity_index(regclass) regclass", |_, _| Ok(Value::Null)),
    ("pg_partition_root(regclass) regclass", |_, _| Ok(Value::Null)),
    ("obj_description(oid, name?) text", |ctx, args| {
        let class = args.get(1).map(|class| class.as_str().to_owned());
        description(ctx, "pg_description", &args[0], class, 0)
    }),
    ("col_description(oid, int4) text", |ctx, args| {
        description(ctx, "pg_description", &args[0], Some("pg_class".to_owned()), args[1].as_int().unwrap_or(0))
    }),
    ("shobj_description(oid, name) text", |ctx, args| {
        let class = args[1].as_str().to_owned();
        let found = ctx.lookup("pg_shdescription", "objoid", &args[0]);
        let class = super::super::schema::find(None, &class).map(|def| def.oid as i64);
        let row = found.into_iter().find(|row| row[1].as_int() == class);
        Ok(row.map_or(Value::Null, |row| row[2].clone()))
    }),
    ("pg_relation_is_publishable(regclass) bool", |ctx, args| {
        let kind = ctx.lookup_value("pg_class", "oid", &args[0], "relkind");
        Ok(kind.map_or(Value::Null, |kind| Value::Bool(kind.as_str() == "r")))
    }),
    ("pg_relation_is_updatable(regclass, bool) int4", |_, _| Ok(Value::Int(0))),
    ("pg_column_is_updatable(regclass, int2, bool) bool", |_, _| Ok(Value::Bool(false))),
    ("pg_relation_filenode(regclass) oid", |_, _| Ok(Value::Null)),
    ("pg_relation_filepath(regclass) text", |_, _| Ok(Value::Null)),
    ("pg_table_size(regclass) int8", |ctx, args| size(ctx, &args[0], |bytes| bytes.table)),
    ("pg_relation_size(regclass, text?) int8", |ctx, args| size(ctx, &args[0], |bytes| bytes.table)),
    ("pg_indexes_size(regclass) int8", |ctx, args| size(ctx, &args[0], |bytes| bytes.index)),
    ("pg_total_relation_size(regclass) int8", |ctx, args| size(ctx, &args[0], |bytes| bytes.table + bytes.index)),
    ("pg_tablespace_location(oid) text", |_, _| Ok(Value::text(""))),
    ("pg_tablespace_size(text*) int8", |_, _| Ok(Value::Null)),
    ("pg_size_pretty(any) text", |_, args| Ok(args[0].as_int().map_or(Value::Null, |n| Value::text(size_pretty(n))))),
    ("to_regclass(text) regclass", |ctx, args| Ok(ctx.find_class(args[0].as_str())?.map_or(Value::Null, Value::Int))),
    ("to_regtype(text) regtype", |ctx, args| Ok(ctx.find_type(args[0].as_str())?.map_or(Value::Null, Value::Int))),
    ("to_regproc(text) regproc", |ctx, args| {
        Ok(ctx.lookup_value("pg_proc", "proname", &args[0], "oid").unwrap_or(Value::Null))
    }),
    ("to_regnamespace(text) regnamespace", |ctx, args| {
        Ok(ctx.lookup_value("pg_namespace", "nspname", &args[0], "oid").unwrap_or(Value::Null))
    }),
    ("to_regrole(text) regrole", |ctx, args| {
        Ok(ctx.lookup_value("pg_authid", "rolname", &args[0], "oid").unwrap_or(Value::Null))
    }),
    ("acldefault(\"char\", oid) text[]", |_, _| Ok(Value::Null)),
    ("pg_index_column_has_property(regclass, int4, text) bool", |_, args| {
        Ok(Value::Bool(args[2].as_str() == "orderable"))
    }),
    ("pg_stat_get_numscans(oid) int8", |_, _| Ok(Value::Int(0))),
    ("pg_stat_get_live_tuples(oid) int8", |_, _| Ok(Value::Int(0))),
    ("pg_stat_get_dead_tuples(oid) int8", |_, _| Ok(Value::Int(0))),
    ("pg_stat_get_tuples_inserted(oid) int8", |_, _| Ok(Value::Int(0))),
    ("pg_stat_get_tuples_returned(oid) int8", |_, _| Ok(Value::Int(0))),
];

fn visible(ctx: &mut Context, relation: &str, name: &str, namespace: &str, oid: &Value) -> Result<Value> {
    let Some(row) = ctx.lookup(relation, "oid", oid).into_iter().next() else { return Ok(Value::Null) };
    Ok(Value::Bool(ctx.is_visible(relation, name, namespace, &row)))
}

/// Objects whose names may be overloaded: in the path is visible enough.
fn in_path(ctx: &mut Context, relation: &str, namespace: &str, oid: &Value) -> Result<Value> {
    let Some(schema) = ctx.lookup_value(relation, "oid", oid, namespace) else { return Ok(Value::Null) };
    Ok(Value::Bool(ctx.search_path_oids().iter().any(|path| Some(*path) == schema.as_int())))
}

fn relation_name(ctx: &mut Context, oid: &Value, only_if_needed: bool) -> String {
    let regclass = engine::PgType::Regclass;
    let name = ctx.reg_text(&regclass, oid.as_int().unwrap_or(0)).unwrap_or_default();
    if only_if_needed || name.contains('.') {
        return name;
    }
    let schema = ctx.lookup_value("pg_class", "oid", oid, "relnamespace");
    let schema = schema.and_then(|schema| ctx.lookup_value("pg_namespace", "oid", &schema, "nspname"));
    schema.map_or(name.clone(), |schema| format!("{}.{name}", super::quote_ident(schema.as_str())))
}

fn index_definition(ctx: &mut Context, oid: &Value, column: i64, pretty: bool) -> Value {
    let Some(index) = ctx.lookup("pg_index", "indexrelid", oid).into_iter().next() else { return Value::Null };
    let table = index[column_of("pg_index", "indrelid")].clone();
    let attributes = ctx.lookup("pg_attribute", "attrelid", &table);
    let keys = index[column_of("pg_index", "indkey")].elements().to_vec();
    let options = index[column_of("pg_index", "indoption")].elements().to_vec();
    let (number, name) = (column_of("pg_attribute", "attnum"), column_of("pg_attribute", "attname"));
    let key_name = |key: &Value| {
        let found = attributes.iter().find(|attribute: &&Row| attribute[number] == *key);
        super::quote_ident(found.map_or("", |attribute| attribute[name].as_str()))
    };
    if column > 0 {
        return keys.get(column as usize - 1).map_or(Value::text(""), |key| Value::text(key_name(key)));
    }
    let order = |at: usize| match options.get(at).and_then(Value::as_int).unwrap_or(0) & 3 {
        3 => " DESC",
        1 => " DESC NULLS LAST",
        2 => " NULLS FIRST",
        _ => "",
    };
    let columns: Vec<String> = keys.iter().enumerate().map(|(at, key)| key_name(key) + order(at)).collect();
    let index_name = ctx.lookup_value("pg_class", "oid", oid, "relname").unwrap_or(Value::Null);
    let table = relation_name(ctx, &table, pretty);
    let name = super::quote_ident(index_name.as_str());
    let unique = if index[column_of("pg_index", "indisunique")].is_true() { "UNIQUE " } else { "" };
    Value::text(format!("CREATE {unique}INDEX {name} ON {table} USING btree ({})", columns.join(", ")))
}

/// `PRIMARY KEY (a, b)`.
fn constraint_definition(ctx: &mut Context, oid: &Value) -> Value {
    let Some(row) = ctx.lookup("pg_constraint", "oid", oid).into_iter().next() else { return Value::Null };
    let of = |name| row[column_of("pg_constraint", name)].clone();
    let kind = if of("contype").as_str() == "p" { "PRIMARY KEY" } else { "UNIQUE" };
    let index = of("conindid");
    let columns = (1..=of("conkey").elements().len() as i64).map(|at| index_definition(ctx, &index, at, false));
    let columns = columns.map(|column| column.as_str().to_owned()).collect::<Vec<_>>();
    Value::text(format!("{kind} ({})", columns.join(", ")))
}

fn listed(ctx: &Context, oid: &Value) -> Option<ListedFunction> {
    let position = oids::function_position(oid.as_int()?)?;
    ctx.catalog.functions().into_iter().nth(position)
}

fn function_arguments(ctx: &mut Context, oid: &Value, with_defaults: bool) -> Result<Value> {
    if let Some(function) = listed(ctx, oid) {
        return Ok(Value::text(function.argument_list(with_defaults)));
    }
    let Some(row) = ctx.lookup("pg_proc", "oid", oid).into_iter().next() else { return Ok(Value::Null) };
    let names = row[column_of("pg_proc", "proargnames")].elements().to_vec();
    let types = row[column_of("pg_proc", "proargtypes")].elements().to_vec();
    let text = types.iter().enumerate().map(|(at, ty)| {
        let ty = ctx.type_name(ty.as_int().unwrap_or(0), -1);
        match names.get(at).map(Value::as_str).filter(|name| !name.is_empty()) {
            Some(name) => format!("{} {}", super::quote_ident(name), ty.as_str()),
            None => ty.as_str().to_owned(),
        }
    });
    let text: Vec<String> = text.collect();
    Ok(Value::text(text.join(", ")))
}

fn description(ctx: &mut Context, relation: &str, oid: &Value, class: Option<String>, sub: i64) -> Result<Value> {
    let class = class.and_then(|class| super::super::schema::find(None, &class)).map(|def| def.oid as i64);
    let rows = ctx.lookup(relation, "objoid", oid);
    let found = rows
        .into_iter()
        .find(|row| row[2].as_int() == Some(sub) && class.is_none_or(|class| row[1].as_int() == Some(class)));
    Ok(found.map_or(Value::Null, |row| row[3].clone()))
}

fn size(ctx: &mut Context, oid: &Value, part: fn(Bytes) -> u64) -> Result<Value> {
    let Some(oid) = oid.as_int() else { return Ok(Value::Null) };
    for table in ctx.catalog.tables() {
        if table.id.0 as i64 == oid {
            return Ok(Value::Int(part(ctx.catalog.table_bytes(table.id)) as i64));
        }
        if let Some(chunk) = ctx.catalog.chunks(table.id).iter().find(|chunk| oids::chunk(chunk.id) as i64 == oid) {
            return Ok(Value::Int(part(ctx.catalog.chunk_bytes(chunk)) as i64));
        }
    }
    let known = !ctx.lookup("pg_class", "oid", &Value::Int(oid)).is_empty();
    Ok(if known { Value::Int(0) } else { Value::Null })
}

/// Halves round away from zero; a unit is used up to ten times the next.
pub(crate) fn size_pretty(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let (mut size, mut unit) = (bytes, 0);
    // One bit more than the unit is kept, for the rounding.
    let mut doubled = false;
    let limit = |doubled: bool| if doubled { 20 * 1024 - 1 } else { 10 * 1024 };
    while size.unsigned_abs() >= limit(doubled) && unit < UNITS.len() - 1 {
        size >>= if doubled { 10 } else { 9 };
        doubled = true;
        unit += 1;
    }
    if doubled {
        size = if size > 0 { (size + 1) / 2 } else { (size - 1) / 2 };
    }
    format!("{size} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::size_pretty;

    /// From PostgreSQL 15: `SELECT pg_size_pretty(…::bigint)`.
    #[test]
    fn sizes_print_as_postgres_prints_them() {
        let cases = [(0, "0 bytes"), (8192, "8192 bytes"), (10239, "10239 bytes"), (10240, "10 kB"), (16384, "16 kB")];
        for (bytes, text) in cases {
            assert_eq!(size_pretty(bytes), text);
        }
        assert_eq!(size_pretty(10 * 1024 * 1024 - 1), "10 MB");
        assert_eq!(size_pretty(3_145_728), "3072 kB");
        assert_eq!(size_pretty(1 << 40), "1024 GB");
    }
}
