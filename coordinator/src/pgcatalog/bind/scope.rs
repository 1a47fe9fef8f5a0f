//! Names in scope.

use super::{Binder, Bound};
use crate::pgcatalog::tree::{Expr, Fields, OutColumn, Slot};
use crate::pgcatalog::value::Value;
use engine::PgType;
use proto::{Error, Result, SqlState};
use std::sync::Arc;

/// One SELECT: the columns of its FROM items so far, and the slots behind them.
#[derive(Debug, Default)]
pub(super) struct Level {
    pub columns: Vec<ScopeColumn>,
    pub tables: Vec<ScopeTable>,
    /// False while a FROM item is bound that may not see its neighbours.
    pub hidden: bool,
    pub slots: Vec<Slot>,
}

#[derive(Debug, Clone)]
pub(super) struct ScopeColumn {
    pub table: String,
    pub name: String,
    pub ty: PgType,
    pub fields: Fields,
    /// The right one of two columns that USING merged: found by its table's name only.
    pub merged_away: bool,
    /// Of a full join's merged column: the other half.
    pub coalesce: Option<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct ScopeTable {
    pub name: String,
    pub schema: Option<String>,
    /// OID of a catalog, for `tableoid`.
    pub relation: Option<u32>,
    /// Nothing is known of its columns: every name is one, and NULL.
    pub open: bool,
}

/// One query: how many levels are around it, and which of them it reads.
#[derive(Debug)]
pub(super) struct Frame {
    pub level: usize,
    pub touched: u64,
    /// Reads a table expression whose rows may change between two runs.
    pub changing: bool,
}

#[derive(Debug, Clone)]
pub(super) struct CteName {
    pub name: String,
    pub slot: usize,
    pub columns: Vec<OutColumn>,
}

impl Binder<'_> {
    pub(super) fn level(&mut self) -> &mut Level {
        self.levels.last_mut().expect("names are resolved inside a level")
    }

    pub(super) fn open_frame(&mut self) {
        self.frames.push(Frame { level: self.levels.len(), touched: 0, changing: false });
    }

    /// Closes the innermost query: whether it depends on anything outside, and whether on the level just around it.
    pub(super) fn close_frame(&mut self) -> (bool, bool) {
        let frame = self.frames.pop().expect("frames are opened and closed in pairs");
        let around = frame.level.checked_sub(1).is_some_and(|level| frame.touched >> level & 1 == 1);
        (frame.touched != 0 || frame.changing, around)
    }

    fn touch(&mut self, level: usize) {
        for frame in self.frames.iter_mut().filter(|frame| frame.level > level) {
            frame.touched |= 1 << level;
        }
    }

    /// # Errors
    /// `42703` no such column, `42P01` no such table in scope, `42702` more than one.
    pub(super) fn resolve(&mut self, names: &[String]) -> Result<Bound> {
        let levels = (0..self.levels.len()).rev().filter(|at| !self.levels[*at].hidden);
        for at in levels.collect::<Vec<_>>() {
            if let Some(bound) = self.resolve_at(at, names)? {
                self.touch(at);
                return Ok(bound);
            }
        }
        let (column, table) = (names.last().map_or("", String::as_str), names.iter().rev().nth(1));
        Err(match table {
            None => Error::new(SqlState::UNDEFINED_COLUMN, format!("column \"{column}\" does not exist")),
            Some(table) if self.levels.iter().any(|level| level.tables.iter().any(|known| known.name == *table)) => {
                Error::new(SqlState::UNDEFINED_COLUMN, format!("column {table}.{column} does not exist"))
            }
            Some(table) => {
                Error::new(SqlState::UNDEFINED_TABLE, format!("missing FROM-clause entry for table \"{table}\""))
            }
        })
    }

    fn resolve_at(&self, at: usize, names: &[String]) -> Result<Option<Bound>> {
        let level = &self.levels[at];
        let up = self.levels.len() - 1 - at;
        let Some((name, qualifiers)) = names.split_last() else { return Ok(None) };
        let table = match qualifiers {
            [] => None,
            [.., schema, table] => match level.tables.iter().find(|known| known.name == *table) {
                Some(known) if known.schema.as_deref().is_none_or(|own| own == schema) => Some(table.as_str()),
                _ => return Ok(None),
            },
            [table] => Some(table.as_str()),
        };
        let fits = |column: &ScopeColumn| match table {
            Some(table) => column.table == table && column.name == *name,
            None => column.name == *name && !column.merged_away,
        };
        let mut found = level.columns.iter().enumerate().filter(|(_, column)| fits(column));
        if let Some((index, column)) = found.next() {
            if found.next().is_some() {
                let message = format!("column reference \"{name}\" is ambiguous");
                return Err(Error::new(SqlState::AMBIGUOUS_COLUMN, message));
            }
            return Ok(Some(column_at(column, up, index)));
        }
        if let Some(system) = system_column(level, table, name) {
            return Ok(Some(system));
        }
        let known = |known: &&ScopeTable| table.is_none_or(|table| known.name == table);
        if level.tables.iter().filter(known).any(|known| known.open) {
            return Ok(Some(Bound::new(Expr::Const(Value::Null), PgType::Unknown)));
        }
        if table.is_none() && level.tables.iter().any(|known| known.name == *name) {
            return Ok(Some(whole_row(level, up, name)));
        }
        Ok(None)
    }
}

pub(super) fn column_at(column: &ScopeColumn, up: usize, index: usize) -> Bound {
    let expr = Expr::Column { up, index };
    let expr = match column.coalesce {
        Some(other) => Expr::Coalesce(vec![expr, Expr::Column { up, index: other }]),
        None => expr,
    };
    Bound { expr, ty: column.ty.clone(), fields: column.fields.clone() }
}

/// What every catalog row has besides its columns.
fn system_column(level: &Level, table: Option<&str>, name: &str) -> Option<Bound> {
    let mut relations = level.tables.iter().filter(|known| table.is_none_or(|table| known.name == table));
    let oid = relations.find_map(|known| known.relation)?;
    let constant = |value, ty| Some(Bound::new(Expr::Const(value), ty));
    match name {
        "tableoid" => constant(Value::Int(oid as i64), PgType::Oid),
        "xmin" => constant(Value::Int(1), PgType::Xid),
        "xmax" => constant(Value::Int(0), PgType::Xid),
        "ctid" => constant(Value::text("(0,1)"), PgType::Text),
        _ => None,
    }
}

fn whole_row(level: &Level, up: usize, table: &str) -> Bound {
    let own = level.columns.iter().enumerate().filter(|(_, column)| column.table == table);
    let columns: Vec<_> = own.collect();
    // A function's lone column stands for its row.
    if let [(index, column)] = columns[..] {
        return column_at(column, up, index);
    }
    let fields: Arc<[_]> = columns.iter().map(|(_, column)| (column.name.clone(), column.ty.clone())).collect();
    let exprs = columns.iter().map(|(index, column)| column_at(column, up, *index).expr);
    Bound { expr: Expr::Record(exprs.collect()), ty: PgType::Record, fields: Some(fields) }
}
