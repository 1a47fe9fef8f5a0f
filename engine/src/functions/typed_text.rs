//! Types that are text in Arrow: a cast to `uuid`, `jsonb`, `varchar(n)` checks and shapes the text, and names the type in
//! the result's metadata.

use super::scalar::{Call, Function, Overload, raise};
use crate::PgType;
use crate::semantics::{Zone, literal};
use crate::types::PG_TYPE;
use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF};
use proto::Error;
use std::sync::Arc;

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Function::new("typed_text", two_texts, evaluate).field(field).udf()]
}

/// `(value, the type's name)`.
fn two_texts(types: &[DataType]) -> Option<Overload> {
    (types.len() == 2).then(|| Overload::new([DataType::Utf8, DataType::Utf8], DataType::Utf8))
}

fn named_type(name: Option<&ScalarValue>) -> Result<PgType> {
    let found = match name {
        Some(ScalarValue::Utf8(Some(name))) => PgType::parse(name),
        _ => None,
    };
    found.ok_or_else(|| raise(Error::internal("typed_text without a type")))
}

fn field(args: &ReturnFieldArgs) -> Result<Option<FieldRef>> {
    let ty = named_type(args.scalar_arguments.get(1).copied().flatten())?;
    let field = Field::new("typed_text", DataType::Utf8, true);
    Ok(Some(Arc::new(field.with_metadata([(PG_TYPE.to_owned(), ty.to_string())].into()))))
}

fn evaluate(call: &Call) -> Result<ArrayRef> {
    let ty = named_type(call.scalar(1))?;
    let texts = call.array(0)?;
    literal::parse_array(texts.as_string::<i32>(), &ty, Zone::UTC, 0).map_err(raise)
}
