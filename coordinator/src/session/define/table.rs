//! CREATE, ALTER and TRUNCATE TABLE.

use super::columns::{checked_name, column, column_type, unserved};
use super::{keys, no_relation, object_name, skip_or};
use crate::catalog::{CatalogChange, CatalogState, ColumnAlteration, CommentTarget, Relation, errors};
use crate::pg::backend::{Notice, Outcome};
use crate::session::Session;
use crate::session::parse::{TableOption, fold};
use crate::session::query::rows_of;
use crate::session::write::Shape;
use crate::timescale::CompressionOptions;
use datafusion::sql::sqlparser::ast::{
    AlterColumnOperation, AlterTable, AlterTableOperation, CommentObject, CreateTable, DropBehavior, Expr, ObjectName,
    Owner, RenameTableNameKind, Statement, Truncate, Value as Literal,
};
use engine::types::TimeContext;
use engine::{ColumnDef, KeyKind, PgType, TableDef};
use futures::StreamExt;
use proto::{ColumnId, Error, Result, SqlState, TableId};
use std::sync::Arc;

/// PostgreSQL's own limit.
const COLUMNS_COUNT_MAX: usize = 1600;

pub async fn create(session: &mut Session, create: &CreateTable) -> Result<Outcome> {
    session.check_writable("CREATE TABLE")?;
    refuse_unserved(create)?;
    let (schema, name) = object_name(&create.name);
    let schema = session.target_schema(schema.as_deref()).await?;
    let name = checked_name(name)?;
    let catalog = session.catalog().await;
    if create.if_not_exists && catalog.relation(&session.database, &schema, &name).is_some() {
        session.notice(Notice::notice(format!("relation \"{name}\" already exists, skipping")));
        return Ok(Outcome::Done { tag: "CREATE TABLE".to_owned() });
    }
    let mut filling = None;
    let columns = match &create.query {
        None => create.columns.iter().enumerate().map(|(n, ast)| column(ast, id_at(n))).collect::<Result<Vec<_>>>()?,
        Some(query) => {
            let (output, stream) = rows_of(session, &Statement::Query(query.clone())).await?;
            filling = Some(stream);
            let plain = |(n, column): (usize, &crate::pg::backend::OutputColumn)| {
                new_column(id_at(n), &column.name, &column.ty)
            };
            output.iter().enumerate().map(plain).collect()
        }
    };
    check_columns(&columns)?;
    let mut wanted = Vec::new();
    for ast in &create.columns {
        wanted.extend(keys::of_column(ast)?);
    }
    for constraint in &create.constraints {
        wanted.push(keys::of_constraint(constraint)?);
    }
    let mut table = TableDef {
        id: TableId(session.new_oid()),
        database: session.database.clone(),
        schema,
        name,
        owner: session.current_user().to_owned(),
        next_column: id_at(columns.len()),
        columns,
        hypertable: None,
        keys: Vec::new(),
        comment: None,
    };
    keys::of_table(session, &catalog, &mut table, wanted)?;
    session.change(CatalogChange::CreateTable(table.clone())).await?;
    let Some(mut stream) = filling else { return Ok(Outcome::Done { tag: "CREATE TABLE".to_owned() }) };
    let shape = Shape::new(&table, TimeContext::of_session(&session.settings())?);
    let transaction = session.transaction();
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += transaction.lock().await.write(&table, shape.fit(&batch?)?).await?;
    }
    Ok(Outcome::Done { tag: format!("SELECT {rows}") })
}

fn id_at(position: usize) -> ColumnId {
    ColumnId(position as u32 + 1)
}

fn new_column(id: ColumnId, name: &str, ty: &PgType) -> ColumnDef {
    let name = name.to_owned();
    ColumnDef { id, name, ty: ty.clone(), nullable: true, default: None, missing: None, comment: None }
}

fn refuse_unserved(create: &CreateTable) -> Result<()> {
    let unserved_parts = [
        (create.temporary, "a temporary table"),
        (create.external || create.location.is_some(), "an external table"),
        (create.like.is_some(), "CREATE TABLE … LIKE"),
        (create.inherits.is_some(), "INHERITS"),
        (create.partition_by.is_some() || create.partition_of.is_some(), "declarative partitioning"),
    ];
    match unserved_parts.iter().find(|(given, _)| *given) {
        Some((_, what)) => Err(unserved(what)),
        None => Ok(()),
    }
}

fn check_columns(columns: &[ColumnDef]) -> Result<()> {
    if columns.len() > COLUMNS_COUNT_MAX {
        return Err(Error::new(SqlState::new("54011"), format!("tables can have at most {COLUMNS_COUNT_MAX} columns")));
    }
    for (n, column) in columns.iter().enumerate() {
        if columns[..n].iter().any(|other| other.name == column.name) {
            let message = format!("column \"{}\" specified more than once", column.name);
            return Err(Error::new(SqlState::DUPLICATE_COLUMN, message));
        }
    }
    Ok(())
}

/// The table, which the session's role owns. `None` when it is missing and may be.
pub async fn owned(
    session: &mut Session,
    name: &(Option<String>, String),
    if_exists: bool,
) -> Result<Option<Arc<TableDef>>> {
    let catalog = session.catalog().await;
    match session.find(&catalog, name) {
        Some(Relation::Table(table)) => {
            let table = table.clone();
            session.check_owner(&table).await?;
            Ok(Some(table))
        }
        Some(Relation::View(_)) => {
            Err(Error::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a table", name.1)))
        }
        None => skip_or(session, if_exists, no_relation(name)).map(|()| None),
    }
}

pub async fn alter(session: &mut Session, alter: &AlterTable) -> Result<&'static str> {
    session.check_writable("ALTER TABLE")?;
    let name = object_name(&alter.name);
    for operation in &alter.operations {
        // Looked up each time: the operation before may have changed it.
        let Some(table) = owned(session, &name, alter.if_exists).await? else { return Ok("ALTER TABLE") };
        let catalog = session.catalog().await;
        if let Some(change) = alteration(session, &catalog, &table, operation)? {
            for change in change {
                session.change(change).await?;
            }
        }
        if let AlterTableOperation::DropColumn { column_names, drop_behavior, .. } = operation {
            let names = column_names.iter().map(fold).collect::<Vec<_>>().join(", ");
            let cascade = *drop_behavior == Some(DropBehavior::Cascade);
            super::view::check_readers(session, &table, &names, cascade).await?;
        }
    }
    Ok("ALTER TABLE")
}

/// `ALTER TABLE … SET (…)`: TimescaleDB's compression options, and no others.
pub async fn set_options(
    session: &mut Session,
    name: &(Option<String>, String),
    if_exists: bool,
    options: &[TableOption],
) -> Result<&'static str> {
    session.check_writable("ALTER TABLE")?;
    let Some(table) = owned(session, name, if_exists).await? else { return Ok("ALTER TABLE") };
    let Some(options) = CompressionOptions::parse(&table, options)? else {
        let names = options.iter().map(|option| option.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(unserved(&format!("ALTER TABLE … SET ({names})")));
    };
    let compression = options.settle(&table)?;
    session.change(CatalogChange::SetCompression { table: table.id, compression }).await?;
    Ok("ALTER TABLE")
}

/// `None`: nothing to do, after a notice.
fn alteration(
    session: &mut Session,
    catalog: &CatalogState,
    table: &TableDef,
    operation: &AlterTableOperation,
) -> Result<Option<Vec<CatalogChange>>> {
    let id = table.id;
    let one = |change| Ok(Some(vec![change]));
    match operation {
        AlterTableOperation::AddColumn { column_def, if_not_exists, .. } => {
            let mut column = column(column_def, table.next_column)?;
            if *if_not_exists && table.column(&column.name).is_some() {
                let message =
                    format!("column \"{}\" of relation \"{}\" already exists, skipping", column.name, table.name);
                session.notice(Notice::notice(message));
                return Ok(None);
            }
            column.missing = column.default.as_deref().map(|text| constant_default(&column, text)).transpose()?;
            let mut with_column = table.clone();
            with_column.columns.push(column.clone());
            let mut changes = vec![CatalogChange::AddColumn { table: id, column }];
            for wanted in keys::of_column(column_def)? {
                let key = keys::resolved(session, catalog, &with_column, wanted)?;
                changes.push(CatalogChange::AddKey { table: id, key });
            }
            Ok(Some(changes))
        }
        AlterTableOperation::DropColumn { column_names, if_exists, .. } => {
            let mut changes = Vec::new();
            for name in column_names.iter().map(fold) {
                match table.column(&name) {
                    Some(column) => changes.push(CatalogChange::DropColumn { table: id, column: column.id }),
                    None => skip_or(session, *if_exists, no_column(table, &name))?,
                }
            }
            Ok(Some(changes))
        }
        AlterTableOperation::RenameColumn { old_column_name, new_column_name } => {
            let old = fold(old_column_name);
            // RENAME alone does not name the relation in this error.
            let missing = || Error::new(SqlState::UNDEFINED_COLUMN, format!("column \"{old}\" does not exist"));
            let column = table.column(&old).ok_or_else(missing)?.id;
            let name = checked_name(fold(new_column_name))?;
            one(CatalogChange::RenameColumn { table: id, column, name })
        }
        AlterTableOperation::RenameTable { table_name } => {
            let (RenameTableNameKind::To(name) | RenameTableNameKind::As(name)) = table_name;
            one(CatalogChange::RenameRelation { relation: id, name: checked_name(object_name(name).1)? })
        }
        AlterTableOperation::AlterColumn { column_name, op } => {
            let column = column_of(table, &fold(column_name))?;
            let in_primary_key = table.primary_key().is_some_and(|key| key.columns.contains(&column.id));
            if in_primary_key && matches!(op, AlterColumnOperation::DropNotNull) {
                let text = format!("column \"{}\" is in a primary key", column.name);
                return Err(Error::new(SqlState::INVALID_TABLE_DEFINITION, text));
            }
            let alteration = column_alteration(column, op)?;
            one(CatalogChange::AlterColumn { table: id, column: column.id, alteration })
        }
        AlterTableOperation::OwnerTo { new_owner } => {
            let owner = match new_owner {
                Owner::Ident(ident) => fold(ident),
                _ => session.current_user().to_owned(),
            };
            one(CatalogChange::SetOwner { relation: id, owner })
        }
        AlterTableOperation::AddConstraint { constraint, .. } => {
            let wanted = keys::of_constraint(constraint)?;
            if wanted.kind == KeyKind::Primary && table.primary_key().is_some() {
                return Err(errors::several_primary_keys(&table.name));
            }
            let key = keys::resolved(session, catalog, table, wanted)?;
            one(CatalogChange::AddKey { table: id, key })
        }
        AlterTableOperation::DropConstraint { if_exists, name, .. } => {
            let name = fold(name);
            match table.key(&name).filter(|key| key.kind != KeyKind::Index) {
                Some(_) => one(CatalogChange::DropKey { table: id, key: name }),
                None => {
                    let text = format!("constraint \"{name}\" of relation \"{}\" does not exist", table.name);
                    skip_or(session, *if_exists, Error::new(SqlState::UNDEFINED_OBJECT, text)).map(|()| None)
                }
            }
        }
        other => Err(unserved(&format!("ALTER TABLE … {other}"))),
    }
}

fn column_alteration(column: &ColumnDef, op: &AlterColumnOperation) -> Result<ColumnAlteration> {
    Ok(match op {
        AlterColumnOperation::SetDefault { value } => {
            ColumnAlteration { default: Some(Some(value.to_string())), ..ColumnAlteration::default() }
        }
        AlterColumnOperation::DropDefault => ColumnAlteration { default: Some(None), ..ColumnAlteration::default() },
        AlterColumnOperation::DropNotNull => ColumnAlteration { nullable: Some(true), ..ColumnAlteration::default() },
        AlterColumnOperation::SetNotNull if !column.nullable => ColumnAlteration::default(),
        AlterColumnOperation::SetDataType { data_type, .. } if column_type(data_type)? == column.ty => {
            ColumnAlteration::default()
        }
        AlterColumnOperation::SetNotNull => return Err(unserved("ALTER COLUMN … SET NOT NULL on a nullable column")),
        other => return Err(unserved(&format!("ALTER COLUMN … {other}"))),
    })
}

pub fn column_of<'a>(table: &'a TableDef, name: &str) -> Result<&'a ColumnDef> {
    table.column(name).ok_or_else(|| no_column(table, name))
}

fn no_column(table: &TableDef, name: &str) -> Error {
    let message = format!("column \"{name}\" of relation \"{}\" does not exist", table.name);
    Error::new(SqlState::UNDEFINED_COLUMN, message)
}

/// The text of a default that rows written before can be given: a literal, perhaps cast or negated.
fn constant_default(column: &ColumnDef, default: &str) -> Result<String> {
    use datafusion::sql::sqlparser::{dialect::PostgreSqlDialect, parser::Parser};
    let refused = || unserved(&format!("ADD COLUMN \"{}\" with a default that is not a literal", column.name));
    let mut parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(default).map_err(|_| refused())?;
    let text = literal_text(&parser.parse_expr().map_err(|_| refused())?).ok_or_else(refused)?;
    engine::types::parse_scalar(&column.ty, &text, &TimeContext::UTC)?;
    Ok(text)
}

fn literal_text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Literal::Number(digits, _) => Some(digits.clone()),
            Literal::SingleQuotedString(text) | Literal::EscapedStringLiteral(text) => Some(text.clone()),
            Literal::Boolean(value) => Some(value.to_string()),
            _ => None,
        },
        Expr::Cast { expr, .. } | Expr::Nested(expr) => literal_text(expr),
        Expr::UnaryOp { op, expr } if op.to_string() == "-" => Some(format!("-{}", literal_text(expr)?)),
        _ => None,
    }
}

pub async fn truncate(session: &mut Session, truncate: &Truncate) -> Result<&'static str> {
    session.check_writable("TRUNCATE TABLE")?;
    for target in &truncate.table_names {
        if let Some(table) = owned(session, &object_name(&target.name), truncate.if_exists).await? {
            session.change(CatalogChange::Truncate(table.id)).await?;
        }
    }
    Ok("TRUNCATE TABLE")
}

pub async fn comment(
    session: &mut Session,
    kind: &CommentObject,
    name: &ObjectName,
    text: Option<String>,
    if_exists: bool,
) -> Result<&'static str> {
    session.check_writable("COMMENT")?;
    let parts = name.0.iter().map(ToString::to_string).collect::<Vec<_>>();
    let target = match kind {
        CommentObject::Table => match owned(session, &object_name(name), if_exists).await? {
            Some(table) => CommentTarget::Relation(table.id),
            None => return Ok("COMMENT"),
        },
        CommentObject::Column if parts.len() >= 2 => {
            let table = ObjectName(name.0[..name.0.len() - 1].to_vec());
            let Some(table) = owned(session, &object_name(&table), if_exists).await? else { return Ok("COMMENT") };
            let column = column_of(&table, &object_name(name).1)?.id;
            CommentTarget::Column { table: table.id, column }
        }
        CommentObject::Schema => {
            CommentTarget::Schema { database: session.database.clone(), name: object_name(name).1 }
        }
        CommentObject::Database => CommentTarget::Database(object_name(name).1),
        CommentObject::Role | CommentObject::User => CommentTarget::Role(object_name(name).1),
        other => return Err(unserved(&format!("COMMENT ON {other}"))),
    };
    session.change(CatalogChange::SetComment { target, text }).await?;
    Ok("COMMENT")
}
