//! A call of a function that does not exist. `rewrite` puts it in the place of the unknown name; where the types of the
//! arguments become known, it is the error that names them.

use super::scalar::{Function, Overload, no_function_of, raise, type_name};
use crate::PgType;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ReturnFieldArgs, ScalarUDF};
use proto::Error;
use std::sync::Arc;

/// `(the name, its arguments…)`.
pub const UNDEFINED: &str = "undefined_function";

pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Function::new(UNDEFINED, as_they_are, never_called).field(refuse).udf()]
}

fn as_they_are(types: &[DataType]) -> Option<Overload> {
    Some(Overload::new(types, DataType::Utf8))
}

fn never_called(_: &super::scalar::Call) -> Result<ArrayRef> {
    Err(raise(Error::internal("a function that does not exist was planned")))
}

fn refuse(args: &ReturnFieldArgs) -> Result<Option<FieldRef>> {
    let name = match args.scalar_arguments.first() {
        Some(Some(ScalarValue::Utf8(Some(name)))) => name,
        _ => UNDEFINED,
    };
    let typed = |(field, constant): (&FieldRef, &Option<&ScalarValue>)| match (constant, PgType::from_field(field)) {
        (Some(ScalarValue::Utf8(_)), Some(PgType::Text)) => type_name(&DataType::Null),
        (_, Some(ty @ (PgType::Uuid | PgType::Json | PgType::Jsonb | PgType::Name))) => ty.to_string(),
        (_, Some(PgType::Varchar(_))) => PgType::Varchar(None).to_string(),
        _ => type_name(field.data_type()),
    };
    let types: Vec<String> = args.arg_fields.iter().zip(args.scalar_arguments).skip(1).map(typed).collect();
    Err(raise(no_function_of(name, &types)))
}
