//! PRIMARY KEY, UNIQUE and unique indexes out of `CREATE TABLE`, `ALTER TABLE` and `CREATE UNIQUE INDEX`: which columns,
//! and the name PostgreSQL would give where the statement gives none. Keys are checked where rows are staged; there is
//! no index to build.

use super::columns::{checked_name, unserved};
use crate::catalog::{CatalogState, errors};
use crate::session::Session;
use crate::session::parse::fold;
use datafusion::sql::sqlparser::ast::{
    ColumnDef as ColumnAst, ColumnOption, Expr, IndexColumn, NullsDistinctOption, TableConstraint,
};
use engine::{ColumnDef, KeyDef, KeyKind, PgType, TableDef};
use proto::{ColumnId, Error, Result, SqlState};

/// PostgreSQL's longest name.
const NAME_BYTES_MAX: usize = 63;
/// PostgreSQL's limit on the columns of an index.
const COLUMNS_MAX: usize = 32;

/// A key as a statement asks for it.
pub struct Wanted {
    pub name: Option<String>,
    pub kind: KeyKind,
    pub columns: Vec<String>,
}

/// The keys among a column's own constraints.
pub fn of_column(ast: &ColumnAst) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    for option in &ast.options {
        let (kind, characteristics) = match &option.option {
            ColumnOption::PrimaryKey(key) => (KeyKind::Primary, &key.characteristics),
            ColumnOption::Unique(key) => {
                refuse_nulls(&key.nulls_distinct)?;
                (KeyKind::Unique, &key.characteristics)
            }
            _ => continue,
        };
        refuse_deferrable(characteristics.is_some())?;
        wanted.push(Wanted { name: option.name.as_ref().map(fold), kind, columns: vec![fold(&ast.name)] });
    }
    Ok(wanted)
}

/// # Errors
/// 0A000 for every other constraint.
pub fn of_constraint(constraint: &TableConstraint) -> Result<Wanted> {
    let (name, kind, columns, characteristics) = match constraint {
        TableConstraint::PrimaryKey(key) => (&key.name, KeyKind::Primary, &key.columns, &key.characteristics),
        TableConstraint::Unique(key) => {
            refuse_nulls(&key.nulls_distinct)?;
            (&key.name, KeyKind::Unique, &key.columns, &key.characteristics)
        }
        TableConstraint::ForeignKey(_) => return Err(unserved("a FOREIGN KEY constraint")),
        TableConstraint::Check(_) => return Err(unserved("a CHECK constraint")),
        _ => return Err(unserved("this table constraint")),
    };
    refuse_deferrable(characteristics.is_some())?;
    Ok(Wanted { name: name.as_ref().map(fold), kind, columns: column_names(columns)? })
}

fn refuse_nulls(nulls: &NullsDistinctOption) -> Result<()> {
    match nulls {
        NullsDistinctOption::NotDistinct => Err(unserved("UNIQUE NULLS NOT DISTINCT")),
        NullsDistinctOption::Distinct | NullsDistinctOption::None => Ok(()),
    }
}

fn refuse_deferrable(given: bool) -> Result<()> {
    if given { Err(unserved("a DEFERRABLE key")) } else { Ok(()) }
}

/// # Errors
/// 0A000 for an expression.
pub fn column_names(columns: &[IndexColumn]) -> Result<Vec<String>> {
    let name = |column: &IndexColumn| match &column.column.expr {
        Expr::Identifier(ident) => Ok(fold(ident)),
        _ => Err(unserved("a unique key over an expression")),
    };
    columns.iter().map(name).collect()
}

/// The keys of a new table; columns of its primary key become NOT NULL.
pub fn of_table(session: &Session, catalog: &CatalogState, table: &mut TableDef, wanted: Vec<Wanted>) -> Result<()> {
    // Names are given to the primary key first.
    let (primary, others): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|key| key.kind == KeyKind::Primary);
    if primary.len() > 1 {
        return Err(errors::several_primary_keys(&table.name));
    }
    for key in primary.into_iter().chain(others) {
        let key = resolved(session, catalog, table, key)?;
        if key.kind == KeyKind::Primary {
            let of_key = table.columns.iter_mut().filter(|column| key.columns.contains(&column.id));
            of_key.for_each(|column| column.nullable = false);
        }
        table.keys.push(key);
    }
    Ok(())
}

/// # Errors
/// A column that is not there or named twice, a type without an order, a name that is taken.
pub fn resolved(session: &Session, catalog: &CatalogState, table: &TableDef, wanted: Wanted) -> Result<KeyDef> {
    let columns = columns(table, &wanted)?;
    let taken = |name: &str| {
        name == table.name
            || table.key(name).is_some()
            || catalog.relation(&table.database, &table.schema, name).is_some()
            || catalog.has_key(&table.database, &table.schema, name)
    };
    let name = match wanted.name {
        Some(name) if taken(&name) => {
            return Err(Error::new(SqlState::DUPLICATE_TABLE, format!("relation \"{name}\" already exists")));
        }
        Some(name) => checked_name(name)?,
        None => free_name(&table.name, &wanted.columns, wanted.kind, taken),
    };
    Ok(KeyDef { oid: session.new_oid(), name, kind: wanted.kind, columns })
}

fn columns(table: &TableDef, wanted: &Wanted) -> Result<Vec<ColumnId>> {
    let mut columns: Vec<ColumnId> = Vec::with_capacity(wanted.columns.len());
    for name in &wanted.columns {
        let column = table.column(name).ok_or_else(|| {
            let text = match wanted.kind {
                KeyKind::Index => format!("column \"{name}\" does not exist"),
                _ => format!("column \"{name}\" named in key does not exist"),
            };
            Error::new(SqlState::UNDEFINED_COLUMN, text)
        })?;
        check_type(column)?;
        if columns.contains(&column.id) && wanted.kind != KeyKind::Index {
            let of = if wanted.kind == KeyKind::Primary { "primary key" } else { "unique" };
            let text = format!("column \"{name}\" appears twice in {of} constraint");
            return Err(Error::new(SqlState::DUPLICATE_COLUMN, text));
        }
        if !columns.contains(&column.id) {
            columns.push(column.id);
        }
    }
    match columns.len() > COLUMNS_MAX {
        true => {
            Err(Error::new(SqlState::new("54011"), format!("cannot use more than {COLUMNS_MAX} columns in an index")))
        }
        false => Ok(columns),
    }
}

fn check_type(column: &ColumnDef) -> Result<()> {
    match column.ty {
        PgType::Json => Err(Error::new(
            SqlState::UNDEFINED_OBJECT,
            format!("data type {} has no default operator class for access method \"btree\"", column.ty),
        )
        .hint(
            "You must specify an operator class for the index or define a default operator class for the data type.",
        )),
        PgType::Jsonb | PgType::Array(_) | PgType::Interval => Err(unserved(&format!("a key over type {}", column.ty))),
        _ => Ok(()),
    }
}

/// `t_pkey`, `t_a_b_key`, `t_a_b_idx`, with a number behind where that is taken.
fn free_name(table: &str, columns: &[String], kind: KeyKind, taken: impl Fn(&str) -> bool) -> String {
    let (middle, label) = match kind {
        KeyKind::Primary => (String::new(), "pkey"),
        KeyKind::Unique => (columns.join("_"), "key"),
        KeyKind::Index => (columns.join("_"), "idx"),
    };
    let numbers = std::iter::once(String::new()).chain((1..).map(|n: u32| n.to_string()));
    let mut names = numbers.map(|number| shortened(table, &middle, &format!("{label}{number}")));
    names.find(|name| !taken(name)).expect("numbers do not end")
}

/// Cuts the longer of both names until all of it fits, as PostgreSQL does.
fn shortened(first: &str, second: &str, label: &str) -> String {
    let (mut first, mut second) = (first.to_owned(), second.to_owned());
    let glue = if second.is_empty() { 1 } else { 2 };
    while first.len() + second.len() + label.len() + glue > NAME_BYTES_MAX {
        let longer = if first.len() > second.len() { &mut first } else { &mut second };
        longer.pop();
    }
    match second.is_empty() {
        true => format!("{first}_{label}"),
        false => format!("{first}_{second}_{label}"),
    }
}

/// The key a statement names, among those of all tables of the schemas it may mean.
pub fn find<'a>(
    catalog: &'a CatalogState,
    database: &str,
    schemas: &[String],
    name: &str,
) -> Option<(&'a TableDef, &'a KeyDef)> {
    let of_schema = |schema: &String| {
        let mut tables = catalog.tables().filter(|table| table.database == database && table.schema == *schema);
        tables.find_map(|table| Some((table.as_ref(), table.key(name)?)))
    };
    schemas.iter().find_map(of_schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As PostgreSQL 15 names them.
    #[test]
    fn keys_without_a_name_get_postgres_name() {
        let columns = ["time".to_owned(), "device".to_owned()];
        let free = |_: &str| false;
        assert_eq!(free_name("t", &columns, KeyKind::Primary, free), "t_pkey");
        assert_eq!(free_name("t", &columns, KeyKind::Unique, free), "t_time_device_key");
        assert_eq!(free_name("t", &columns, KeyKind::Index, free), "t_time_device_idx");
        let taken = |name: &str| name == "t_pkey" || name == "t_pkey1";
        assert_eq!(free_name("t", &columns, KeyKind::Primary, taken), "t_pkey2");
        let long = "a".repeat(63);
        assert_eq!(free_name(&long, &columns, KeyKind::Primary, free), format!("{}_pkey", "a".repeat(58)));
        let name = free_name(&long, &["b".repeat(63)], KeyKind::Unique, free);
        assert_eq!(name, format!("{}_{}_key", "a".repeat(29), "b".repeat(29)));
    }
}
