//! The SET list of UPDATE and of DO UPDATE: which columns get which expressions.

use super::assign::{check_literal, is_default, parsed_expr, sql_type, type_literal, type_parameter};
use super::target::Target;
use crate::session::define::object_name;
use datafusion::sql::sqlparser::ast::{Assignment, AssignmentTarget, CastKind, Expr, ObjectName, Query, SetExpr};
use engine::{ColumnDef, PgType, TableDef};
use proto::{ColumnId, Error, Result, SqlState};

/// One column and its new value.
pub struct Assigned {
    pub column: ColumnDef,
    pub value: Expr,
}

/// # Errors
/// Of a column that is not there or set twice, and of a list that has not as many values as columns.
pub fn assigned(
    table: &TableDef,
    assignments: &[Assignment],
    declared: &mut Vec<Option<PgType>>,
) -> Result<Vec<Assigned>> {
    let mut all: Vec<Assigned> = Vec::new();
    for assignment in assignments {
        let pairs = match &assignment.target {
            AssignmentTarget::ColumnName(name) => vec![(name, assignment.value.clone())],
            AssignmentTarget::Tuple(names) => {
                let values = spread(&assignment.value, names.len())?;
                names.iter().zip(values).collect()
            }
        };
        for (name, mut value) in pairs {
            let column = column(table, name)?.clone();
            if all.iter().any(|other| other.column.id == column.id) {
                let text = format!("multiple assignments to same column \"{}\"", column.name);
                return Err(Error::new(SqlState::SYNTAX_ERROR, text));
            }
            type_parameter(&value, &column.ty, declared);
            check_literal(&value, &column)?;
            type_literal(&mut value, &column)?;
            all.push(Assigned { column, value });
        }
    }
    Ok(all)
}

fn column<'a>(table: &'a TableDef, name: &ObjectName) -> Result<&'a ColumnDef> {
    // What stands before a dot would be a column of a composite type.
    let wanted = match &name.0[..] {
        [_] => object_name(name).1,
        [first, ..] => object_name(&ObjectName(vec![first.clone()])).1,
        [] => String::new(),
    };
    let found = table.column(&wanted).filter(|_| name.0.len() == 1);
    found.ok_or_else(|| {
        let text = format!("column \"{wanted}\" of relation \"{}\" does not exist", table.name);
        Error::new(SqlState::UNDEFINED_COLUMN, text)
    })
}

/// The values of `(a, b) = …`: a row, or one sub-query for each column.
fn spread(value: &Expr, wanted: usize) -> Result<Vec<Expr>> {
    let values = match value {
        Expr::Tuple(values) => values.clone(),
        Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("row") => {
            let list = function.args.to_string();
            match parsed_expr(&list)? {
                Expr::Tuple(values) => values,
                Expr::Nested(value) => vec![*value],
                _ => return Err(Error::unsupported("this ROW in a SET list")),
            }
        }
        Expr::Subquery(query) => {
            let SetExpr::Select(select) = &*query.body else {
                return Err(Error::unsupported("a set operation as the source of a multiple-column UPDATE"));
            };
            let of_column = |index: usize| {
                let mut one = select.clone();
                one.projection = vec![select.projection[index].clone()];
                Expr::Subquery(Box::new(Query { body: Box::new(SetExpr::Select(one)), ..(**query).clone() }))
            };
            (0..select.projection.len()).map(of_column).collect()
        }
        _ => {
            let text = "source for a multiple-column UPDATE item must be a sub-SELECT or ROW() expression";
            return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, text));
        }
    };
    match values.len() == wanted {
        true => Ok(values),
        false => Err(Error::new(SqlState::SYNTAX_ERROR, "number of columns does not match number of values")),
    }
}

/// Every column of the table as it is to be, cast to its type and named `c0 …`.
pub fn new_row(target: &Target, assigned: &[Assigned]) -> Result<Vec<Expr>> {
    let value = |column: &ColumnDef| {
        let Some(assigned) = assigned.iter().find(|assigned| assigned.column.id == column.id) else {
            return parsed_expr(&target.column(&column.name));
        };
        let mut cast = parsed_expr(&format!("CAST(NULL AS {})", sql_type(&column.ty)))?;
        if let Expr::Cast { expr, .. } = &mut cast {
            **expr = assigned.value.clone();
        }
        Ok(cast)
    };
    target.table.columns.iter().map(value).collect()
}

/// Whether a column of any of the table's keys is set.
pub fn sets_key(table: &TableDef, assigned: &[Assigned]) -> bool {
    let is_set = |id: &ColumnId| assigned.iter().any(|assigned| assigned.column.id == *id);
    table.keys.iter().any(|key| key.columns.iter().any(is_set))
}

/// Whether the values are read out of rows.
pub fn reads_rows(assigned: &[Assigned]) -> bool {
    let is_constant = |value: &Expr| match value {
        Expr::Cast { expr, kind: CastKind::Cast | CastKind::DoubleColon, .. } => matches!(**expr, Expr::Value(_)),
        other => matches!(other, Expr::Value(_)),
    };
    assigned.iter().any(|assigned| !is_constant(&assigned.value) && !is_default(&assigned.value))
}
