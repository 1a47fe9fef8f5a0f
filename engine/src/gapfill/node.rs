//! The logical node: an aggregation's rows go in, sorted or not, and come out with their gaps filled. Its constants are
//! expressions still, so that parameters and `now()` find their way into them.

use super::filling::{Fill, output};
use datafusion::common::{DFSchema, DFSchemaRef, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapFill {
    pub input: LogicalPlan,
    pub time: usize,
    pub groups: Vec<usize>,
    pub fills: Vec<Fill>,
    pub width: Expr,
    pub zone: Option<Expr>,
    /// The tightest of them counts.
    pub start: Vec<Bound>,
    pub finish: Vec<Bound>,
    schema: DFSchemaRef,
}

/// A bound on the time, as `>=` or `<` would have it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bound {
    pub value: Expr,
    /// It was written with `>` or `<=`: one step further.
    pub next: bool,
}

impl GapFill {
    /// # Errors
    /// When names of columns collide.
    pub fn new(
        input: LogicalPlan,
        time: usize,
        groups: Vec<usize>,
        width: Expr,
        zone: Option<Expr>,
    ) -> Result<GapFill> {
        let schema = schema_of(&input, &[])?;
        let (fills, start, finish) = Default::default();
        Ok(GapFill { input, time, groups, fills, width, zone, start, finish, schema })
    }

    /// The same over another input, whose first columns are those of this one's.
    ///
    /// # Errors
    /// When names of columns collide.
    pub fn over(self, input: LogicalPlan, fills: Vec<Fill>) -> Result<GapFill> {
        let schema = schema_of(&input, &fills)?;
        Ok(GapFill { input, fills, schema, ..self })
    }
}

fn schema_of(input: &LogicalPlan, fills: &[Fill]) -> Result<DFSchemaRef> {
    let filled = output(input.schema().as_arrow(), fills);
    let qualifiers = input.schema().iter().map(|(qualifier, _)| qualifier.cloned()).chain(std::iter::repeat(None));
    let fields = qualifiers.zip(filled.fields().iter().cloned()).collect();
    Ok(Arc::new(DFSchema::new_with_metadata(fields, filled.metadata().clone())?))
}

impl Hash for GapFill {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.input, self.time, &self.groups, &self.fills, &self.width, &self.zone).hash(state);
        (&self.start, &self.finish).hash(state);
    }
}

impl PartialOrd for GapFill {
    fn partial_cmp(&self, other: &GapFill) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for GapFill {
    fn name(&self) -> &str {
        "GapFill"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let bounds = self.start.iter().chain(&self.finish).map(|bound| &bound.value);
        std::iter::once(&self.width).chain(&self.zone).chain(bounds).cloned().collect()
    }

    /// A condition on a key that all rows of a series share holds for none of them or for all; on others it must wait
    /// until the gaps are filled.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let columns = self.schema.fields().iter().enumerate();
        columns.filter(|(index, _)| !self.groups.contains(index)).map(|(_, field)| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "GapFill: width={}", self.width)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<GapFill> {
        assert_eq!(inputs.len(), 1, "a GapFill has one input");
        let mut exprs = exprs.into_iter();
        let mut next = || exprs.next().expect("as many expressions as there were");
        let width = next();
        let zone = self.zone.as_ref().map(|_| next());
        let mut bounds = |old: &[Bound]| old.iter().map(|bound| Bound { value: next(), ..*bound }).collect();
        let (start, finish) = (bounds(&self.start), bounds(&self.finish));
        let changed = GapFill { width, zone, start, finish, ..self.clone() };
        changed.over(inputs.swap_remove(0), self.fills.clone())
    }

    fn necessary_children_exprs(&self, _: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }
}
