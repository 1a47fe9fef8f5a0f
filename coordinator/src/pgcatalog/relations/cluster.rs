//! What belongs to the cluster rather than to one table: roles, databases, servers, extensions, settings, backends.

use super::model::Names;
use super::objects::int;
use super::{TIMESCALEDB_VERSION, oids};
use crate::pgcatalog::schema::Filler;
use crate::pgcatalog::system::SystemCatalog;
use crate::pgcatalog::value::{Row, Value};

pub(super) fn rows(name: &str, fill: &Filler, catalog: &dyn SystemCatalog) -> Option<Vec<Row>> {
    Some(match name {
        "pg_authid" | "pg_roles" => roles(name, fill, catalog),
        "pg_user" | "pg_shadow" => users(fill, catalog),
        "pg_auth_members" => members(fill, catalog),
        "pg_database" => databases(fill, catalog),
        "pg_extension" => extensions(fill, catalog),
        "pg_foreign_server" => servers(fill, catalog),
        "pg_foreign_data_wrapper" if catalog.timescaledb() || !catalog.data_nodes().is_empty() => vec![fill.row([
            ("oid", int(oids::TIMESCALEDB_FDW)),
            ("fdwname", Value::text("timescaledb_fdw")),
            ("fdwowner", int(10)),
        ])],
        "pg_settings" => settings(fill, catalog),
        "pg_stat_activity" => activity(fill, catalog),
        "pg_stat_database" => databases_statistics(fill, catalog),
        "pg_timezone_names" => crate::pgcatalog::functions::sets::time_zones(catalog.now_us()),
        "pg_available_extensions" => available_extensions(fill, catalog),
        _ => return None,
    })
}

fn roles(relation: &str, fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let roles = catalog.roles().into_iter().map(|role| {
        let mut row = fill.row([
            ("oid", int(role.oid)),
            ("rolname", Value::text(role.name)),
            ("rolsuper", Value::Bool(role.superuser)),
            ("rolinherit", Value::Bool(role.inherit)),
            ("rolcreaterole", Value::Bool(role.create_role)),
            ("rolcreatedb", Value::Bool(role.create_db)),
            ("rolcanlogin", Value::Bool(role.login)),
            ("rolconnlimit", int(role.connection_limit)),
            ("rolvaliduntil", role.valid_until_us.map_or(Value::Null, Value::Timestamp)),
        ]);
        // The first role owns what a fresh cluster has, and may do everything.
        let first = Value::Bool(role.oid == 10);
        fill.set(&mut row, "rolreplication", first.clone());
        fill.set(&mut row, "rolbypassrls", first);
        // Verifiers are never shown, not even to superusers.
        let password = if relation == "pg_roles" { Value::text("********") } else { Value::Null };
        fill.set(&mut row, "rolpassword", password);
        row
    });
    let owner = fill.row([
        ("oid", int(6171)),
        ("rolname", Value::text("pg_database_owner")),
        ("rolinherit", Value::Bool(true)),
        ("rolconnlimit", int(-1)),
    ]);
    roles.chain([owner]).collect()
}

fn users(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let users = catalog.roles().into_iter().filter(|role| role.login).map(|role| {
        fill.row([
            ("usename", Value::text(role.name)),
            ("usesysid", int(role.oid)),
            ("usecreatedb", Value::Bool(role.create_db)),
            ("usesuper", Value::Bool(role.superuser)),
            ("userepl", Value::Bool(role.oid == 10)),
            ("usebypassrls", Value::Bool(role.oid == 10)),
            ("passwd", Value::text("********")),
            ("valuntil", role.valid_until_us.map_or(Value::Null, Value::Timestamp)),
        ])
    });
    users.collect()
}

fn members(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let oids = Names::roles(catalog);
    let mut rows = Vec::new();
    for role in catalog.roles() {
        rows.extend(role.member_of.iter().map(|group| {
            fill.row([("roleid", Value::Int(oids.oid(group))), ("member", int(role.oid)), ("grantor", int(10))])
        }));
    }
    rows
}

fn databases(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let roles = Names::roles(catalog);
    let rows = catalog.databases().into_iter().map(|database| {
        let template = matches!(database.name.as_str(), "template0" | "template1");
        let acl = template.then(|| {
            let owner = &database.owner;
            Value::texts([format!("=c/{owner}"), format!("{owner}=CTc/{owner}")])
        });
        fill.row([
            ("oid", int(database.oid)),
            ("datdba", Value::Int(roles.oid(&database.owner))),
            ("encoding", int(6)),
            ("datlocprovider", Value::text("c")),
            ("datistemplate", Value::Bool(template)),
            ("datallowconn", Value::Bool(database.name != "template0")),
            ("datconnlimit", int(-1)),
            ("datfrozenxid", int(1)),
            ("datminmxid", int(1)),
            ("dattablespace", int(oids::DEFAULT_TABLESPACE)),
            ("datcollate", Value::text("C.UTF-8")),
            ("datctype", Value::text("C.UTF-8")),
            ("datacl", acl.unwrap_or(Value::Null)),
            ("datname", Value::text(database.name)),
        ])
    });
    rows.collect()
}

fn databases_statistics(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let backends = catalog.activity();
    let rows = catalog.databases().into_iter().map(|database| {
        let count = backends.iter().filter(|backend| backend.database == database.name).count();
        fill.row([
            ("datid", int(database.oid)),
            ("numbackends", Value::Int(count as i64)),
            ("datname", Value::text(database.name)),
        ])
    });
    rows.collect()
}

fn extensions(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let schemas = Names::schemas(catalog);
    let extension = |oid: u32, name: &str, schema: &str, version: &str| {
        fill.row([
            ("oid", int(oid)),
            ("extname", Value::text(name)),
            ("extowner", int(10)),
            ("extnamespace", Value::Int(schemas.oid(schema))),
            ("extrelocatable", Value::Bool(false)),
            ("extversion", Value::text(version)),
        ])
    };
    let plpgsql = extension(oids::PLPGSQL_EXTENSION, "plpgsql", "pg_catalog", "1.0");
    let timescaledb = extension(oids::TIMESCALEDB_EXTENSION, "timescaledb", "public", TIMESCALEDB_VERSION);
    [plpgsql].into_iter().chain(catalog.timescaledb().then_some(timescaledb)).collect()
}

fn available_extensions(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let installed = |name: &str| name == "plpgsql" || catalog.timescaledb();
    let extension = |name: &str, version: &str, comment: &str| {
        let own = if installed(name) { Value::text(version) } else { Value::Null };
        fill.row([
            ("name", Value::text(name)),
            ("default_version", Value::text(version)),
            ("installed_version", own),
            ("comment", Value::text(comment)),
        ])
    };
    vec![
        extension("plpgsql", "1.0", "PL/pgSQL procedural language"),
        extension("timescaledb", TIMESCALEDB_VERSION, super::TIMESCALEDB_COMMENT),
    ]
}

fn servers(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let roles = Names::roles(catalog);
    let rows = catalog.data_nodes().into_iter().map(|server| {
        fill.row([
            ("oid", int(server.oid)),
            ("srvowner", Value::Int(roles.oid(&server.owner))),
            ("srvfdw", int(oids::TIMESCALEDB_FDW)),
            ("srvoptions", super::timescale::options(&server)),
            ("srvacl", server.acl.as_ref().map_or(Value::Null, Value::texts)),
            ("srvname", Value::text(server.name)),
        ])
    });
    rows.collect()
}

fn settings(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let mut settings = catalog.settings();
    settings.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = settings.into_iter().map(|setting| {
        let source = if setting.value == setting.default { "default" } else { "session" };
        fill.row([
            ("name", Value::text(&setting.name)),
            ("setting", Value::text(setting.value)),
            ("category", Value::text("Preset Options")),
            ("short_desc", Value::text("")),
            ("context", Value::text(setting.context)),
            ("vartype", Value::text(setting.vartype)),
            ("source", Value::text(source)),
            ("boot_val", Value::text(&setting.default)),
            ("reset_val", Value::text(setting.default)),
            ("pending_restart", Value::Bool(false)),
        ])
    });
    rows.collect()
}

fn activity(fill: &Filler, catalog: &dyn SystemCatalog) -> Vec<Row> {
    let (databases, roles) = (catalog.databases(), Names::roles(catalog));
    let rows = catalog.activity().into_iter().map(|backend| {
        let database = databases.iter().find(|database| database.name == backend.database);
        let idle = backend.state.starts_with("idle");
        fill.row([
            ("datid", database.map_or(Value::Null, |database| int(database.oid))),
            ("datname", Value::text(backend.database)),
            ("pid", int(backend.pid)),
            ("usesysid", Value::Int(roles.oid(&backend.user))),
            ("usename", Value::text(backend.user)),
            ("application_name", Value::text(backend.application)),
            ("client_addr", Value::opt_text(backend.client_addr)),
            ("client_port", backend.client_port.map_or(Value::Null, |port| Value::Int(port as i64))),
            ("backend_start", Value::Timestamp(backend.backend_start_us)),
            ("query_start", backend.query_start_us.map_or(Value::Null, Value::Timestamp)),
            ("state_change", backend.query_start_us.map_or(Value::Null, Value::Timestamp)),
            ("wait_event_type", if idle { Value::text("Client") } else { Value::Null }),
            ("wait_event", if idle { Value::text("ClientRead") } else { Value::Null }),
            ("state", Value::text(backend.state)),
            ("query", Value::text(backend.query)),
            ("backend_type", Value::text("client backend")),
        ])
    });
    rows.collect()
}
