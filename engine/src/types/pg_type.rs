//! The Postgres types Seriatim knows: OIDs, names, and the Arrow type that holds each.
//!
//! Several Postgres types share an Arrow type (text, varchar, uuid, jsonb are all Utf8). The field's metadata `pg.type`
//! names the Postgres type where the Arrow type alone does not; it survives projection, and where an expression loses
//! it the value falls back to the Arrow type's own Postgres type.

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Metadata key naming a field's Postgres type, in `format_type` spelling.
pub const PG_TYPE: &str = "pg.type";

/// Unconstrained `numeric`: 22 digits before the point and 16 after it.
const NUMERIC_PRECISION: u8 = 38;
const NUMERIC_SCALE: i8 = 16;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PgType {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// `(precision, scale)`; `None` is unconstrained.
    Numeric(Option<(u8, i8)>),
    Text,
    Varchar(Option<u32>),
    /// `character(n)`.
    Bpchar(Option<u32>),
    Name,
    /// The one-byte `"char"` of the catalogs.
    Char,
    Bytea,
    Uuid,
    Json,
    Jsonb,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Oid,
    Xid,
    Regclass,
    Regtype,
    Regproc,
    Regnamespace,
    Regrole,
    Int2Vector,
    OidVector,
    Void,
    Record,
    Unknown,
    Array(Box<PgType>),
}

/// `(type, oid, array oid, format_type name, pg_type.typname, typlen)`; array oid 0 where we serve none.
const TYPES: &[(PgType, u32, u32, &str, &str, i16)] = &[
    (PgType::Bool, 16, 1000, "boolean", "bool", 1),
    (PgType::Bytea, 17, 1001, "bytea", "bytea", -1),
    (PgType::Char, 18, 1002, "\"char\"", "char", 1),
    (PgType::Name, 19, 1003, "name", "name", 64),
    (PgType::Int8, 20, 1016, "bigint", "int8", 8),
    (PgType::Int2, 21, 1005, "smallint", "int2", 2),
    (PgType::Int2Vector, 22, 1006, "int2vector", "int2vector", -1),
    (PgType::Int4, 23, 1007, "integer", "int4", 4),
    (PgType::Regproc, 24, 1008, "regproc", "regproc", 4),
    (PgType::Text, 25, 1009, "text", "text", -1),
    (PgType::Oid, 26, 1028, "oid", "oid", 4),
    (PgType::Xid, 28, 1011, "xid", "xid", 4),
    (PgType::OidVector, 30, 1013, "oidvector", "oidvector", -1),
    (PgType::Json, 114, 199, "json", "json", -1),
    (PgType::Float4, 700, 1021, "real", "float4", 4),
    (PgType::Float8, 701, 1022, "double precision", "float8", 8),
    (PgType::Unknown, 705, 0, "unknown", "unknown", -2),
    (PgType::Bpchar(None), 1042, 1014, "character", "bpchar", -1),
    (PgType::Varchar(None), 1043, 1015, "character varying", "varchar", -1),
    (PgType::Date, 1082, 1182, "date", "date", 4),
    (PgType::Time, 1083, 1183, "time without time zone", "time", 8),
    (PgType::Timestamp, 1114, 1115, "timestamp without time zone", "timestamp", 8),
    (PgType::Timestamptz, 1184, 1185, "timestamp with time zone", "timestamptz", 8),
    (PgType::Interval, 1186, 1187, "interval", "interval", 16),
    (PgType::Numeric(None), 1700, 1231, "numeric", "numeric", -1),
    (PgType::Regclass, 2205, 2210, "regclass", "regclass", 4),
    (PgType::Regtype, 2206, 2211, "regtype", "regtype", 4),
    (PgType::Record, 2249, 2287, "record", "record", -1),
    (PgType::Void, 2278, 0, "void", "void", 4),
    (PgType::Uuid, 2950, 2951, "uuid", "uuid", 16),
    (PgType::Jsonb, 3802, 3807, "jsonb", "jsonb", -1),
    (PgType::Regnamespace, 4089, 4090, "regnamespace", "regnamespace", 4),
    (PgType::Regrole, 4096, 4097, "regrole", "regrole", 4),
];

impl PgType {
    /// Every type but arrays, without modifiers.
    pub fn all() -> impl Iterator<Item = PgType> {
        TYPES.iter().map(|row| row.0.clone())
    }

    fn row(&self) -> &'static (PgType, u32, u32, &'static str, &'static str, i16) {
        let plain = match self {
            PgType::Numeric(_) => &PgType::Numeric(None),
            PgType::Varchar(_) => &PgType::Varchar(None),
            PgType::Bpchar(_) => &PgType::Bpchar(None),
            PgType::Array(element) => return element.row(),
            other => other,
        };
        TYPES.iter().find(|row| row.0 == *plain).expect("every type has a row")
    }

    pub fn oid(&self) -> u32 {
        match self {
            PgType::Array(element) => element.row().2,
            scalar => scalar.row().1,
        }
    }

    pub fn from_oid(oid: u32) -> Option<PgType> {
        TYPES.iter().filter(|_| oid != 0).find_map(|(ty, own, array, ..)| match oid {
            o if o == *own => Some(ty.clone()),
            o if o == *array => Some(PgType::Array(Box::new(ty.clone()))),
            _ => None,
        })
    }

    /// The OID of the array type over this one; 0 when there is none.
    pub fn array_oid(&self) -> u32 {
        match self {
            PgType::Array(_) => 0,
            scalar => scalar.row().2,
        }
    }

    /// `pg_attribute.atttypmod`.
    pub fn typmod(&self) -> i32 {
        match self {
            PgType::Varchar(Some(n)) | PgType::Bpchar(Some(n)) => *n as i32 + 4,
            PgType::Numeric(Some((precision, scale))) => ((*precision as i32) << 16 | (*scale as i32 & 0x7ff)) + 4,
            PgType::Array(element) => element.typmod(),
            _ => -1,
        }
    }

    /// `pg_type.typlen`; -1 for a variable length.
    #[expect(clippy::len_without_is_empty, reason = "the width of a type, not of a collection")]
    pub fn len(&self) -> i16 {
        match self {
            PgType::Array(_) => -1,
            scalar => scalar.row().5,
        }
    }

    /// `pg_type.typname`: `int4`, `_int4`.
    pub fn internal_name(&self) -> String {
        match self {
            PgType::Array(element) => format!("_{}", element.row().4),
            scalar => scalar.row().4.to_owned(),
        }
    }

    /// The Arrow type that holds it.
    pub fn arrow(&self) -> DataType {
        match self {
            PgType::Bool => DataType::Boolean,
            PgType::Int2 => DataType::Int16,
            PgType::Int4 => DataType::Int32,
            PgType::Int8 => DataType::Int64,
            PgType::Float4 => DataType::Float32,
            PgType::Float8 => DataType::Float64,
            PgType::Numeric(None) => DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE),
            PgType::Numeric(Some((precision, scale))) => DataType::Decimal128(*precision, *scale),
            PgType::Bytea => DataType::Binary,
            PgType::Date => DataType::Date32,
            PgType::Time => DataType::Time64(TimeUnit::Microsecond),
            PgType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            PgType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            PgType::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            PgType::Oid
            | PgType::Xid
            | PgType::Regclass
            | PgType::Regtype
            | PgType::Regproc
            | PgType::Regnamespace
            | PgType::Regrole => DataType::UInt32,
            PgType::Int2Vector => PgType::Array(Box::new(PgType::Int2)).arrow(),
            PgType::OidVector => PgType::Array(Box::new(PgType::Oid)).arrow(),
            PgType::Array(element) => DataType::List(Arc::new(element.field("item", true))),
            PgType::Text
            | PgType::Varchar(_)
            | PgType::Bpchar(_)
            | PgType::Name
            | PgType::Char
            | PgType::Uuid
            | PgType::Json
            | PgType::Jsonb
            | PgType::Record
            | PgType::Void
            | PgType::Unknown => DataType::Utf8,
        }
    }

    /// An Arrow field of this type; carries `pg.type` where the Arrow type alone would be read as another one.
    pub fn field(&self, name: &str, nullable: bool) -> Field {
        let field = Field::new(name, self.arrow(), nullable);
        match PgType::from_arrow(field.data_type()).as_ref() == Some(self) {
            true => field,
            false => field.with_metadata([(PG_TYPE.to_owned(), self.to_string())].into()),
        }
    }

    /// The Postgres type of a result column. `None` for Arrow types that have no Postgres form.
    pub fn from_field(field: &Field) -> Option<PgType> {
        match field.metadata().get(PG_TYPE).and_then(|name| PgType::parse(name)) {
            Some(ty) => Some(ty),
            None => PgType::from_arrow(field.data_type()),
        }
    }

    pub fn from_arrow(ty: &DataType) -> Option<PgType> {
        Some(match ty {
            DataType::Null => PgType::Text,
            DataType::Boolean => PgType::Bool,
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => PgType::Int2,
            DataType::Int32 | DataType::UInt16 => PgType::Int4,
            DataType::Int64 | DataType::UInt64 => PgType::Int8,
            DataType::UInt32 => PgType::Oid,
            DataType::Float16 | DataType::Float32 => PgType::Float4,
            DataType::Float64 => PgType::Float8,
            DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE) => PgType::Numeric(None),
            DataType::Decimal128(precision, scale) => PgType::Numeric(Some((*precision, *scale))),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => PgType::Text,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                PgType::Bytea
            }
            DataType::Date32 | DataType::Date64 => PgType::Date,
            DataType::Time32(_) | DataType::Time64(_) => PgType::Time,
            DataType::Timestamp(_, None) => PgType::Timestamp,
            DataType::Timestamp(_, Some(_)) => PgType::Timestamptz,
            DataType::Interval(_) | DataType::Duration(_) => PgType::Interval,
            DataType::Dictionary(_, value) => return PgType::from_arrow(value),
            DataType::List(item) | DataType::LargeList(item) => PgType::Array(Box::new(PgType::from_field(item)?)),
            _ => return None,
        })
    }

    /// Reads a type name as SQL spells it (`int`, `timestamptz`, `varchar(20)`, `numeric(10,2)`, `float8[]`).
    pub fn parse(name: &str) -> Option<PgType> {
        let name = name.trim();
        if let Some(element) = name.strip_suffix("[]") {
            return Some(PgType::Array(Box::new(PgType::parse(element)?)));
        }
        let (base, modifiers) = match name.split_once('(') {
            Some((base, rest)) => (base.trim(), Some(rest.strip_suffix(')')?)),
            None => (name, None),
        };
        let modifier = |text: &str| text.trim().parse::<u32>().ok();
        let plain = match base.to_ascii_lowercase().as_str() {
            "\"char\"" => PgType::Char,
            "int" => PgType::Int4,
            "float" | "double" => PgType::Float8,
            "decimal" => PgType::Numeric(None),
            "char" => PgType::Bpchar(Some(1)),
            "string" => PgType::Text,
            lower => TYPES.iter().find(|row| row.3 == lower || row.4 == lower)?.0.clone(),
        };
        Some(match (plain, modifiers) {
            (PgType::Varchar(_), Some(text)) => PgType::Varchar(Some(modifier(text)?)),
            (PgType::Bpchar(_), Some(text)) => PgType::Bpchar(Some(modifier(text)?)),
            (PgType::Numeric(_), Some(text)) => {
                let (precision, scale) = text.split_once(',').unwrap_or((text, "0"));
                PgType::Numeric(Some((u8::try_from(modifier(precision)?).ok()?, scale.trim().parse().ok()?)))
            }
            (ty, _) => ty,
        })
    }
}

/// `format_type` spelling: `character varying(20)`, `double precision[]`.
impl fmt::Display for PgType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PgType::Array(element) => write!(f, "{element}[]"),
            PgType::Varchar(Some(n)) => write!(f, "character varying({n})"),
            PgType::Bpchar(Some(n)) => write!(f, "character({n})"),
            PgType::Numeric(Some((precision, scale))) => write!(f, "numeric({precision},{scale})"),
            other => f.write_str(other.row().3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_an_arrow_field_and_its_own_name() {
        let modified = [
            PgType::Varchar(Some(20)),
            PgType::Numeric(Some((10, 2))),
            PgType::Array(Box::new(PgType::Timestamptz)),
            PgType::Array(Box::new(PgType::Varchar(None))),
        ];
        for ty in PgType::all().chain(modified) {
            assert_eq!(PgType::parse(&ty.to_string()), Some(ty.clone()));
            assert_eq!(PgType::from_field(&ty.field("c", true)), Some(ty));
        }
    }

    #[test]
    fn oids_are_postgres_ones() {
        let int4_array = PgType::Array(Box::new(PgType::Int4));
        assert_eq!((PgType::Timestamptz.oid(), int4_array.oid()), (1184, 1007));
        assert_eq!(PgType::from_oid(1185), Some(PgType::Array(Box::new(PgType::Timestamptz))));
        assert_eq!(PgType::Varchar(Some(22)).typmod(), 26);
        assert_eq!(PgType::Numeric(Some((10, 2))).typmod(), 655_366);
    }
}
