//! Column definitions out of `CREATE TABLE` and `ALTER TABLE`.

use crate::session::parse::fold;
use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, ColumnDef as ColumnAst, ColumnOption, DataType, Expr};
use engine::{ColumnDef, PgType};
use proto::{ColumnId, Error, Result, SqlState};

/// Longest identifier PostgreSQL keeps; longer ones are cut there and refused here.
const NAME_BYTES_MAX: usize = 63;

/// # Errors
/// A type nobody knows, a constraint that is not served, a name out of bounds.
pub fn column(ast: &ColumnAst, id: ColumnId) -> Result<ColumnDef> {
    let name = checked_name(fold(&ast.name))?;
    let mut column = ColumnDef {
        id,
        name,
        ty: column_type(&ast.data_type)?,
        nullable: true,
        default: None,
        missing: None,
        comment: None,
    };
    for option in &ast.options {
        match &option.option {
            ColumnOption::Null => column.nullable = true,
            ColumnOption::NotNull => column.nullable = false,
            ColumnOption::Default(expr) => column.default = default_text(expr)?,
            ColumnOption::Collation(_) => {}
            // `keys` reads them.
            ColumnOption::PrimaryKey(_) | ColumnOption::Unique(_) => {}
            ColumnOption::ForeignKey(_) => return Err(unserved("a FOREIGN KEY constraint")),
            ColumnOption::Check(_) => return Err(unserved("a CHECK constraint")),
            ColumnOption::Generated { .. } | ColumnOption::Identity(_) => return Err(unserved("a generated column")),
            other => return Err(unserved(&format!("column option {other}"))),
        }
    }
    Ok(column)
}

/// `None` for `DEFAULT NULL`, which is what a column without a default has.
fn default_text(expr: &Expr) -> Result<Option<String>> {
    let text = expr.to_string();
    Ok((!text.eq_ignore_ascii_case("null")).then_some(text))
}

pub fn unserved(what: &str) -> Error {
    Error::unsupported(what)
}

/// # Errors
/// `42622` for a name longer than PostgreSQL keeps, `42601` for an empty one.
pub fn checked_name(name: String) -> Result<String> {
    if name.is_empty() {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "zero-length delimited identifier"));
    }
    if name.len() > NAME_BYTES_MAX {
        let message = format!("identifier \"{name}\" is longer than {NAME_BYTES_MAX} bytes");
        return Err(Error::new(SqlState::new("42622"), message));
    }
    Ok(name)
}

/// # Errors
/// `42704 type "x" does not exist`; `0A000` for `serial`, whose sequence we do not have, and for a `numeric` wider than
/// we hold.
pub fn column_type(ast: &DataType) -> Result<PgType> {
    let ty = match ast {
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _) | ArrayElemTypeDef::AngleBracket(element)) => {
            return column_type(element).map(|element| PgType::Array(Box::new(element)));
        }
        // Their precision and scale are checked there.
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => return engine::semantics::pg_type(ast),
        other => spelled(&other.to_string()),
    };
    let ty = ty.ok_or_else(|| {
        let name = ast.to_string().to_lowercase();
        match name.contains("serial") {
            true => Error::unsupported(format!("type {name} (it needs a sequence)")),
            false => Error::new(SqlState::UNDEFINED_OBJECT, format!("type \"{name}\" does not exist")),
        }
    })?;
    match ty {
        PgType::Void | PgType::Record | PgType::Unknown => {
            Err(Error::new(SqlState::INVALID_TABLE_DEFINITION, format!("column has pseudo-type {ty}")))
        }
        ty => Ok(ty),
    }
}

/// The spellings that only SQL text has, brought to those `PgType` knows: `float(24)`, `timestamp(3) with time zone`.
fn spelled(text: &str) -> Option<PgType> {
    let lower = text.to_lowercase().replace("pg_catalog.", "");
    if let Some(bits) = lower.strip_prefix("float(").and_then(|rest| rest.strip_suffix(')')) {
        return Some(if bits.parse::<u32>().ok()? <= 24 { PgType::Float4 } else { PgType::Float8 });
    }
    let timed = lower.starts_with("time");
    match (timed, lower.find('('), lower.find(')')) {
        (true, Some(open), Some(close)) => PgType::parse(&format!("{}{}", lower[..open].trim(), &lower[close + 1..])),
        _ => PgType::parse(&lower),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    fn parsed(text: &str) -> Result<PgType> {
        let mut parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(text).unwrap();
        column_type(&parser.parse_data_type().unwrap())
    }

    /// What `\d` shows for a column declared so, on PostgreSQL 15.
    #[test]
    fn spellings_name_the_types_postgres_names() {
        for (text, shown) in [
            ("float", "double precision"),
            ("FLOAT(53)", "double precision"),
            ("float(24)", "real"),
            ("real", "real"),
            ("int", "integer"),
            ("INT8", "bigint"),
            ("bigint", "bigint"),
            ("timestamptz", "timestamp with time zone"),
            ("timestamptz(6)", "timestamp with time zone"),
            ("TIMESTAMP WITH TIME ZONE", "timestamp with time zone"),
            ("timestamp(3) without time zone", "timestamp without time zone"),
            ("timestamp", "timestamp without time zone"),
            ("varchar(20)", "character varying(20)"),
            ("character varying", "character varying"),
            ("char(22)", "character(22)"),
            ("char", "character(1)"),
            ("decimal(10,2)", "numeric(10,2)"),
            ("numeric", "numeric"),
            ("boolean", "boolean"),
            ("bool", "boolean"),
            ("text[]", "text[]"),
            ("double precision[]", "double precision[]"),
            ("int[]", "integer[]"),
            ("jsonb", "jsonb"),
            ("bytea", "bytea"),
            ("uuid", "uuid"),
            ("interval", "interval"),
            ("time", "time without time zone"),
            ("date", "date"),
        ] {
            assert_eq!(parsed(text).map(|ty| ty.to_string()).as_deref(), Ok(shown), "{text}");
        }
        for (text, code) in [
            ("numeric(40,2)", "0A000"),
            ("decimal(39)[]", "0A000"),
            ("numeric(5,-2)", "0A000"),
            ("numeric(1001,2)", "22023"),
            ("numeric(0)", "22023"),
            ("numeric(38,1001)", "22023"),
        ] {
            assert_eq!(parsed(text).unwrap_err().code.as_str(), code, "{text}");
        }
        assert_eq!(parsed("numeric(40,2)").unwrap_err().message, "numeric precision above 38 is not supported yet");
        assert_eq!(parsed("nosuch").unwrap_err().code.as_str(), "42704");
        assert_eq!(parsed("serial").unwrap_err().code.as_str(), "0A000");
    }
}
