//! Which constants of a plan may be exchanged when it is used again, and what they are in a run. Marks them in an analyzed
//! logical plan.
//!
//! Only constants that stand beside a column of their own type, in a condition of a filter, are marked; those that are the
//! same in each run too, because an optimizer may drop them in favour of one that is not. What is left must
//! be the same in the next run: it names no parameter without being bound to its value, no clock, and no day.

use super::context::{Relation, Scope};
use super::parameter;
use crate::Settings;
use crate::functions::types::{Class, class};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Between, InList, Placeholder};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, Operator, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_plan::ExecutionPlan;
use std::collections::HashSet;
use std::sync::Arc;

/// They read `'today'` out of a column, too.
const TIME_CASTS: [&str; 4] = ["cast_date", "cast_time", "cast_timestamp", "cast_timestamptz"];

/// Whether a decoded plan is the same whenever it is decoded.
pub(super) fn is_lasting(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let mut lasting = true;
    let look = plan.apply(|node| {
        let input = node.children().first().map(|child| child.schema());
        node.apply_expressions(&mut |expr| {
            expr.apply(|part| {
                if let Some(call) = part.downcast_ref::<ScalarFunctionExpr>()
                    && TIME_CASTS.contains(&call.name())
                {
                    let ty = input.as_ref().and_then(|input| call.args().first()?.data_type(input).ok());
                    lasting &= ty.is_some_and(|ty| class(&ty) != Class::Text);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    look.is_ok() && lasting
}

/// What was marked in a logical plan that is on its way to a template.
pub(super) struct Marks {
    /// What gives the values of the marked constants, by number.
    pub exchanged: Vec<Expr>,
    /// Parameters that were not marked, and their values.
    pub fixed: Vec<(usize, ScalarValue)>,
}

/// Marks what may be exchanged in an analyzed plan whose parameters are typed and not filled in.
///
/// # Errors
/// `None` when it cannot become a template.
pub(super) fn mark(plan: LogicalPlan, params: &[ScalarValue], scope: &Scope) -> Result<Option<(LogicalPlan, Marks)>> {
    let settings = &scope.context.settings;
    let tables =
        scope.used().into_iter().all(|(_, used)| matches!(used, Relation::Table { .. } | Relation::View { .. }));
    // An operator of our own may hold what it found in a condition.
    if !tables || plan.exists(|node| Ok(matches!(node, LogicalPlan::Extension(_))))? {
        return Ok(None);
    }
    let mut marker = Marker { params, settings, shared: HashSet::new(), exchanged: Vec::new() };
    let filters = marker.look_over(&plan)?;
    // Under another name a column may be in any of them.
    if filters > 1 && !marker.shared.is_empty() {
        return Ok(None);
    }
    let plan = plan.transform_up(|node| match node {
        LogicalPlan::Filter(filter) => {
            let predicate = marker.condition(filter.predicate, filter.input.schema())?;
            Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    let exchanged = marker.exchanged;
    let mut fixed = Vec::new();
    for id in plan.data.get_parameter_names()? {
        let Some(position) = super::prepare::position(&id) else { return Ok(None) };
        let Some(value) = params.get(position) else { return Ok(None) };
        fixed.push((position, value.clone()));
    }
    // Analysis has settled all types; a value of another (a `bigint` beside a count of rows) would need it again.
    let unsettled = any_expr(&plan.data, |part, _| match part {
        Expr::Placeholder(Placeholder { id, field }) => {
            let value = super::prepare::position(id).and_then(|position| params.get(position));
            value.map(ScalarValue::data_type) != field.as_ref().map(|field| field.data_type().clone())
        }
        _ => false,
    })?;
    match unsettled || volatile(&plan.data)? || !marks_are_unlike(&plan.data)? {
        true => Ok(None),
        false => Ok(Some((plan.data, Marks { exchanged, fixed }))),
    }
}

/// A marked constant is not equal to another of the same value, marked or not: an optimizer would take `a = 4 AND a = 4`
/// for a contradiction.
fn marks_are_unlike(plan: &LogicalPlan) -> Result<bool> {
    let (mut marked, mut plain) = (Vec::new(), HashSet::new());
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                match part {
                    Expr::Literal(value, Some(metadata)) if parameter::is_mark(metadata) => marked.push(value.clone()),
                    Expr::Literal(value, _) => {
                        plain.insert(value.clone());
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(marked.into_iter().all(|value| plain.insert(value)))
}

/// Whether any expression that is left may have another value in the next run.
fn volatile(plan: &LogicalPlan) -> Result<bool> {
    any_expr(plan, |part, schema| match part {
        Expr::ScalarFunction(call) if TIME_CASTS.contains(&call.func.name()) => {
            call.args.iter().any(|arg| arg.get_type(schema).map_or(true, |ty| class(&ty) == Class::Text))
        }
        Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
        Expr::ScalarVariable(..) => true,
        _ => false,
    })
}

/// Whether a text of the statement may be a time that is not the same tomorrow, `'today'`. Analysis makes constants of
/// them, so the plan is looked at before.
pub(super) fn names_a_day(plan: &LogicalPlan) -> Result<bool> {
    any_expr(plan, |part, _| match part {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => {
            let text = text.to_ascii_lowercase();
            ["now", "today", "tomorrow", "yesterday"].iter().any(|day| text.contains(day))
        }
        _ => false,
    })
}

fn any_expr(plan: &LogicalPlan, is: impl Fn(&Expr, &DFSchema) -> bool) -> Result<bool> {
    let mut any = false;
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                any |= is(part, &schema);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(any)
}

struct Marker<'a> {
    params: &'a [ScalarValue],
    settings: &'a Settings,
    /// Columns that other conditions speak of, too: an optimizer may drop one of those, or make another of it, because of
    /// a constant, and nothing would be missed. Their constants are not marked.
    shared: HashSet<Column>,
    exchanged: Vec<Expr>,
}

impl Marker<'_> {
    /// Finds the columns of conditions that are more than a column beside constants. Returns how many filters there are.
    fn look_over(&mut self, plan: &LogicalPlan) -> Result<usize> {
        let mut filters = 0;
        plan.apply(|node| {
            if let LogicalPlan::Filter(filter) = node {
                filters += 1;
                self.look_into(&filter.predicate, filter.input.schema());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(filters)
    }

    fn look_into(&mut self, condition: &Expr, schema: &DFSchema) {
        let plain = |marker: &Self, column: &Expr, constants: &[&Expr]| {
            let ty = column_type(column, schema);
            ty.is_some_and(|ty| constants.iter().all(|constant| marker.value(constant, &ty).is_some()))
        };
        let is_plain = match condition {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
                self.look_into(left, schema);
                self.look_into(right, schema);
                return;
            }
            Expr::Not(inner) => return self.look_into(inner, schema),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => {
                plain(self, left, &[right]) || plain(self, right, &[left])
            }
            Expr::Between(Between { expr, low, high, .. }) => plain(self, expr, &[low, high]),
            Expr::InList(InList { expr, list, .. }) => plain(self, expr, &list.iter().collect::<Vec<_>>()),
            _ => false,
        };
        if !is_plain {
            self.shared.extend(condition.column_refs().into_iter().cloned());
        }
    }

    /// What a constant beside a column of the type is now.
    fn value(&self, expr: &Expr, ty: &DataType) -> Option<ScalarValue> {
        let value = is_constant(expr).then(|| value_of(expr, self.params, self.settings))?;
        value.filter(|value| value.data_type() == *ty && parameter::travels(value))
    }

    /// The type of a column whose constants may be marked.
    fn own_column(&self, expr: &Expr, schema: &DFSchema) -> Option<DataType> {
        let is_shared = matches!(expr, Expr::Column(column) if self.shared.contains(column));
        if is_shared { None } else { column_type(expr, schema) }
    }

    /// Goes into what is combined by AND, OR and NOT only.
    fn condition(&mut self, expr: Expr, schema: &DFSchema) -> Result<Expr> {
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let (left, right) = (self.condition(*left, schema)?, self.condition(*right, schema)?);
                Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })
            }
            Expr::Not(inner) => Expr::Not(Box::new(self.condition(*inner, schema)?)),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
                let (left, right) = match (self.own_column(&left, schema), self.own_column(&right, schema)) {
                    (Some(ty), None) => (*left, self.constant(*right, &ty)),
                    (None, Some(ty)) => (self.constant(*left, &ty), *right),
                    _ => (*left, *right),
                };
                Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })
            }
            Expr::Between(between) => match self.own_column(&between.expr, schema) {
                Some(ty) => {
                    let (low, high) = (self.constant(*between.low, &ty), self.constant(*between.high, &ty));
                    Expr::Between(Between { low: Box::new(low), high: Box::new(high), ..between })
                }
                None => Expr::Between(between),
            },
            Expr::InList(list) => match self.own_column(&list.expr, schema) {
                Some(ty) => {
                    let values = list.list.into_iter().map(|value| self.constant(value, &ty)).collect();
                    Expr::InList(InList { list: values, ..list })
                }
                None => Expr::InList(list),
            },
            other => other,
        })
    }

    /// `expr` as a marked constant, if it may be exchanged and has a value of that type now.
    fn constant(&mut self, expr: Expr, ty: &DataType) -> Expr {
        match self.value(&expr, ty) {
            Some(value) => {
                let marked = parameter::marked(self.exchanged.len(), value);
                self.exchanged.push(expr);
                marked
            }
            None => expr,
        }
    }
}

fn is_comparison(op: Operator) -> bool {
    matches!(op, Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq)
}

fn column_type(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    let Expr::Column(column) = expr else { return None };
    schema.field_from_column(column).ok().map(|field| field.data_type().clone())
}

/// Constants, parameters and `now()`, with immutable functions around them; nothing that reads a row.
fn is_constant(expr: &Expr) -> bool {
    let mut constant = true;
    let look = expr.apply(|part| {
        match part {
            Expr::Placeholder(_) | Expr::Literal(..) | Expr::BinaryExpr(_) | Expr::Negative(_) | Expr::Cast(_) => {}
            Expr::ScalarFunction(call) => constant = call.func.signature().volatility != Volatility::Volatile,
            _ => constant = false,
        }
        Ok(if constant { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    look.is_ok() && constant
}

pub(super) fn values_of(exprs: &[Expr], params: &[ScalarValue], settings: &Settings) -> Option<Vec<ScalarValue>> {
    exprs.iter().map(|expr| value_of(expr, params, settings)).collect()
}

/// What a constant is in this run. NULL is none: planners know what becomes of a comparison with it.
fn value_of(expr: &Expr, params: &[ScalarValue], settings: &Settings) -> Option<ScalarValue> {
    let param = |placeholder: &Placeholder| params.get(super::prepare::position(&placeholder.id)?).cloned();
    let value = match expr {
        Expr::Placeholder(placeholder) => param(placeholder)?,
        other => {
            let filled = other.clone().transform_up(|part| match &part {
                Expr::Placeholder(placeholder) => match param(placeholder) {
                    Some(value) => Ok(Transformed::yes(Expr::Literal(value, None))),
                    None => Ok(Transformed::no(part)),
                },
                _ => Ok(Transformed::no(part)),
            });
            let config = crate::semantics::config(settings);
            let context = SimplifyContext::builder().with_config_options(Arc::clone(config.options())).build();
            match ExprSimplifier::new(context).simplify(filled.ok()?.data).ok()? {
                Expr::Literal(value, _) => value,
                _ => return None,
            }
        }
    };
    (!value.is_null()).then_some(value)
}
