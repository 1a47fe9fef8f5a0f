//! Rows that a statement is to change, as the queries behind UPDATE, DELETE and ON CONFLICT name them. The session writes
//! those queries; these are the names it needs beyond what SQL text can say. Every one begins with NUL, which no client
//! can send inside a query string, so that nobody meets them by accident.
//!
//! - Relation `TARGET.t`: the table `t` with its rows' addresses as further columns ([`ADDRESS`]).
//! - Relation `CHANGED`: rows that were changed, for RETURNING. Its columns are named `<relation>\0<column>` (see
//!   [`changed_column`]) and show under that relation's name: `t.a`, `other.b`.
//! - Relation `INCOMING`: the rows of an INSERT on their way to a table that may have them already.
//!
//! What is done with the addresses is the session's business.

use super::context::{Relation, Scope};
use super::error::hide;
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::Field;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result, ScalarValue, TableReference};
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Accumulator, Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::TableFactor;
use proto::data_node::FIELD_ID;
use proto::{ColumnId, Error};
use std::sync::Arc;

pub const TARGET: &str = "\0target";
pub const CHANGED: &str = "\0changed";
pub const INCOMING: &str = "\0incoming";
/// The columns of an address, in this order: `bigint`, never NULL.
pub const ADDRESS: [(&str, ColumnId); 3] =
    [("\0chunk", ColumnId::CHUNK), ("\0part", ColumnId::PART), ("\0row", ColumnId::ROW)];

/// Values of one column that a target's scan is limited to.
#[derive(Debug, Clone)]
pub struct Narrowing {
    pub column: String,
    pub to: Values,
}

#[derive(Debug, Clone)]
pub enum Values {
    Among(Vec<ScalarValue>),
    /// Both included.
    Between(ScalarValue, ScalarValue),
}

impl Narrowing {
    /// What `values` can be equal to: themselves when they are few, else their range. `None` when that says nothing, or
    /// too little to be worth a look.
    pub fn to(column: &str, values: &ArrayRef, few: usize) -> Option<Narrowing> {
        let mut distinct: Vec<ScalarValue> = Vec::new();
        for row in 0..values.len() {
            let value = ScalarValue::try_from_array(values, row).ok()?;
            if !value.is_null() && !distinct.contains(&value) {
                distinct.push(value);
            }
            if distinct.len() > few {
                break;
            }
        }
        let to = match distinct.len() <= few {
            true => Values::Among(distinct),
            false => Values::Between(
                folded(MinAccumulator::try_new(values.data_type()).ok()?, values)?,
                folded(MaxAccumulator::try_new(values.data_type()).ok()?, values)?,
            ),
        };
        Some(Narrowing { column: column.to_owned(), to })
    }

    fn filter(&self, relation: &TableReference) -> Expr {
        let column = Expr::Column(Column::new(Some(relation.clone()), &self.column));
        let literal = |value: &ScalarValue| Expr::Literal(value.clone(), None);
        match &self.to {
            Values::Among(values) => column.in_list(values.iter().map(literal).collect(), false),
            Values::Between(least, greatest) => column.between(literal(least), literal(greatest)),
        }
    }
}

fn folded(mut into: impl Accumulator, values: &ArrayRef) -> Option<ScalarValue> {
    into.update_batch(std::slice::from_ref(values)).ok()?;
    into.evaluate().ok()
}

pub(super) fn address_fields() -> impl Iterator<Item = Field> {
    ADDRESS.into_iter().map(|(name, id)| {
        let field = crate::PgType::Int8.field(name, false);
        let mut metadata = field.metadata().clone();
        metadata.insert(FIELD_ID.to_owned(), id.to_string());
        field.with_metadata(metadata)
    })
}

/// The name of a column of [`CHANGED`]; without a relation, of an expression's.
pub fn changed_column(relation: &str, column: &str) -> String {
    format!("{relation}\0{column}")
}

/// Limits the scans of targets to what their relations say.
pub(super) fn narrowed(plan: LogicalPlan, scope: &Scope) -> Result<LogicalPlan> {
    let narrowed = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
        let name = (scan.table_name.schema().map(str::to_owned), scan.table_name.table().to_owned());
        if name.0.as_deref() != Some(TARGET) {
            return Ok(Transformed::no(node));
        }
        let Some(Relation::Target { only, .. }) = scope.relation(&name) else { return Ok(Transformed::no(node)) };
        let relation = scan.table_name.clone();
        let mut builder = LogicalPlanBuilder::from(node);
        for narrowing in only.iter() {
            builder = builder.filter(narrowing.filter(&relation))?;
        }
        Ok(Transformed::yes(builder.build()?))
    })?;
    Ok(narrowed.data)
}

/// Gives the columns of [`CHANGED`] back to their relations.
#[derive(Debug)]
pub(super) struct ChangedRows;

impl RelationPlanner for ChangedRows {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let is_changed = |part: &datafusion::sql::sqlparser::ast::ObjectNamePart| {
            part.as_ident().is_some_and(|ident| ident.value == CHANGED)
        };
        match &relation {
            TableFactor::Table { name, .. } if matches!(&name.0[..], [part] if is_changed(part)) => {}
            _ => return Ok(RelationPlanning::Original(Box::new(relation))),
        }
        let source = context.context_provider().get_table_source(TableReference::bare(CHANGED))?;
        let schema = source.schema();
        let columns = schema.fields().iter().map(|field| {
            let (of, name) = field.name().split_once('\0').ok_or_else(|| {
                hide(Error::internal(format!("changed rows have a column \"{}\" of no relation", field.name())))
            })?;
            let column = Expr::Column(Column::new(Some(TableReference::bare(CHANGED)), field.name()));
            Ok(match of {
                "" => column.alias(name),
                of => column.alias_qualified(Some(TableReference::bare(of)), name),
            })
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let plan = LogicalPlanBuilder::scan(CHANGED, Arc::clone(&source), None)?.project(columns)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}
