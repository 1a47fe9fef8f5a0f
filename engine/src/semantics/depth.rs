//! How deep a statement may be. Parser, planner and optimizer recurse over expressions; the limit keeps the deepest
//! statement well inside the stack of a query thread.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use proto::{Error, SqlState};

/// Levels of an expression tree: brackets, and operators chained without brackets.
pub const DEPTH_MAX: usize = 400;
/// One statement's text.
pub const SQL_BYTES_MAX: usize = 16 << 20;

pub fn too_deep() -> Error {
    Error::new(SqlState::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
        .hint(format!("An expression may be {DEPTH_MAX} levels deep; split it, or use IN (…) for many alternatives."))
}

/// Refuses text whose expressions could be deeper than [`DEPTH_MAX`]; call it before parsing.
///
/// # Errors
/// 54001; 54000 for text beyond 16 MiB. Text that cannot be cut into tokens passes: the parser reports it.
pub fn check_depth(sql: &str) -> Result<(), Error> {
    if sql.len() > SQL_BYTES_MAX {
        let message = format!("a statement may have {SQL_BYTES_MAX} bytes, this one has {}", sql.len());
        return Err(Error::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message));
    }
    // Cheap exit: fewer operator and bracket characters than levels.
    if sql.len() <= DEPTH_MAX {
        return Ok(());
    }
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize() else {
        return Ok(());
    };
    let mut depth = Depth { open: Vec::new(), chain: 0, below: 0, sets: 0 };
    for token in &tokens {
        depth.token(token);
        if depth.below + depth.chain > DEPTH_MAX || depth.sets > SETS_MAX {
            return Err(too_deep());
        }
    }
    Ok(())
}

/// SELECTs that one statement may join by UNION, EXCEPT and INTERSECT.
const SETS_MAX: usize = 100;

/// Upper bound of the depth at the current token.
struct Depth {
    /// Chain length of each open bracket's surroundings.
    open: Vec<usize>,
    /// Operators in a row on this level.
    chain: usize,
    /// Sum of `open`.
    below: usize,
    /// UNION and its kin so far: they nest to the left, SELECT by SELECT.
    sets: usize,
}

impl Depth {
    fn token(&mut self, token: &Token) {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                self.open.push(self.chain + 1);
                self.below += self.chain + 1;
                self.chain = 0;
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                let surroundings = self.open.pop().unwrap_or(0);
                self.below -= surroundings;
                self.chain = surroundings.saturating_sub(1);
            }
            Token::Comma | Token::SemiColon => self.chain = 0,
            Token::Word(word) if word.quote_style.is_none() => self.word(&word.value),
            Token::Word(_) | Token::Number(..) | Token::Whitespace(_) | Token::Period | Token::Placeholder(_) => {}
            Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) | Token::DollarQuotedString(_) => {}
            // Every other token is an operator.
            _ => self.chain += 1,
        }
    }

    fn word(&mut self, word: &str) {
        const CLAUSES: &[&str] =
            &["SELECT", "FROM", "WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "VALUES", "ON", "SET"];
        const OPERATORS: &[&str] = &[
            "AND",
            "OR",
            "NOT",
            "CASE",
            "WHEN",
            "UNION",
            "EXCEPT",
            "INTERSECT",
            "JOIN",
            "BETWEEN",
            "LIKE",
            "ILIKE",
            "IS",
            "COLLATE",
            "AT",
        ];
        const SETS: &[&str] = &["UNION", "EXCEPT", "INTERSECT"];
        self.sets += usize::from(SETS.iter().any(|set| word.eq_ignore_ascii_case(set)));
        if CLAUSES.iter().any(|clause| word.eq_ignore_ascii_case(clause)) {
            self.chain = 0;
        } else if OPERATORS.iter().any(|operator| word.eq_ignore_ascii_case(operator)) {
            self.chain += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_statements_are_refused_and_wide_ones_are_not() {
        let chain = |n: usize| format!("SELECT {}1", "1+".repeat(n));
        let brackets = |n: usize| format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n));
        let unions = |n: usize| format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(n));
        let list = format!("SELECT 1 WHERE 1 IN ({}1)", "1,".repeat(50_000));
        let rows = format!("VALUES {}(1)", "(1+1),".repeat(50_000));
        for deep in
            [chain(5000), brackets(5000), chain(450), unions(5000), format!("SELECT {}true", "NOT ".repeat(5000))]
        {
            assert_eq!(check_depth(&deep).unwrap_err().code, SqlState::STATEMENT_TOO_COMPLEX);
        }
        for fine in [chain(300), brackets(300), list, rows, unions(50)] {
            assert!(check_depth(&fine).is_ok());
        }
    }
}
