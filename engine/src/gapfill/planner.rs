//! From the logical node to the operator: constants are evaluated and checked, for every execution anew.

use super::exec::GapFillExec;
use super::filling::Filling;
use super::grid::Grid;
use super::node::{Bound, GapFill};
use super::{RANGE_HINT, invalid};
use crate::functions::cast::convert_scalar;
use crate::functions::raise;
use crate::functions::scalar::{session_now, session_zone};
use crate::functions::time_bucket::Width;
use crate::functions::types::{Class, class};
use crate::semantics::is_finite;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use proto::Error;
use std::sync::Arc;

/// DataFusion's planner, with our node.
#[derive(Debug)]
pub struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(GapFillPlanner)]);
        planner.create_physical_plan(plan, session).await
    }
}

struct GapFillPlanner;

#[async_trait]
impl ExtensionPlanner for GapFillPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(fill) = node.as_any().downcast_ref::<GapFill>() else { return Ok(None) };
        let constants = Constants { planner, session, context };
        let filling = constants.filling(fill)?;
        Ok(Some(Arc::new(GapFillExec::new(Arc::clone(&inputs[0]), filling)?)))
    }
}

struct Constants<'a> {
    planner: &'a dyn PhysicalPlanner,
    session: &'a dyn Session,
    context: &'a PhysicalPlanningContext,
}

impl Constants<'_> {
    fn filling(&self, fill: &GapFill) -> Result<Filling> {
        let ty = fill.input.schema().field(fill.time).data_type().clone();
        let zone = match &fill.zone {
            Some(zone) => match self.value(zone)? {
                ScalarValue::Utf8(Some(name)) => Some(name),
                _ => return Err(raise(invalid("timezone cannot be NULL"))),
            },
            None => None,
        };
        let grid = grid(&self.value(&fill.width)?, &ty, zone).map_err(raise)?;
        let bounds = |bounds: &[Bound], what| {
            let values = bounds.iter().map(|bound| self.bound(bound, &ty, what));
            values.collect::<Result<Vec<_>>>()
        };
        let start = bounds(&fill.start, "start")?.into_iter().max();
        let finish = bounds(&fill.finish, "finish")?.into_iter().min();
        let (Some(start), Some(finish)) = (start, finish) else {
            return Err(raise(Error::internal("a gap-filling query without a range")));
        };
        let first = grid.starts(start, grid.zone().map_err(raise)?).map_err(raise)?.next();
        if first.is_none_or(|first| first >= finish) {
            return Err(raise(invalid("start must be before finish")));
        }
        Ok(Filling { time: fill.time, groups: fill.groups.clone(), grid, start, finish, fills: fill.fills.clone() })
    }

    /// In the units of the time column, as `>=` or `<` would have it.
    fn bound(&self, bound: &Bound, ty: &DataType, what: &str) -> Result<i64> {
        let options = self.session.config_options();
        let value = self.value(&bound.value)?;
        if value.is_null() {
            return Err(raise(invalid(format!("{what} cannot be NULL")).hint(RANGE_HINT)));
        }
        let value = match value.data_type() == *ty {
            true => value,
            false => convert_scalar(&value, ty, session_zone(options)?, session_now(options))?,
        };
        let time = match value {
            ScalarValue::Int16(Some(value)) => value.into(),
            ScalarValue::Int32(Some(value)) => value.into(),
            ScalarValue::Int64(Some(value)) => value,
            ScalarValue::Date32(Some(i32::MIN | i32::MAX)) => i64::MAX,
            ScalarValue::Date32(Some(days)) => days.into(),
            ScalarValue::TimestampMicrosecond(Some(us), _) => us,
            other => return Err(raise(Error::internal(format!("a time of type {}", other.data_type())))),
        };
        if class(ty) != Class::Integer && !is_finite(time) {
            return Err(raise(invalid(format!("{what} cannot be infinite"))));
        }
        Ok(if bound.next { time.saturating_add(1) } else { time })
    }

    fn value(&self, expr: &Expr) -> Result<ScalarValue> {
        let physical = self.planner.create_physical_expr(expr, &DFSchema::empty(), self.session, self.context)?;
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
        ScalarValue::try_from_array(&physical.evaluate(&row)?.to_array(1)?, 0)
    }
}

fn grid(width: &ScalarValue, time: &DataType, zone: Option<String>) -> Result<Grid, Error> {
    if width.is_null() {
        return Err(invalid("bucket_width cannot be NULL"));
    }
    let period = match width {
        ScalarValue::Int16(Some(period)) => i64::from(*period),
        ScalarValue::Int32(Some(period)) => i64::from(*period),
        ScalarValue::Int64(Some(period)) => *period,
        ScalarValue::IntervalMonthDayNano(Some(interval)) => {
            if interval.months <= 0 && interval.days <= 0 && interval.nanoseconds <= 0 {
                return Err(invalid("bucket_width must be greater than 0"));
            }
            let width = Width::new(*interval)?;
            return Ok(match class(time) {
                Class::Date => Grid::Days { width },
                _ => Grid::Times { width, zone },
            });
        }
        other => return Err(Error::internal(format!("a bucket width of type {}", other.data_type()))),
    };
    Ok(Grid::Integers { period })
}
