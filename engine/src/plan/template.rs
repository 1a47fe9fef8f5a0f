//! Plans that are used again. Planning a small query costs more than running it, and what differs from one run to the
//! next are mostly constants that columns are compared with. A [`Template`] is a physical plan made with the values of
//! one run; these constants are marked (`parameter`), so that another run puts its own in their places, excludes chunks
//! anew, and takes the cut plan and its bytes as they are when the same chunks are left.
//!
//! What is true of a plan only because of a value must not be in a template. So `marks` chooses few constants; each must be
//! found again in a filter of the finished plan and nowhere else, for an optimizer that made use of a value has replaced
//! it; all other parameters and settings that planning depends on are part of what a template is looked up by.

use super::bounds;
use super::context::{Relation, RelationName, Scope};
use super::exchange::{RemoteExec, Run};
use super::fragment::{can_travel, fragment, ids_on};
use super::light::{Load, narrow};
use super::marks::{Marks, values_of};
use super::parameter;
use super::scan::{ChunkScan, ScanSource};
use super::shards::home;
use crate::{ChunkDef, Settings};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use parking_lot::Mutex;
use proto::{ColumnPredicate, NodeName, ScanChunks};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

type Plan = Arc<dyn ExecutionPlan>;

/// Of one statement; under other settings, or with other values of parameters that are not exchanged, it has another.
const TEMPLATES_MAX: usize = 2;
/// Of one template, for other sets of chunks.
const CUTS_MAX: usize = 3;
/// Making one costs a planning; a statement that is run once shall not pay for it.
const RUNS_BEFORE: u32 = 1;
/// A statement that cannot have one is not tried for ever.
const TRIES_MAX: u32 = 8;

/// The templates of one statement.
#[derive(Default)]
pub(super) struct Templates {
    runs: AtomicU32,
    tries: AtomicU32,
    /// The last used first.
    made: Mutex<Vec<Arc<Template>>>,
}

pub(super) struct Template {
    time_zone: String,
    /// `current_user` in a view is a constant of the plan.
    user: String,
    push_down: bool,
    /// Values of parameters that the plan was made for.
    fixed: Vec<(usize, ScalarValue)>,
    /// What gives the values of the marked constants.
    exchanged: Vec<Expr>,
    /// Not cut yet.
    plan: Plan,
    scans: Vec<Scan>,
    /// The last used first.
    cuts: Mutex<Vec<Arc<Cut>>>,
}

/// One scan of a template.
struct Scan {
    number: u32,
    relation: RelationName,
    filters: Vec<Expr>,
}

/// A template's plan for chunks at certain places.
struct Cut {
    places: Places,
    plan: Plan,
    /// The same in one partition.
    narrow: OnceLock<Plan>,
    /// What its last runs have read.
    load: Arc<Load>,
}

/// Where chunks lie, as far as the cut of a plan depends on it.
enum Places {
    /// All on one node.
    One(NodeName),
    /// By scan.
    Chunks(Vec<Vec<Arc<ChunkDef>>>),
}

/// A plan to be run once.
pub(super) struct Instance {
    pub plan: Plan,
    /// It is expected to read little, and has one partition.
    pub light: bool,
}

impl Templates {
    /// The template for this run, with the values of its marked constants.
    pub fn find(&self, params: &[ScalarValue], scope: &Scope) -> Option<(Arc<Template>, Vec<ScalarValue>)> {
        let settings = &scope.context.settings;
        let mut made = self.made.lock();
        let found = made.iter().position(|template| template.is_for(params, settings))?;
        let template = made.remove(found);
        made.insert(0, Arc::clone(&template));
        drop(made);
        let values = values_of(&template.exchanged, params, settings)?;
        Some((template, values))
    }

    /// Of a statement that is known to come again.
    pub fn expected() -> Templates {
        Templates { runs: AtomicU32::new(RUNS_BEFORE), ..Templates::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.made.lock().is_empty()
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.made.lock().len()
    }

    /// Whether this run, which is planned, should leave one.
    pub fn is_wanted(&self) -> bool {
        self.runs.fetch_add(1, Ordering::Relaxed) >= RUNS_BEFORE
            && self.tries.fetch_add(1, Ordering::Relaxed) < TRIES_MAX
    }

    pub fn keep(&self, template: Arc<Template>) {
        // One that is good for its own values only may be the first of many.
        if template.fixed.is_empty() {
            self.tries.store(0, Ordering::Relaxed);
        }
        let mut made = self.made.lock();
        made.insert(0, template);
        made.truncate(TEMPLATES_MAX);
    }
}

impl Template {
    /// `None` when the finished plan shows that it depends on a value.
    pub fn new(plan: Plan, marks: Marks, settings: &Settings) -> Option<Template> {
        let (mut scans, mut found) = (Vec::new(), BTreeSet::new());
        let mut fits = true;
        let look = plan.apply(|node| {
            if let Some(scan) = node.downcast_ref::<ChunkScan>() {
                let source = scan.source.as_ref().expect("the coordinator's scans know their chunks");
                let (relation, filters) = (source.relation.clone(), source.filters.clone());
                scans.push(Scan { number: scan.scan, relation, filters });
                return Ok(TreeNodeRecursion::Continue);
            }
            let in_filter = node.is::<FilterExec>();
            fits &= can_travel(node.name());
            node.apply_expressions(&mut |expr| {
                let numbers = parameter::numbers(expr);
                fits &= in_filter || numbers.is_empty();
                found.extend(numbers);
                Ok(TreeNodeRecursion::Continue)
            })
        });
        // With several scans a mark may be lost in one arm and be found in another; and joins learn before they leave.
        let fits = look.is_ok() && fits && scans.len() <= 1 && found.len() == marks.exchanged.len();
        fits.then(|| Template {
            time_zone: settings.time_zone.clone(),
            user: settings.user.clone(),
            push_down: settings.push_down,
            fixed: marks.fixed,
            exchanged: marks.exchanged,
            plan,
            scans,
            cuts: Mutex::default(),
        })
    }

    fn is_for(&self, params: &[ScalarValue], settings: &Settings) -> bool {
        self.time_zone == settings.time_zone
            && self.user == settings.user
            && self.push_down == settings.push_down
            && self.fixed.iter().all(|(position, value)| params.get(*position) == Some(value))
    }

    /// The plan of one run, cut. `None` when a relation is not the table it was.
    pub fn instance(&self, values: &[ScalarValue], scope: &Scope, options: &ConfigOptions) -> Result<Option<Instance>> {
        let mut sources = BTreeMap::new();
        for scan in &self.scans {
            let Some(Relation::Table { def, chunks }) = scope.relation(&scan.relation) else { return Ok(None) };
            let filters = scan.filters.iter().map(|filter| parameter::valued(filter, values));
            let filters = filters.collect::<Result<Vec<_>>>()?;
            let predicates = bounds::predicates(&def, &filters);
            let surviving = bounds::surviving(&def, &chunks, &predicates);
            let relation = scan.relation.clone();
            let source = ScanSource { table: def, relation, chunks: surviving, chunks_total: chunks.len(), filters };
            sources.insert(scan.number, (source, predicates));
        }
        let cut = self.cut(&sources, scope, options)?;
        let encoded = parameter::encode(values)?;
        let chunks = |scan: u32, node: &NodeName| {
            let (source, predicates) = &sources[&scan];
            ScanChunks { scan, chunks: ids_on(&source.chunks, node), predicates: predicates.clone() }
        };
        let light = cut.load.is_light(sources.values().map(|(source, _)| most_on_a_node(&source.chunks)).sum());
        let run = Run { values: &encoded, chunks: &chunks, narrow: light, load: &cut.load };
        let leaf = &mut |leaf: &Plan| {
            let remote = leaf.downcast_ref::<RemoteExec>();
            Ok(remote.map(|remote| Arc::new(remote.again(&run)) as Plan))
        };
        let plan = if light { cut.narrow()? } else { &cut.plan };
        Ok(Some(Instance { plan: parameter::instance(plan, &values, leaf)?, light }))
    }

    fn cut(
        &self,
        sources: &BTreeMap<u32, (ScanSource, Vec<ColumnPredicate>)>,
        scope: &Scope,
        options: &ConfigOptions,
    ) -> Result<Arc<Cut>> {
        let places = Places::of(sources.values().map(|(source, _)| &source.chunks));
        let mut cuts = self.cuts.lock();
        if let Some(found) = cuts.iter().position(|cut| cut.places.same(&places)) {
            let cut = cuts.remove(found);
            cuts.insert(0, Arc::clone(&cut));
            return Ok(cut);
        }
        drop(cuts);
        let placed = Arc::clone(&self.plan).transform_up(|node| {
            let Some(scan) = node.downcast_ref::<ChunkScan>() else { return Ok(Transformed::no(node)) };
            let (source, predicates) = &sources[&scan.scan];
            let scan = scan.clone().with_source(source.clone(), predicates.clone());
            Ok(Transformed::yes(Arc::new(scan) as Plan))
        })?;
        let plan = fragment(placed.data, scope, options)?;
        let cut = Arc::new(Cut { places, plan, narrow: OnceLock::new(), load: Arc::default() });
        let mut cuts = self.cuts.lock();
        cuts.insert(0, Arc::clone(&cut));
        cuts.truncate(CUTS_MAX);
        Ok(cut)
    }
}

impl Cut {
    fn narrow(&self) -> Result<&Plan> {
        if self.narrow.get().is_none() {
            // Whoever comes second made the same.
            self.narrow.set(narrow(Arc::clone(&self.plan))?).ok();
        }
        Ok(self.narrow.get().expect("it was just made"))
    }
}

impl Places {
    fn of<'a>(scans: impl Iterator<Item = &'a Vec<Arc<ChunkDef>>>) -> Places {
        let scans = scans.collect::<Vec<_>>();
        let mut homes = scans.iter().flat_map(|chunks| chunks.iter()).map(|chunk| home(chunk));
        let first = homes.next().filter(|_| scans.iter().all(|chunks| !chunks.is_empty()));
        match first {
            Some(first) if homes.all(|home| home == first) => Places::One(first.clone()),
            _ => Places::Chunks(scans.into_iter().cloned().collect()),
        }
    }

    fn same(&self, other: &Places) -> bool {
        let same = |(a, b): (&Arc<ChunkDef>, &Arc<ChunkDef>)| Arc::ptr_eq(a, b) || (a.id == b.id && a.nodes == b.nodes);
        let all = |(a, b): (&Vec<_>, &Vec<_>)| a.len() == b.len() && a.iter().zip(b).all(same);
        match (self, other) {
            (Places::One(a), Places::One(b)) => a == b,
            (Places::Chunks(a), Places::Chunks(b)) => a.len() == b.len() && a.iter().zip(b).all(all),
            _ => false,
        }
    }
}

/// How many chunks lie on the node that has most of them.
fn most_on_a_node(chunks: &[Arc<ChunkDef>]) -> usize {
    let mut counts = BTreeMap::<_, usize>::new();
    chunks.iter().for_each(|chunk| *counts.entry(home(chunk)).or_default() += 1);
    counts.into_values().max().unwrap_or(0)
}
