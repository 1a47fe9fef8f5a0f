//! DataFusion's array functions that count in `bigint` where PostgreSQL counts in `integer`; an empty array has no
//! length in PostgreSQL.

use arrow::array::{AsArray, Int32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};
use std::sync::Arc;

const NAMES: &[&str] = &["array_length", "array_ndims", "array_position", "cardinality", "levenshtein"];

/// `function`, or its narrow form if it is one of these.
pub fn narrowed(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match NAMES.contains(&function.name()) {
        true => Arc::new(ScalarUDF::new_from_impl(Narrowed { inner: function })),
        false => function,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Narrowed {
    inner: Arc<ScalarUDF>,
}

impl Narrowed {
    fn null_if_empty(&self) -> bool {
        matches!(self.inner.name(), "array_length" | "array_ndims")
    }
}

impl ScalarUDFImpl for Narrowed {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let field = args.return_field.as_ref().clone().with_data_type(self.inner.return_type(&types)?);
        match self.inner.invoke_with_args(ScalarFunctionArgs { return_field: Arc::new(field), ..args })? {
            ColumnarValue::Array(array) => {
                let narrow = cast(&array, &DataType::Int32)?;
                if !self.null_if_empty() {
                    return Ok(ColumnarValue::Array(narrow));
                }
                let lengths: Int32Array =
                    narrow.as_primitive::<Int32Type>().iter().map(|length| length.filter(|n| *n != 0)).collect();
                Ok(ColumnarValue::Array(Arc::new(lengths)))
            }
            ColumnarValue::Scalar(value) => {
                let narrow: ScalarValue = value.cast_to(&DataType::Int32)?;
                Ok(ColumnarValue::Scalar(match narrow {
                    ScalarValue::Int32(Some(0)) if self.null_if_empty() => ScalarValue::Int32(None),
                    narrow => narrow,
                }))
            }
        }
    }
}
