//! Which names exist, and what answers them. Nothing outside these lists can be called: DataFusion has functions that
//! PostgreSQL has not, and some that show its insides.

use super::{
    arithmetic, avg, bookend, cast, clock, date_arithmetic, date_makers, date_parts, extremes, gapfill, histogram,
    math, narrowed, numeric_digits, ordered_set, overlaps, regexp, series, spread, substring, sum, text, time_bucket,
    to_char, typed_text, undefined,
};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{AggregateUDF, Expr, ScalarUDF, WindowUDF};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// DataFusion's functions that answer as PostgreSQL does.
#[rustfmt::skip]
const SCALARS: &[&str] = &[
    // math
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "atan2", "cbrt", "cos", "cosh", "cot", "degrees",
    "factorial", "gcd", "lcm", "pi", "radians", "signum", "sin", "sinh", "tan", "tanh",
    // text
    "ascii", "bit_length", "btrim", "chr", "initcap", "left", "character_length", "levenshtein", "lower", "lpad", "ltrim",
    "md5", "octet_length", "overlay", "regexp_count", "regexp_like", "regexp_match", "repeat", "replace",
    "reverse", "right", "rpad", "rtrim", "sha224", "sha256", "sha384", "sha512", "split_part", "starts_with", "strpos",
    "to_hex", "translate", "upper", "encode", "decode",
    // conditions
    "coalesce", "greatest", "least", "nullif",
    // arrays
    "array_append", "array_cat", "array_concat", "array_dims", "array_element", "array_has", "array_has_all",
    "array_has_any", "array_length", "array_max", "array_min", "array_ndims", "array_position", "array_positions",
    "array_prepend", "array_remove", "array_remove_all", "array_replace_all", "array_slice", "array_to_string",
    "cardinality", "make_array", "string_to_array", "array_distinct", "array_any_value", "array_sort",
    // the planner itself calls these
    "get_field", "named_struct", "struct",
];

#[rustfmt::skip]
const AGGREGATES: &[&str] = &[
    "array_agg", "bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "corr", "count", "covar_pop", "covar_samp",
    "first_value", "grouping", "last_value", "nth_value", "percentile_cont", "regr_avgx", "regr_avgy",
    "regr_count", "regr_intercept", "regr_r2", "regr_slope", "regr_sxx", "regr_sxy", "regr_syy", "string_agg",
];

#[rustfmt::skip]
const WINDOWS: &[&str] = &[
    "row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead", "first_value", "last_value",
    "nth_value",
];

pub static FUNCTIONS: LazyLock<Registry> = LazyLock::new(Registry::new);

/// All functions of the process.
pub struct Registry {
    scalars: HashMap<String, Arc<ScalarUDF>>,
    aggregates: HashMap<String, Arc<AggregateUDF>>,
    windows: HashMap<String, Arc<WindowUDF>>,
    /// DataFusion's first: where one of its aliases is the name of one of ours, the later registration wins.
    scalars_in_order: Vec<Arc<ScalarUDF>>,
    aggregates_in_order: Vec<Arc<AggregateUDF>>,
}

impl Registry {
    fn new() -> Registry {
        let theirs = SessionStateDefaults::default_scalar_functions();
        let theirs = theirs.into_iter().filter(|function| SCALARS.contains(&function.name())).map(narrowed::narrowed);
        let ours = [
            arithmetic::functions(),
            cast::functions(),
            clock::functions(),
            date_arithmetic::functions(),
            date_makers::functions(),
            date_parts::functions(),
            gapfill::functions(),
            math::functions(),
            numeric_digits::functions(),
            overlaps::functions(),
            regexp::functions(),
            series::functions(),
            substring::functions(),
            text::functions(),
            time_bucket::functions(),
            to_char::functions(),
            typed_text::functions(),
            undefined::functions(),
        ];
        let scalars_in_order: Vec<Arc<ScalarUDF>> = theirs.chain(ours.into_iter().flatten()).collect();
        let theirs = SessionStateDefaults::default_aggregate_functions();
        let theirs = theirs.into_iter().filter(|function| AGGREGATES.contains(&function.name()));
        let ours = [
            avg::functions(),
            bookend::functions(),
            extremes::functions(),
            histogram::functions(),
            ordered_set::functions(),
            spread::functions(),
            sum::functions(),
        ];
        let theirs = theirs.map(|function| match function.name() {
            "bool_and" => Arc::new(function.as_ref().clone().with_aliases(["every"])),
            _ => function,
        });
        let aggregates_in_order: Vec<Arc<AggregateUDF>> = theirs.chain(ours.into_iter().flatten()).collect();
        let mut windows = HashMap::new();
        for function in SessionStateDefaults::default_window_functions() {
            if WINDOWS.contains(&function.name()) {
                windows.insert(function.name().to_owned(), function);
            }
        }
        Registry {
            scalars: by_name(&scalars_in_order, |function| (function.name(), function.aliases())),
            aggregates: by_name(&aggregates_in_order, |function| (function.name(), function.aliases())),
            windows,
            scalars_in_order,
            aggregates_in_order,
        }
    }

    /// Is the name a window function's, which needs an OVER?
    pub fn is_window(&self, name: &str) -> bool {
        self.windows.contains_key(name)
    }

    pub fn scalar(&self, name: &str) -> Option<&Arc<ScalarUDF>> {
        self.scalars.get(name)
    }

    pub fn aggregate(&self, name: &str) -> Option<&Arc<AggregateUDF>> {
        self.aggregates.get(name)
    }

    pub fn scalars(&self) -> Vec<Arc<ScalarUDF>> {
        self.scalars_in_order.clone()
    }

    pub fn aggregates(&self) -> Vec<Arc<AggregateUDF>> {
        self.aggregates_in_order.clone()
    }

    pub fn windows(&self) -> Vec<Arc<WindowUDF>> {
        self.windows.values().map(Arc::clone).collect()
    }

    /// By every name they answer to, as a `TaskContext` wants them.
    pub fn scalars_by_name(&self) -> &HashMap<String, Arc<ScalarUDF>> {
        &self.scalars
    }

    pub fn aggregates_by_name(&self) -> &HashMap<String, Arc<AggregateUDF>> {
        &self.aggregates
    }

    pub fn windows_by_name(&self) -> &HashMap<String, Arc<WindowUDF>> {
        &self.windows
    }
}

fn by_name<T>(functions: &[Arc<T>], names: impl Fn(&T) -> (&str, &[String])) -> HashMap<String, Arc<T>> {
    let mut found = HashMap::new();
    for function in functions {
        let (name, aliases) = names(function);
        for name in std::iter::once(name).chain(aliases.iter().map(String::as_str)) {
            found.insert(name.to_owned(), Arc::clone(function));
        }
    }
    found
}

/// A call of one of our own functions.
///
/// # Panics
/// When the name is not registered: names here are constants of this crate.
pub fn call(name: &str, args: Vec<Expr>) -> Expr {
    let function = FUNCTIONS.scalar(name).expect("functions called by the planner are registered");
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(function), args))
}
