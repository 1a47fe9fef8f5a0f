//! `ALTER TABLE … SET (timescaledb.compress …)`: what the options say of a hypertable, in TimescaleDB's words.

use crate::session::{TableOption, fold};
use datafusion::sql::sqlparser::ast::{Expr, Ident, OrderByExpr};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;
use engine::{ColumnDef, Compression, Ordering, PgType, TableDef};
use proto::{ColumnId, Error, Result, SqlState};

const PREFIX: &str = "timescaledb.";

/// What a statement said; `None`: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CompressionOptions {
    enabled: Option<bool>,
    segment_by: Option<Vec<ColumnId>>,
    order_by: Option<Vec<Ordering>>,
}

impl CompressionOptions {
    /// `None` when no option is TimescaleDB's.
    ///
    /// # Errors
    /// `22023` for an unknown option or value, `42601` for a list that cannot be read, `42703` for an unknown column.
    pub(crate) fn parse(table: &TableDef, options: &[TableOption]) -> Result<Option<CompressionOptions>> {
        let own =
            options.iter().filter_map(|option| Some((option.name.strip_prefix(PREFIX)?, option.value.as_deref())));
        let own = own.collect::<Vec<_>>();
        if own.is_empty() {
            return Ok(None);
        }
        let mut read = CompressionOptions::default();
        for (name, value) in own {
            let invalid = || invalid(&format!("invalid value for {PREFIX}{name} '{}'", value.unwrap_or_default()));
            match name {
                "compress" => read.enabled = Some(boolean(value).ok_or_else(invalid)?),
                "compress_segmentby" => read.segment_by = Some(segment_by(table, value.ok_or_else(invalid)?)?),
                "compress_orderby" => read.order_by = Some(order_by(table, value.ok_or_else(invalid)?)?),
                "compress_chunk_time_interval" => {
                    return Err(Error::unsupported("merging chunks (timescaledb.compress_chunk_time_interval)"));
                }
                _ => return Err(self::invalid(&format!("unrecognized parameter \"{PREFIX}{name}\""))),
            }
        }
        Ok(Some(read))
    }

    /// The hypertable's compression from now on; `None` when it is switched off. What was not said stays as it was, and
    /// rows within a segment are in the order of time at last.
    ///
    /// # Errors
    /// `TS001` for a plain table, `22023` for settings while compression is off, `42701` for a column named twice,
    /// `42883` for a column without an order.
    pub(crate) fn settle(self, table: &TableDef) -> Result<Option<Compression>> {
        let Some(hypertable) = &table.hypertable else {
            let message = format!("table \"{}\" is not a hypertable", table.name);
            return Err(Error::new(SqlState::HYPERTABLE_NOT_EXIST, message));
        };
        match (self.enabled, &hypertable.compression) {
            (Some(false), _) => return Ok(None),
            (None, None) => {
                return Err(invalid("the option timescaledb.compress must be set to true to enable compression"));
            }
            _ => {}
        }
        let before = hypertable.compression.clone().unwrap_or(Compression { segment_by: vec![], order_by: vec![] });
        let segment_by = self.segment_by.unwrap_or(before.segment_by);
        let mut order_by = self.order_by.unwrap_or(before.order_by);
        let time = hypertable.time_column;
        if !segment_by.contains(&time) && order_by.iter().all(|ordering| ordering.column != time) {
            order_by.push(Ordering { column: time, descending: true, nulls_first: true });
        }
        let settled = Compression { segment_by, order_by };
        check(table, &settled)?;
        Ok(Some(settled))
    }
}

fn check(table: &TableDef, settled: &Compression) -> Result<()> {
    let name = |id: ColumnId| table.column_by_id(id).map_or("", |column| &column.name);
    let order_by = settled.order_by.iter().map(|ordering| ordering.column).collect::<Vec<_>>();
    for (columns, option) in [(&settled.segment_by, "segmentby"), (&order_by, "orderby")] {
        if let Some(twice) = twice(columns) {
            let error = Error::new(SqlState::DUPLICATE_COLUMN, format!("duplicate column name \"{}\"", name(twice)));
            return Err(error.hint(format!("The {PREFIX}compress_{option} option must reference distinct column.")));
        }
    }
    if let Some(both) = order_by.iter().find(|column| settled.segment_by.contains(column)) {
        let message = format!("cannot use column \"{}\" for both ordering and segmenting", name(*both));
        return Err(Error::new(SqlState::INVALID_TABLE_DEFINITION, message).hint(format!(
            "Use separate columns for the {PREFIX}compress_orderby and {PREFIX}compress_segmentby options."
        )));
    }
    let columns = settled.columns().filter_map(|id| table.column_by_id(id));
    let mut unordered = columns.filter(|column| matches!(column.ty, PgType::Json | PgType::Jsonb | PgType::Array(_)));
    match unordered.next() {
        None => Ok(()),
        Some(column) if column.ty == PgType::Json => {
            let message = format!("invalid ordering column type {}", column.ty);
            Err(Error::new(SqlState::UNDEFINED_FUNCTION, message)
                .detail("Could not identify a less-than operator for the type."))
        }
        Some(column) => Err(Error::unsupported(format!("compression by a column of type {}", column.ty))),
    }
}

fn twice(columns: &[ColumnId]) -> Option<ColumnId> {
    columns.iter().enumerate().find(|(n, column)| columns[..*n].contains(column)).map(|(_, column)| *column)
}

fn invalid(message: &str) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

fn boolean(value: Option<&str>) -> Option<bool> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("true" | "t" | "on" | "yes" | "y" | "1") => Some(true),
        Some("false" | "f" | "off" | "no" | "n" | "0") => Some(false),
        Some(_) => None,
    }
}

/// A comma-separated list to its last character; empty text is an empty list.
fn list<T>(
    text: &str,
    item: impl FnMut(&mut Parser<'_>) -> std::result::Result<T, ParserError>,
) -> std::result::Result<Vec<T>, ParserError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect).try_with_sql(text)?;
    let items = parser.parse_comma_separated(item)?;
    parser.expect_token(&Token::EOF)?;
    Ok(items)
}

fn segment_by(table: &TableDef, text: &str) -> Result<Vec<ColumnId>> {
    let names = list(text, |parser| parser.parse_identifier()).map_err(|_| {
        Error::new(SqlState::SYNTAX_ERROR, format!("unable to parse segmenting option \"{text}\""))
            .hint("The option timescaledb.compress_segmentby must be a set of columns separated by commas.")
    })?;
    names.iter().map(|name| Ok(column(table, name, "compress_segmentby")?.id)).collect()
}

fn order_by(table: &TableDef, text: &str) -> Result<Vec<Ordering>> {
    let unreadable = || {
        Error::new(SqlState::SYNTAX_ERROR, format!("unable to parse ordering option \"{text}\"")).hint(
            "The timescaledb.compress_orderby option must be a set of column names with sort options, separated by \
             commas. It is the same format as an ORDER BY clause.",
        )
    };
    let items = list(text, |parser| parser.parse_order_by_expr()).map_err(|_| unreadable())?;
    let ordering = |item: &OrderByExpr| {
        let Expr::Identifier(name) = &item.expr else { return Err(unreadable()) };
        let descending = item.options.asc == Some(false);
        let nulls_first = item.options.nulls_first.unwrap_or(descending);
        Ok(Ordering { column: column(table, name, "compress_orderby")?.id, descending, nulls_first })
    };
    items.iter().map(ordering).collect()
}

fn column<'a>(table: &'a TableDef, name: &Ident, option: &str) -> Result<&'a ColumnDef> {
    let name = fold(name);
    table.column(&name).ok_or_else(|| {
        Error::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist"))
            .hint(format!("The {PREFIX}{option} option must reference a valid column."))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::PgType;
    use proto::TableId;

    fn table() -> TableDef {
        let column = |(n, name): (usize, &str)| ColumnDef {
            id: ColumnId(n as u32 + 1),
            name: name.to_owned(),
            ty: PgType::Int4,
            nullable: true,
            default: None,
            missing: None,
            comment: None,
        };
        TableDef {
            id: TableId(20_000),
            database: "d".to_owned(),
            schema: "public".to_owned(),
            name: "t".to_owned(),
            owner: "postgres".to_owned(),
            next_column: ColumnId(4),
            columns: ["time", "device", "Temp"].into_iter().enumerate().map(column).collect(),
            hypertable: None,
            keys: Vec::new(),
            comment: None,
        }
    }

    fn parse(options: &[(&str, Option<&str>)]) -> Result<Option<CompressionOptions>> {
        let option = |(name, value): &(&str, Option<&str>)| TableOption {
            name: (*name).to_owned(),
            value: value.map(str::to_owned),
        };
        CompressionOptions::parse(&table(), &options.iter().map(option).collect::<Vec<_>>())
    }

    #[test]
    fn all_options_are_read() {
        let read = parse(&[
            ("timescaledb.compress", None),
            ("timescaledb.compress_segmentby", Some("DEVICE, \"Temp\"")),
            ("timescaledb.compress_orderby", Some("time DESC, device nulls first")),
        ]);
        let by = |column, descending| Ordering { column: ColumnId(column), descending, nulls_first: true };
        let expected = CompressionOptions {
            enabled: Some(true),
            segment_by: Some(vec![ColumnId(2), ColumnId(3)]),
            order_by: Some(vec![by(1, true), by(2, false)]),
        };
        assert_eq!(read.unwrap(), Some(expected));
        assert_eq!(parse(&[("fillfactor", Some("70"))]).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (name, value, code) in [
            ("timescaledb.compres", None, "22023"),
            ("timescaledb.compress", Some("maybe"), "22023"),
            ("timescaledb.compress_segmentby", None, "22023"),
            ("timescaledb.compress_segmentby", Some("device,"), "42601"),
            ("timescaledb.compress_segmentby", Some("device DESC"), "42601"),
            ("timescaledb.compress_segmentby", Some("nosuch"), "42703"),
            ("timescaledb.compress_orderby", Some("time + 1"), "42601"),
            ("timescaledb.compress_orderby", Some("nosuch"), "42703"),
        ] {
            assert_eq!(parse(&[(name, value)]).unwrap_err().code.as_str(), code, "{name} {value:?}");
        }
    }
}
