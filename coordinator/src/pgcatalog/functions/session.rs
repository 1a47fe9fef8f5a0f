//! Who asks, from where, with which settings; the server's state.

use super::super::run::Context;
use super::super::value::Value;
use super::Eval;
use proto::{Error, Result, SqlState};

pub(super) const FUNCTIONS: &[(&str, Eval)] = &[
    ("version() text", |ctx, _| Ok(Value::text(format!("PostgreSQL {}", ctx.catalog.server_version())))),
    ("current_database() name", |ctx, _| Ok(Value::text(ctx.catalog.current_database()))),
    ("current_catalog() name", |ctx, _| Ok(Value::text(ctx.catalog.current_database()))),
    ("current_user() name", |ctx, _| Ok(Value::text(ctx.catalog.current_user()))),
    ("current_role() name", |ctx, _| Ok(Value::text(ctx.catalog.current_user()))),
    ("user() name", |ctx, _| Ok(Value::text(ctx.catalog.current_user()))),
    ("session_user() name", |ctx, _| Ok(Value::text(ctx.catalog.session_user()))),
    ("current_schema() name", |ctx, _| Ok(existing_path(ctx).into_iter().next().map_or(Value::Null, Value::text))),
    ("current_schemas(bool) name[]", |ctx, args| {
        let implicit = args[0].is_true().then(|| "pg_catalog".to_owned());
        let path = existing_path(ctx);
        let implicit = implicit.filter(|name| !path.contains(name));
        Ok(Value::texts(implicit.into_iter().chain(path)))
    }),
    ("current_setting(text, bool?) text", |ctx, args| {
        let name = args[0].as_str();
        match ctx.catalog.setting(&name.to_ascii_lowercase()) {
            Some(value) => Ok(Value::text(value)),
            None if args.get(1).is_some_and(Value::is_true) => Ok(Value::Null),
            None => {
                Err(Error::new(SqlState::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\"")))
            }
        }
    }),
    ("pg_backend_pid() int4", |ctx, _| Ok(Value::Int(ctx.catalog.backend_pid() as i64))),
    ("inet_server_addr() text", |_, _| Ok(Value::Null)),
    ("inet_server_port() int4", |ctx, _| {
        Ok(ctx.catalog.setting("port").and_then(|port| port.parse().ok()).map_or(Value::Null, Value::Int))
    }),
    ("inet_client_addr() text", |ctx, _| {
        let pid = ctx.catalog.backend_pid();
        let own = ctx.catalog.activity().into_iter().find(|backend| backend.pid == pid);
        Ok(Value::opt_text(own.and_then(|backend| backend.client_addr)))
    }),
    ("inet_client_port() int4", |ctx, _| {
        let pid = ctx.catalog.backend_pid();
        let own = ctx.catalog.activity().into_iter().find(|backend| backend.pid == pid);
        Ok(own.and_then(|backend| backend.client_port).map_or(Value::Null, |port| Value::Int(port as i64)))
    }),
    ("pg_is_in_recovery() bool", |ctx, _| Ok(Value::Bool(ctx.catalog.in_recovery()))),
    ("pg_is_wal_replay_paused() bool", |_, _| Ok(Value::Bool(false))),
    ("pg_postmaster_start_time() timestamptz", |ctx, _| Ok(Value::Timestamp(ctx.catalog.started_us()))),
    ("pg_conf_load_time() timestamptz", |ctx, _| Ok(Value::Timestamp(ctx.catalog.started_us()))),
    // Transactions have no xid here; a constant keeps tools going that only print it.
    ("txid_current() int8", |_, _| Ok(Value::Int(1))),
    ("txid_current_if_assigned() int8", |_, _| Ok(Value::Null)),
    ("pg_my_temp_schema() oid", |_, _| Ok(Value::Int(0))),
    ("pg_is_other_temp_schema(oid) bool", |_, _| Ok(Value::Bool(false))),
    ("pg_client_encoding() name", |_, _| Ok(Value::text("UTF8"))),
    ("pg_encoding_to_char(int4) name", |_, args| {
        Ok(Value::text(match args[0].as_int() {
            Some(6) => "UTF8",
            Some(0) => "SQL_ASCII",
            _ => "",
        }))
    }),
    ("pg_char_to_encoding(name) int4", |_, args| {
        Ok(Value::Int(match args[0].as_str().to_ascii_uppercase().replace('-', "").as_str() {
            "UTF8" | "UNICODE" => 6,
            "SQL_ASCII" => 0,
            _ => -1,
        }))
    }),
    // One coordinator, no locks shared between sessions yet: always granted.
    ("pg_advisory_lock(int8, int4?) void", |_, _| Ok(Value::text(""))),
    ("pg_advisory_xact_lock(int8, int4?) void", |_, _| Ok(Value::text(""))),
    ("pg_advisory_lock_shared(int8, int4?) void", |_, _| Ok(Value::text(""))),
    ("pg_advisory_xact_lock_shared(int8, int4?) void", |_, _| Ok(Value::text(""))),
    ("pg_try_advisory_lock(int8, int4?) bool", |_, _| Ok(Value::Bool(true))),
    ("pg_try_advisory_xact_lock(int8, int4?) bool", |_, _| Ok(Value::Bool(true))),
    ("pg_advisory_unlock(int8, int4?) bool", |_, _| Ok(Value::Bool(true))),
    ("pg_advisory_unlock_all() void", |_, _| Ok(Value::text(""))),
    ("pg_database_size(text*) int8", |ctx, args| {
        let name = database_name(ctx, &args[0])?;
        Ok(Value::Int(ctx.catalog.database_bytes(&name) as i64))
    }),
    ("pg_has_role(text*, text*, text?) bool", |ctx, args| {
        let (member, role) =
            if args.len() == 3 { (args[0].as_str(), args[1].as_str()) } else { ("", args[0].as_str()) };
        let member = if member.is_empty() { ctx.catalog.current_user() } else { role_name(ctx, member) };
        let role = role_name(ctx, role);
        Ok(Value::Bool(is_member(ctx, &member, &role)))
    }),
    ("has_table_privilege(text*, text*, text?) bool", |ctx, args| privilege(ctx, "table", args)),
    ("has_any_column_privilege(text*, text*, text?) bool", |ctx, args| privilege(ctx, "table", args)),
    ("has_column_privilege(text*, text*, text*, text?) bool", |ctx, args| {
        // The column is the last but one; privileges are on whole tables here.
        let mut whole = args.to_vec();
        whole.remove(args.len() - 2);
        privilege(ctx, "table", &whole)
    }),
    ("has_schema_privilege(text*, text*, text?) bool", |ctx, args| privilege(ctx, "schema", args)),
    ("has_database_privilege(text*, text*, text?) bool", |ctx, args| privilege(ctx, "database", args)),
    ("has_function_privilege(text*, text*, text?) bool", |ctx, args| privilege(ctx, "function", args)),
    ("has_sequence_privilege(text*, text*, text?) bool", |ctx, args| privilege(ctx, "sequence", args)),
    ("has_server_privilege(text*, text*, text?) bool", |ctx, args| privilege(ctx, "server", args)),
    ("has_foreign_data_wrapper_privilege(text*, text*, text?) bool", |ctx, args| privilege(ctx, "wrapper", args)),
    ("has_tablespace_privilege(text*, text*, text?) bool", |ctx, args| privilege(ctx, "tablespace", args)),
    ("has_type_privilege(text*, text*, text?) bool", |ctx, args| privilege(ctx, "type", args)),
    ("has_language_privilege(text*, text*, text?) bool", |ctx, args| privilege(ctx, "language", args)),
    ("has_parameter_privilege(text*, text*, text?) bool", |ctx, args| privilege(ctx, "parameter", args)),
    ("row_security_active(text*) bool", |_, _| Ok(Value::Bool(false))),
];

/// The search path's schemas that exist.
fn existing_path(ctx: &mut Context) -> Vec<String> {
    let path = ctx.catalog.search_path();
    path.into_iter().filter(|name| !ctx.lookup("pg_namespace", "nspname", &Value::text(name)).is_empty()).collect()
}

fn database_name(ctx: &mut Context, given: &Value) -> Result<String> {
    let by_oid = given.as_str().parse::<i64>().ok();
    let (column, key) = by_oid.map_or(("datname", given.clone()), |oid| ("oid", Value::Int(oid)));
    let name = ctx.lookup_value("pg_database", column, &key, "datname");
    name.map(|name| name.as_str().to_owned()).ok_or_else(|| {
        Error::new(SqlState::INVALID_CATALOG_NAME, format!("database \"{}\" does not exist", given.as_str()))
    })
}

/// Roles are given by name or by OID.
fn role_name(ctx: &mut Context, given: &str) -> String {
    let by_oid =
        given.parse::<i64>().ok().and_then(|oid| ctx.lookup_value("pg_authid", "oid", &Value::Int(oid), "rolname"));
    by_oid.map_or_else(|| given.to_owned(), |name| name.as_str().to_owned())
}

fn is_member(ctx: &Context, member: &str, role: &str) -> bool {
    let roles = ctx.catalog.roles();
    let mut waiting = vec![member.to_owned()];
    let mut seen = Vec::new();
    while let Some(name) = waiting.pop() {
        if name == role || roles.iter().any(|candidate| candidate.name == name && candidate.superuser) {
            return true;
        }
        if seen.contains(&name) {
            continue;
        }
        if let Some(found) = roles.iter().find(|candidate| candidate.name == name) {
            waiting.extend(found.member_of.iter().cloned());
        }
        seen.push(name);
    }
    false
}

/// `([role,] object, privilege)`; an object given by OID is named before it is asked for.
fn privilege(ctx: &mut Context, object: &str, args: &[Value]) -> Result<Value> {
    let (role, name, wanted) = match args {
        [name, wanted] => (ctx.catalog.current_user(), name, wanted),
        [role, name, wanted] => (role_name(ctx, role.as_str()), name, wanted),
        _ => return Ok(Value::Null),
    };
    let catalog = match object {
        "table" => Some(("pg_class", "relname")),
        "schema" => Some(("pg_namespace", "nspname")),
        "database" => Some(("pg_database", "datname")),
        "server" => Some(("pg_foreign_server", "srvname")),
        _ => None,
    };
    let name = match (catalog, name.as_str().parse::<i64>()) {
        (Some((relation, column)), Ok(oid)) => match ctx.lookup_value(relation, "oid", &Value::Int(oid), column) {
            Some(name) => name.as_str().to_owned(),
            None => return Ok(Value::Null),
        },
        _ => name.as_str().to_owned(),
    };
    let mut granted = wanted.as_str().split(',').map(str::trim);
    Ok(Value::Bool(granted.any(|one| ctx.catalog.has_privilege(&role, object, &name, one))))
}
