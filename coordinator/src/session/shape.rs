//! Statements of one shape: queries that differ in the constants of their conditions only, as a dashboard sends them, or
//! a client that puts values into the text; or that have parameters of their own and are prepared again and again. Their
//! plan is made once, with parameters in the place of these constants, and is shared by all sessions: such a statement is
//! neither parsed nor planned again.
//!
//! A constant is exchanged only where a parameter means the same: in WHERE, beside a column, when the type the planner
//! gives the parameter reads the constant's text as PostgreSQL would. All others are part of what a shape is found by.
//! When a relation is not what it was, the shape is forgotten: a parameter might have another type.

use super::parse::{Command, Parsed};
use super::query::{self, QueryPlan};
use super::{Session, write};
use crate::catalog::CatalogState;
use crate::pg::backend::OutputColumn;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Select, Statement, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};
use engine::PgType;
use engine::types::{TimeContext, parse_scalar};
use lru::LruCache;
use parking_lot::Mutex;
use proto::{Error, Result};
use std::fmt::{self, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};

/// Shapes that are remembered.
const SHAPES_MAX: NonZeroUsize = NonZeroUsize::new(256).expect("it is not zero");
/// Of one shape, with other constants that are not exchanged.
const VARIANTS_MAX: usize = 4;
/// Longer texts are parsed.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// What all sessions know of shapes.
pub(super) struct Shapes(Mutex<LruCache<String, Known>>);

enum Known {
    /// It came once: a statement that never comes again is not worth more.
    Seen,
    Learned(Vec<Arc<Shape>>),
    /// It cannot be shared.
    Refused,
}

pub(super) struct Shape {
    /// With parameters.
    pub parsed: Arc<Parsed>,
    pub plan: Arc<QueryPlan>,
    pub columns: Arc<[OutputColumn]>,
    /// The types a client declared for parameters of its own; such a statement's constants are all fixed.
    declared: Vec<Option<PgType>>,
    /// Which constants its parameters stand for, and their types.
    exchanged: Vec<(usize, PgType)>,
    /// The other constants.
    fixed: Vec<(usize, String)>,
    /// The catalog under which its relations were last what they were when it was made.
    valid_under: Mutex<Weak<CatalogState>>,
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shape").field("exchanged", &self.exchanged).field("fixed", &self.fixed).finish_non_exhaustive()
    }
}

/// A statement as it was met: the shapes it may have, by the types of its parameters, and its constants.
#[derive(Debug)]
pub struct Sighting {
    key: String,
    constants: Vec<Constant>,
    shapes: Vec<Arc<Shape>>,
    worth_learning: bool,
    /// It has parameters of its own.
    parameterised: bool,
    /// Characters before it in the query string.
    offset: u32,
}

#[derive(Debug)]
struct Constant {
    text: String,
    at: Location,
    number: bool,
}

impl Default for Shapes {
    fn default() -> Self {
        Shapes(Mutex::new(LruCache::new(SHAPES_MAX)))
    }
}

/// `None` for what is not one query.
pub(super) fn sight(session: &Session, sql: &str) -> Option<Sighting> {
    if sql.len() > TEXT_BYTES_MAX || !begins_as_query(sql) {
        return None;
    }
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location().ok()?;
    let user = session.current_user();
    let path = session.variables.search_path(user).join(",");
    let mut key = format!("{}\0{user}\0{path}\0{}\0", session.database, session.variables.raw("TimeZone"));
    let (mut constants, mut ended, mut parameterised) = (Vec::new(), false, false);
    for token in &tokens {
        let constant = |text: &str, number| Constant { text: text.to_owned(), at: token.span.start, number };
        match &token.token {
            Token::EOF => break,
            Token::SemiColon => ended = true,
            Token::Whitespace(_) => key.push(' '),
            _ if ended => return None,
            Token::SingleQuotedString(text) => {
                constants.push(constant(text, false));
                key.push_str("?s");
            }
            Token::Number(text, false) => {
                constants.push(constant(text, true));
                key.push_str("?n");
            }
            other => {
                parameterised |= matches!(other, Token::Placeholder(_));
                // As it is told apart from all others, not as it was written: quotes within quotes would look alike.
                write!(key, "{other:?}").ok()?;
            }
        }
    }
    let mut known = session.front.shapes.0.lock();
    let (shapes, worth_learning) = match known.get(&key) {
        None => {
            known.put(key.clone(), Known::Seen);
            (Vec::new(), false)
        }
        Some(Known::Seen) => (Vec::new(), true),
        Some(Known::Refused) => return None,
        Some(Known::Learned(shapes)) => {
            (shapes.iter().filter(|shape| shape.is_of(&constants)).cloned().collect(), true)
        }
    };
    drop(known);
    let offset = (sql.chars().count() - sql.trim_start().chars().count()) as u32;
    Some(Sighting { key, constants, shapes, worth_learning, parameterised, offset })
}

fn begins_as_query(sql: &str) -> bool {
    let sql = sql.trim_start().as_bytes();
    [&b"select"[..], b"with"].iter().any(|word| sql.get(..word.len()).is_some_and(|w| w.eq_ignore_ascii_case(word)))
}

impl Shape {
    /// Whether its relations are what they were when it was made.
    pub async fn is_valid(&self, session: &mut Session) -> bool {
        let catalog = session.catalog().await;
        if self.valid_under.lock().upgrade().is_some_and(|known| Arc::ptr_eq(&known, &catalog)) {
            return true;
        }
        let valid = query::is_current(session, &catalog, &self.plan).await;
        if valid {
            *self.valid_under.lock() = Arc::downgrade(&catalog);
        }
        valid
    }

    fn is_of(&self, constants: &[Constant]) -> bool {
        self.fixed.iter().all(|(place, text)| constants.get(*place).is_some_and(|constant| constant.text == *text))
    }
}

impl Sighting {
    /// One whose statement stands for this one.
    pub fn any_shape(&self) -> Option<&Arc<Shape>> {
        self.shapes.first()
    }

    pub fn shape(&self, declared: &[Option<PgType>]) -> Option<&Arc<Shape>> {
        self.shapes.iter().find(|shape| shape.declared == declared)
    }

    /// Whether the shape's relations are what they were. If not, it is forgotten.
    pub async fn is_valid(&self, session: &mut Session, shape: &Arc<Shape>) -> bool {
        let valid = shape.is_valid(session).await;
        if !valid {
            session.front.shapes.0.lock().pop(&self.key);
        }
        valid
    }

    /// As [`Parsed::locate`].
    pub fn locate(&self, text: &str, error: Error) -> Error {
        let command = Command::Maintenance { tag: "" };
        Parsed { command, text: text.to_owned(), offset: self.offset, sighting: None }.locate(error)
    }

    pub fn is_parameterised(&self) -> bool {
        self.parameterised
    }

    /// The values of the shape's parameters; `None` when a constant is none of its type's: parsing it will tell.
    pub fn values(&self, shape: &Shape, context: &TimeContext) -> Option<Arc<[ScalarValue]>> {
        let value = |(place, ty): &(usize, PgType)| parse_scalar(ty, &self.constants.get(*place)?.text, context).ok();
        shape.exchanged.iter().map(value).collect::<Option<Vec<_>>>().map(Into::into)
    }

    /// Makes a shape of the statement, the second time one of it comes.
    pub async fn learn(
        &self,
        session: &mut Session,
        parsed: &Parsed,
        declared: &[Option<PgType>],
    ) -> Option<Arc<Shape>> {
        if !self.worth_learning {
            return None;
        }
        let learned = self.learned(session, parsed, declared).await.ok()?;
        let mut known = session.front.shapes.0.lock();
        let Some(shape) = learned.map(Arc::new) else {
            if !matches!(known.get(&self.key), Some(Known::Learned(_))) {
                known.put(self.key.clone(), Known::Refused);
            }
            return None;
        };
        match known.get_mut(&self.key) {
            Some(Known::Learned(shapes)) => {
                shapes.insert(0, shape.clone());
                shapes.truncate(VARIANTS_MAX);
            }
            _ => {
                known.put(self.key.clone(), Known::Learned(vec![shape.clone()]));
            }
        }
        Some(shape)
    }

    /// `None` when its plan cannot be shared.
    ///
    /// # Errors
    /// Of the statement, which may be none another day.
    async fn learned(
        &self,
        session: &mut Session,
        parsed: &Parsed,
        declared: &[Option<PgType>],
    ) -> Result<Option<Shape>> {
        let Command::Sql(statement @ Statement::Query(_)) = &parsed.command else { return Ok(None) };
        // WITH … DELETE reads like a query.
        if write::Write::of(statement)?.is_some() {
            return Ok(None);
        }
        let mut statement = statement.clone();
        let mut exchange = Exchange { constants: &self.constants, exchanged: Vec::new() };
        if !self.parameterised {
            let _: ControlFlow<()> = statement.visit(&mut exchange);
        }
        let places = exchange.exchanged;
        let Some(plan) = query::prepare_shared(session, &statement, declared).await? else { return Ok(None) };
        let types = plan.params();
        if !self.parameterised && types.len() != places.len() {
            return Ok(None);
        }
        let exchanged = places.into_iter().zip(types).collect::<Vec<_>>();
        if !exchanged.iter().all(|(place, ty)| reads_alike(&self.constants[*place], ty)) {
            return Ok(None);
        }
        let is_fixed = |place: &usize| exchanged.iter().all(|(other, _)| other != place);
        let fixed = (0..self.constants.len()).filter(is_fixed);
        let fixed = fixed.map(|place| (place, self.constants[place].text.clone())).collect();
        let columns = plan.columns().into();
        let parsed = Parsed { command: Command::Sql(statement), ..parsed.clone() };
        let valid_under = Mutex::new(Weak::new());
        Ok(Some(Shape {
            parsed: Arc::new(parsed),
            plan: Arc::new(plan),
            columns,
            declared: declared.to_vec(),
            exchanged,
            fixed,
            valid_under,
        }))
    }
}

/// Whether a parameter of the type is what the constant would be beside the same column. Beside `real` a number is
/// compared as `double precision`; types with a length would cut the text or refuse it.
fn reads_alike(constant: &Constant, ty: &PgType) -> bool {
    match constant.number {
        true => match ty {
            PgType::Int2 | PgType::Int4 | PgType::Int8 => constant.text.bytes().all(|b| b.is_ascii_digit()),
            PgType::Float8 => true,
            _ => false,
        },
        false => matches!(
            ty,
            PgType::Text
                | PgType::Bool
                | PgType::Int2
                | PgType::Int4
                | PgType::Int8
                | PgType::Float8
                | PgType::Date
                | PgType::Timestamp
                | PgType::Timestamptz
                | PgType::Uuid
        ),
    }
}

/// Puts parameters in the place of constants.
struct Exchange<'a> {
    constants: &'a [Constant],
    /// By parameter: which constant.
    exchanged: Vec<usize>,
}

impl VisitorMut for Exchange<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if let Some(condition) = &mut select.selection {
            self.condition(condition);
        }
        ControlFlow::Continue(())
    }
}

impl Exchange<'_> {
    fn condition(&mut self, expr: &mut Expr) {
        use BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
        match expr {
            Expr::Nested(inner) => self.condition(inner),
            Expr::BinaryOp { left, op: And | Or, right } => {
                self.condition(left);
                self.condition(right);
            }
            Expr::BinaryOp { left, op: Eq | NotEq | Lt | LtEq | Gt | GtEq, right } => {
                if is_column(left) {
                    self.constant(right);
                } else if is_column(right) {
                    self.constant(left);
                }
            }
            Expr::Between { expr, low, high, .. } if is_column(expr) => {
                self.constant(low);
                self.constant(high);
            }
            Expr::InList { expr, list, .. } if is_column(expr) => {
                list.iter_mut().for_each(|value| self.constant(value))
            }
            _ => {}
        }
    }

    fn constant(&mut self, expr: &mut Expr) {
        let Expr::Value(ValueWithSpan { value: value @ (Value::SingleQuotedString(_) | Value::Number(..)), span }) =
            expr
        else {
            return;
        };
        if let Some(place) = self.constants.iter().position(|constant| constant.at == span.start) {
            self.exchanged.push(place);
            *value = Value::Placeholder(format!("${}", self.exchanged.len()));
        }
    }
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}
