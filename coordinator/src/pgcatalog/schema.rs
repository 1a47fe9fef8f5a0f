//! The relations there are: PostgreSQL 15's catalogs and views with their recorded OIDs and columns, and TimescaleDB's
//! views. Relations nobody fills answer with no rows and the right columns.

use super::value::{Row, Value};
use engine::PgType;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// `oid, schema, name, relkind, column:type[!],…` one relation a line; `!` is NOT NULL. Recorded from PostgreSQL 15.
const POSTGRES: &str = include_str!("data/relations.tsv");
/// The same for TimescaleDB's views, after its documentation of 2.13 and of the 2.0 betas.
const TIMESCALE: &str = include_str!("data/timescale.tsv");
/// Rows that never change: sections `= relation`, then rows in COPY text format. Recorded from PostgreSQL 15.
const ROWS: &str = include_str!("data/rows.tsv");
/// `word category label` of PostgreSQL 15's key words.
pub(crate) const KEYWORDS: &str = include_str!("data/keywords.txt");

pub(crate) const PG_CATALOG: &str = "pg_catalog";

#[derive(Debug, PartialEq)]
pub(crate) struct RelationDef {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub kind: char,
    pub columns: Vec<CatalogColumn>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct CatalogColumn {
    pub name: String,
    pub ty: PgType,
    pub not_null: bool,
}

impl RelationDef {
    pub(crate) fn index_of(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|candidate| candidate.name == column)
    }
}

static RELATIONS: LazyLock<Vec<Arc<RelationDef>>> = LazyLock::new(|| {
    let lines = POSTGRES.lines().chain(TIMESCALE.lines()).filter(|line| !line.is_empty());
    lines.map(|line| Arc::new(parse_relation(line).expect("embedded relations are well formed"))).collect()
});

static BY_NAME: LazyLock<HashMap<(&'static str, &'static str), Arc<RelationDef>>> =
    LazyLock::new(|| RELATIONS.iter().map(|def| ((def.schema.as_str(), def.name.as_str()), def.clone())).collect());

pub(crate) fn relations() -> &'static [Arc<RelationDef>] {
    &RELATIONS
}

/// A bare name is looked for in `pg_catalog` only, which stands before every search path.
pub(crate) fn find(schema: Option<&str>, name: &str) -> Option<Arc<RelationDef>> {
    BY_NAME.get(&(schema.unwrap_or(PG_CATALOG), name)).cloned()
}

/// Schemas that are shown once the extension is there. What is in them answers before, too.
pub(crate) fn comes_with_timescaledb(schema: &str) -> bool {
    schema.starts_with("timescaledb_") || schema == "seriatim_information"
}

/// Schemas in which every name is ours: an unknown relation there is an empty one.
pub(crate) fn is_system_schema(schema: &str) -> bool {
    matches!(
        schema,
        "pg_catalog"
            | "information_schema"
            | "seriatim_information"
            | "timescaledb_information"
            | "timescaledb_experimental"
    ) || schema.starts_with("_timescaledb_") && schema != "_timescaledb_internal"
}

fn parse_relation(line: &str) -> Option<RelationDef> {
    let mut parts = line.split('\t');
    let (oid, schema, name, kind) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let columns = split_columns(parts.next()?).map(|column| {
        let (name, ty) = column.split_once(':')?;
        let (ty, not_null) = ty.strip_suffix('!').map_or((ty, false), |ty| (ty, true));
        Some(CatalogColumn { name: name.to_owned(), ty: catalog_type(ty), not_null })
    });
    Some(RelationDef {
        oid: oid.parse().ok()?,
        schema: schema.to_owned(),
        name: name.to_owned(),
        kind: kind.chars().next()?,
        columns: columns.collect::<Option<_>>()?,
    })
}

/// Commas inside a type's parentheses do not end a column.
fn split_columns(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c: char| {
        depth += (c == '(') as i32 - (c == ')') as i32;
        c == ',' && depth == 0
    })
}

/// Types that exist for the catalogs alone (`aclitem`, `pg_node_tree`, `pg_lsn`, …) are served as text.
fn catalog_type(name: &str) -> PgType {
    if let Some(ty) = PgType::parse(name) {
        return ty;
    }
    match name {
        "timestamp(2) with time zone" => PgType::Timestamptz,
        array if array.ends_with("[]") => PgType::Array(Box::new(catalog_type(&array[..array.len() - 2]))),
        _ => PgType::Text,
    }
}

/// The recorded rows of one relation, each shorter than the relation where a section lists only its first columns.
pub(crate) fn static_rows(relation: &str) -> impl Iterator<Item = Vec<&'static str>> {
    let mut lines = ROWS.lines();
    let wanted = relation.to_owned();
    lines.find(|line| line.strip_prefix("= ") == Some(wanted.as_str()));
    lines.take_while(|line| !line.starts_with("= ")).map(|line| line.split('\t').collect())
}

/// Builds rows of one relation by column name: what is not said is the type's empty value, or NULL where it may be.
pub(crate) struct Filler {
    def: Arc<RelationDef>,
    empty: Row,
    index: HashMap<String, usize>,
}

impl Filler {
    pub(crate) fn new(def: Arc<RelationDef>) -> Filler {
        let empty = def.columns.iter().map(|column| if column.not_null { zero(&column.ty) } else { Value::Null });
        let empty = empty.collect();
        let index = def.columns.iter().enumerate().map(|(i, column)| (column.name.clone(), i)).collect();
        Filler { def, empty, index }
    }

    pub(crate) fn row<const N: usize>(&self, values: [(&str, Value); N]) -> Row {
        let mut row = self.empty.clone();
        for (name, value) in values {
            self.set(&mut row, name, value);
        }
        row
    }

    pub(crate) fn set(&self, row: &mut Row, name: &str, value: Value) {
        let index = self.index.get(name).unwrap_or_else(|| panic!("{} has no column {name}", self.def.name));
        row[*index] = value;
    }
}

fn zero(ty: &PgType) -> Value {
    match ty {
        PgType::Bool => Value::Bool(false),
        PgType::Float4 | PgType::Float8 => Value::Float(0.0),
        PgType::Array(_) | PgType::Int2Vector | PgType::OidVector => Value::array([]),
        ty if is_integer(ty) => Value::Int(0),
        _ => Value::text(""),
    }
}

/// Types whose values are `Value::Int`.
pub(crate) fn is_integer(ty: &PgType) -> bool {
    matches!(ty, PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Oid | PgType::Xid) || is_reg(ty)
}

/// Types that are an OID inside and a name in text.
pub(crate) fn is_reg(ty: &PgType) -> bool {
    matches!(ty, PgType::Regclass | PgType::Regtype | PgType::Regproc | PgType::Regnamespace | PgType::Regrole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_relations_have_their_columns_in_order() {
        let class = find(None, "pg_class").unwrap();
        assert_eq!((class.oid, class.columns.len()), (1259, 33));
        assert_eq!(class.columns[1].name, "relname");
        let columns = find(Some("information_schema"), "columns").unwrap();
        assert_eq!(columns.columns.len(), 44);
        assert_eq!(columns.columns[6].ty, PgType::Varchar(Some(3)), "is_nullable");
    }

    #[test]
    fn recorded_rows_are_found_by_section() {
        assert_eq!(static_rows("pg_am").count(), 7);
        assert!(static_rows("pg_type").any(|row| row[1] == "timestamptz"));
        assert_eq!(static_rows("no such relation").count(), 0);
    }
}
