//! What is changed in a parsed statement before DataFusion plans it: the names of result columns (`names`), the
//! types of number literals (`numbers`), rows (`rows`), calls (`arguments`, `calls`), operators that bind too loosely (`binding`), and syntax that its planner has no
//! hook for (`syntax`).

mod arguments;
mod binding;
mod calls;
mod names;
mod numbers;
mod rows;
mod syntax;

pub use numbers::MARK as INTEGER_LITERAL;

use crate::Settings;
use arrow::datatypes::Schema;
use datafusion::sql::sqlparser::ast::{Expr, Query, Select, Statement, TableFactor, VisitMut, VisitorMut};
use proto::Error;
use std::ops::ControlFlow;

/// Between a result column's name and the number that keeps two of the same name apart inside DataFusion.
const COUNTER: char = '\u{2063}';

/// Rewrites `statement` in place. Call it once per statement, before planning.
///
/// # Errors
/// 0A000 for syntax that would be planned with another meaning than PostgreSQL's.
pub fn rewrite(statement: &mut Statement, settings: &Settings) -> Result<(), Error> {
    let mut pass = Pass { settings, query_depth: 0 };
    match statement.visit(&mut pass) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The names that a client sees for the columns of a planned query.
pub fn output_columns(schema: &Schema) -> Vec<String> {
    schema.fields().iter().map(|field| output_name(field.name()).to_owned()).collect()
}

fn output_name(name: &str) -> &str {
    name.split_once(COUNTER).map_or(name, |(name, _)| name)
}

struct Pass<'a> {
    settings: &'a Settings,
    query_depth: usize,
}

impl VisitorMut for Pass<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.query_depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.query_depth -= 1;
        numbers::query(query);
        rows::values(&mut query.body);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        if let Err(error) = calls::check_windows(select) {
            return ControlFlow::Break(error);
        }
        names::name_columns(select, self.query_depth <= 1);
        syntax::select(select);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        numbers::select(select);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        match syntax::table_factor(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        binding::rebind(expr);
        numbers::cast_digits(expr);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match syntax::expression(expr, self.settings) {
            Ok(()) => {
                rows::comparison(expr);
                numbers::expression(expr);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::{dialect::PostgreSqlDialect, parser::Parser};

    fn names(sql: &str) -> Vec<String> {
        let mut statement = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap().remove(0);
        rewrite(&mut statement, &Settings::default()).unwrap();
        let Statement::Query(query) = statement else { panic!("{sql}") };
        let select = query.body.as_select().unwrap();
        let item = |item: &datafusion::sql::sqlparser::ast::SelectItem| {
            output_name(item.to_string().rsplit(' ').next().unwrap().trim_matches('"')).to_owned()
        };
        select.projection.iter().map(item).collect()
    }

    #[test]
    fn columns_are_named_as_postgres_names_them() {
        let expected = [
            ("1, 'x', null, true, -1, 1+1", "?column? ?column? ?column? ?column? ?column? ?column?"),
            ("count(*), max(a), max(b), now()", "count max max now"),
            ("a::int, '5'::int, a::text, count(*)::int, 1::float8", "a int4 a count float8"),
            ("case when a then 1 end, case when a then 1 else b end", "case b"),
            ("coalesce(a, 1), nullif(a, 1), greatest(a, b)", "coalesce nullif greatest"),
            ("interval '1 day', date '2019-01-01', timestamptz '2019-01-01'", "interval date timestamptz"),
            ("extract(epoch from a), a at time zone 'UTC', position('a' in b)", "extract timezone position"),
            ("substring(a from 1), trim(a), exists(select 1), (select a from t)", "substring btrim exists a"),
            ("array[1,2], a is null, a like 'x', not a", "array ?column? ?column? ?column?"),
            ("pg_catalog.lower(a), current_timestamp, current_date", "lower current_timestamp current_date"),
        ];
        for (items, wanted) in expected {
            assert_eq!(names(&format!("SELECT {items} FROM t")).join(" "), wanted, "{items}");
        }
    }
}
