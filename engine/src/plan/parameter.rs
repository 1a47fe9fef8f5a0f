//! Constants of a plan that may be exchanged. In a logical and a physical plan they are literals with a mark in their
//! metadata, so that planners treat them as what they are: constants. On the wire a marked literal is a [`Slot`], and
//! its value travels beside the plan: the plan's bytes are the same for every value.
//!
//! Only literals inside predicates of `FilterExec` are marked in a plan that is used again; `template` sees to that.

use super::error::hide;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use bytes::Bytes;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, Expr};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{InListExpr, Literal};
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::{ExecutionPlan, replace_children_if_necessary};
use proto::{Error, Scalar, ipc};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

const MARK: &str = "seriatim.parameter";

/// What comes into the place of a parameter, by its number and what is there.
type Exchange<'a> = dyn Fn(usize, &Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> + 'a;
/// What comes into the place of a leaf; `None`: it stays.
type Leaf<'a> = dyn FnMut(&Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> + 'a;

/// The literal of parameter `number`.
pub(super) fn marked(number: usize, value: ScalarValue) -> Expr {
    let mark = BTreeMap::from([(MARK.to_owned(), number.to_string())]);
    Expr::Literal(value, Some(FieldMetadata::from(mark)))
}

pub(super) fn is_mark(metadata: &FieldMetadata) -> bool {
    metadata.inner().contains_key(MARK)
}

/// Marked literals in a logical expression get their values.
pub(super) fn valued(expr: &Expr, values: &[ScalarValue]) -> Result<Expr> {
    let exchanged = expr.clone().transform_up(|expr| {
        let Expr::Literal(_, Some(metadata)) = &expr else { return Ok(Transformed::no(expr)) };
        let number = metadata.inner().get(MARK).and_then(|number| number.parse::<usize>().ok());
        match number.and_then(|number| Some((number, values.get(number)?.clone()))) {
            Some((number, value)) => Ok(Transformed::yes(marked(number, value))),
            None => Ok(Transformed::no(expr)),
        }
    });
    Ok(exchanged?.data)
}

/// The number of a marked literal.
pub(super) fn number(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    let literal = expr.downcast_ref::<Literal>()?;
    let field = literal.return_field(&Schema::empty()).ok()?;
    field.metadata().get(MARK)?.parse().ok()
}

/// The numbers of all marked literals in `expr`.
pub(super) fn numbers(expr: &Arc<dyn PhysicalExpr>) -> Vec<usize> {
    let mut found = Vec::new();
    let look = |part: &Arc<dyn PhysicalExpr>| {
        found.extend(number(part));
        Ok(TreeNodeRecursion::Continue)
    };
    expr.apply(look).expect("looking does not fail");
    found
}

fn literal(number: usize, value: ScalarValue) -> Arc<dyn PhysicalExpr> {
    let mark = BTreeMap::from([(MARK.to_owned(), number.to_string())]);
    Arc::new(Literal::new_with_metadata(value, Some(FieldMetadata::from(mark))))
}

/// Exchanges the parameters of `expr` as `with` says.
fn exchanged(expr: &Arc<dyn PhysicalExpr>, schema: &Schema, with: &Exchange<'_>) -> Result<Arc<dyn PhysicalExpr>> {
    let exchange = |part: Arc<dyn PhysicalExpr>| {
        if let Some(number) = number(&part) {
            return Ok(Transformed::yes(with(number, &part)?));
        }
        // It keeps a set of its values beside them.
        if let Some(list) = part.downcast_ref::<InListExpr>() {
            let again = InListExpr::try_new(Arc::clone(list.expr()), list.list().to_vec(), list.negated(), schema)?;
            return Ok(Transformed::yes(Arc::new(again) as Arc<dyn PhysicalExpr>));
        }
        Ok(Transformed::no(part))
    };
    Ok(Arc::clone(expr).transform_up(exchange)?.data)
}

/// `plan` with exchanged parameters, where it has any.
fn exchanged_in(plan: Arc<dyn ExecutionPlan>, with: &Exchange<'_>) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(filter) = plan.downcast_ref::<FilterExec>() else { return Ok(plan) };
    if numbers(filter.predicate()).is_empty() {
        return Ok(plan);
    }
    let predicate = exchanged(filter.predicate(), &filter.input().schema(), with)?;
    Ok(Arc::new(FilterExecBuilder::from(filter).with_predicate(predicate).build()?))
}

/// A plan of its own to be executed once: `leaf` exchanges leaves, parameters get `values`, and what other runs left in
/// operators is gone.
pub(super) fn instance(
    plan: &Arc<dyn ExecutionPlan>,
    values: &dyn Values,
    leaf: &mut Leaf<'_>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let children = plan.children();
    if children.is_empty()
        && let Some(exchanged) = leaf(plan)?
    {
        return Ok(exchanged);
    }
    let children = children.into_iter().map(|child| instance(child, values, leaf)).collect::<Result<Vec<_>>>()?;
    let own = replace_children_if_necessary(Arc::clone(plan), children)?.reset_state()?;
    exchanged_in(own, &|number, old| {
        let value = values.value(number, &old.data_type(&Schema::empty())?)?;
        Ok(literal(number, value))
    })
}

/// The values of one run: as planned, or as they came beside a plan.
pub(super) trait Values {
    /// # Errors
    /// When there is none of that number, or it is of another type.
    fn value(&self, number: usize, ty: &DataType) -> Result<ScalarValue>;
}

impl Values for &[ScalarValue] {
    fn value(&self, number: usize, ty: &DataType) -> Result<ScalarValue> {
        let found = self.get(number).filter(|value| value.data_type() == *ty);
        found.cloned().ok_or_else(|| broken(format!("parameter {number}")))
    }
}

impl Values for Vec<Option<Scalar>> {
    fn value(&self, number: usize, ty: &DataType) -> Result<ScalarValue> {
        let found = self.get(number).and_then(Option::as_ref).and_then(|scalar| value(scalar, ty));
        found.ok_or_else(|| broken(format!("parameter {number}")))
    }
}

/// `plan` as it travels: with slots in the place of marked literals.
pub(super) fn with_slots(plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let slots = Arc::clone(plan).transform_up(|node| {
        let slotted = exchanged_in(Arc::clone(&node), &|number, old| {
            Ok(Arc::new(Slot { number, ty: old.data_type(&Schema::empty())? }))
        })?;
        Ok(if Arc::ptr_eq(&slotted, &node) { Transformed::no(node) } else { Transformed::yes(slotted) })
    });
    Ok(slots?.data)
}

/// The values that the parameters of `plan` have in it, by number.
pub(super) fn values_in(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<ScalarValue>> {
    let mut values = Vec::new();
    plan.apply(|node| {
        let Some(filter) = node.downcast_ref::<FilterExec>() else { return Ok(TreeNodeRecursion::Continue) };
        filter.predicate().apply(|part| {
            if let (Some(number), Some(literal)) = (number(part), part.downcast_ref::<Literal>()) {
                if values.len() <= number {
                    values.resize(number + 1, ScalarValue::Null);
                }
                values[number] = literal.value().clone();
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(values)
}

/// Values beside a plan, as JSON; of which type each is, its literal in the plan knows. Without any, nothing.
///
/// # Errors
/// For a value of a type that is not [`travels`].
pub(super) fn encode(values: &[ScalarValue]) -> Result<Bytes> {
    if values.is_empty() {
        return Ok(Bytes::new());
    }
    let scalars = values.iter().map(|value| match value {
        // No literal of the fragment has this number.
        ScalarValue::Null => Ok(None),
        value => scalar(value).map(Some).ok_or_else(|| broken(format!("a value of type {}", value.data_type()))),
    });
    let json = serde_json::to_vec(&scalars.collect::<Result<Vec<_>>>()?);
    Ok(json.expect("numbers and strings always encode").into())
}

/// # Errors
/// For bytes that another build wrote.
pub(super) fn decode(bytes: &Bytes) -> Result<Vec<Option<Scalar>>> {
    match bytes.is_empty() {
        true => Ok(Vec::new()),
        false => serde_json::from_slice(bytes).map_err(broken),
    }
}

fn broken(what: impl fmt::Display) -> DataFusionError {
    hide(Error::internal(format!("damaged values of a fragment: {what}")))
}

/// Whether the value can be sent.
pub(super) fn travels(value: &ScalarValue) -> bool {
    scalar(value).is_some()
}

/// A value as scans and the wire know it; NULL is none.
pub(super) fn scalar(value: &ScalarValue) -> Option<Scalar> {
    Some(match value {
        ScalarValue::Boolean(Some(v)) => Scalar::Int((*v).into()),
        ScalarValue::Int16(Some(v)) => Scalar::Int((*v).into()),
        ScalarValue::Int32(Some(v)) => Scalar::Int((*v).into()),
        ScalarValue::Int64(Some(v)) => Scalar::Int(*v),
        ScalarValue::UInt32(Some(v)) => Scalar::Int((*v).into()),
        ScalarValue::Date32(Some(v)) => Scalar::Int((*v).into()),
        ScalarValue::Time64Microsecond(Some(v)) | ScalarValue::TimestampMicrosecond(Some(v), _) => Scalar::Int(*v),
        ScalarValue::Float32(Some(v)) => Scalar::Float((*v).into()),
        ScalarValue::Float64(Some(v)) => Scalar::Float(*v),
        ScalarValue::Utf8(Some(v)) | ScalarValue::LargeUtf8(Some(v)) | ScalarValue::Utf8View(Some(v)) => {
            Scalar::Text(v.clone())
        }
        ScalarValue::Binary(Some(v)) => Scalar::Bytes(v.clone()),
        _ => return None,
    })
}

/// The other way.
fn value(scalar: &Scalar, ty: &DataType) -> Option<ScalarValue> {
    Some(match (scalar, ty) {
        (Scalar::Int(v), DataType::Boolean) => ScalarValue::Boolean(Some(*v != 0)),
        (Scalar::Int(v), DataType::Int16) => ScalarValue::Int16(Some((*v).try_into().ok()?)),
        (Scalar::Int(v), DataType::Int32) => ScalarValue::Int32(Some((*v).try_into().ok()?)),
        (Scalar::Int(v), DataType::Int64) => ScalarValue::Int64(Some(*v)),
        (Scalar::Int(v), DataType::UInt32) => ScalarValue::UInt32(Some((*v).try_into().ok()?)),
        (Scalar::Int(v), DataType::Date32) => ScalarValue::Date32(Some((*v).try_into().ok()?)),
        (Scalar::Int(v), DataType::Time64(TimeUnit::Microsecond)) => ScalarValue::Time64Microsecond(Some(*v)),
        (Scalar::Int(v), DataType::Timestamp(TimeUnit::Microsecond, zone)) => {
            ScalarValue::TimestampMicrosecond(Some(*v), zone.clone())
        }
        (Scalar::Float(v), DataType::Float32) => ScalarValue::Float32(Some(*v as f32)),
        (Scalar::Float(v), DataType::Float64) => ScalarValue::Float64(Some(*v)),
        (Scalar::Text(v), DataType::Utf8) => ScalarValue::Utf8(Some(v.clone())),
        (Scalar::Text(v), DataType::LargeUtf8) => ScalarValue::LargeUtf8(Some(v.clone())),
        (Scalar::Text(v), DataType::Utf8View) => ScalarValue::Utf8View(Some(v.clone())),
        (Scalar::Bytes(v), DataType::Binary) => ScalarValue::Binary(Some(v.clone())),
        _ => return None,
    })
}

/// The place of a parameter in a plan on the wire; on the node a marked literal again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    number: usize,
    ty: DataType,
}

impl Slot {
    /// A row with a column of its type, named by its number.
    pub fn encode(&self) -> Result<Bytes> {
        let field = Field::new(self.number.to_string(), self.ty.clone(), true);
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let null = arrow::array::new_null_array(&self.ty, 1);
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::new(vec![field])), vec![null], &options)?;
        ipc::encode_body(&row).map_err(hide)
    }

    /// # Errors
    /// For bytes that another build wrote.
    pub fn decode(bytes: &[u8]) -> Result<Arc<dyn PhysicalExpr>> {
        let row = ipc::decode_body(Bytes::copy_from_slice(bytes)).map_err(hide)?;
        let schema = row.schema();
        let field = schema.fields().first().and_then(|field| Some((field.name().parse().ok()?, field.data_type())));
        let (number, ty) = field.ok_or_else(|| hide(Error::internal("damaged parameter in a fragment")))?;
        Ok(literal(number, ScalarValue::try_from(ty)?))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "?{}", self.number)
    }
}

impl PhysicalExpr for Slot {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(self.ty.clone())
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(true)
    }

    fn evaluate(&self, _: &RecordBatch) -> Result<ColumnarValue> {
        Err(hide(Error::internal(format!("parameter {} has no value", self.number))))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(self)
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
