//! The statements sqlparser does not know, read from their tokens.

use super::{Command, TableOption, fold};
use datafusion::sql::sqlparser::ast::Ident;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// `None`: sqlparser shall read it.
pub(super) fn command(tokens: &[&TokenWithSpan]) -> Option<Command> {
    let mut words = Words { tokens, next: 0 };
    for (keyword, grant) in [("GRANT", true), ("REVOKE", false)] {
        if words.take(keyword) {
            return grant_of(words, grant);
        }
    }
    if words.take_all(&["ALTER", "TABLE"]) {
        return table_options(words);
    }
    let maintenance: &[(&[&str], &'static str)] = &[
        (&["CHECKPOINT"], "CHECKPOINT"),
        (&["VACUUM"], "VACUUM"),
        (&["ANALYZE"], "ANALYZE"),
        (&["REINDEX"], "REINDEX"),
        (&["UNLISTEN"], "UNLISTEN"),
    ];
    if let Some((_, tag)) = maintenance.iter().find(|(keywords, _)| words.take_all(keywords)) {
        return Some(Command::Maintenance { tag });
    }
    let refused: &[(&[&str], &'static str)] = &[
        (&["PREPARE", "TRANSACTION"], "PREPARE TRANSACTION"),
        (&["COMMIT", "PREPARED"], "COMMIT PREPARED"),
        (&["ROLLBACK", "PREPARED"], "ROLLBACK PREPARED"),
        (&["ALTER", "DEFAULT", "PRIVILEGES"], "ALTER DEFAULT PRIVILEGES"),
        (&["ALTER", "SYSTEM"], "ALTER SYSTEM"),
        (&["REASSIGN", "OWNED"], "REASSIGN OWNED"),
        (&["DROP", "OWNED"], "DROP OWNED"),
        (&["CREATE", "SERVER"], "CREATE SERVER"),
        (&["DROP", "SERVER"], "DROP SERVER"),
        (&["CREATE", "MATERIALIZED", "VIEW"], "a materialized view"),
        (&["CLUSTER"], "CLUSTER"),
        (&["DO"], "DO"),
        (&["LISTEN"], "LISTEN"),
        (&["NOTIFY"], "NOTIFY"),
        (&["MOVE"], "MOVE"),
    ];
    let refused = refused.iter().find(|(keywords, _)| words.take_all(keywords));
    refused.map(|(_, what)| Command::Refused { what })
}

fn grant_of(mut words: Words<'_>, grant: bool) -> Option<Command> {
    let to = if grant { "TO" } else { "FROM" };
    let usage = words.take_all(&["USAGE", "ON", "FOREIGN", "SERVER"])
        || words.take_all(&["ALL", "ON", "FOREIGN", "SERVER"])
        || words.take_all(&["ALL", "PRIVILEGES", "ON", "FOREIGN", "SERVER"]);
    let objects = words.names()?;
    if !words.take(to) {
        return None;
    }
    let grantees = words.names()?;
    let done = words.is_done()
        || words.take_all(&["WITH", "GRANT", "OPTION"])
        || words.take_all(&["WITH", "ADMIN", "OPTION"])
        || words.take("CASCADE")
        || words.take("RESTRICT");
    match (done && words.is_done(), usage) {
        (false, _) => None,
        (true, true) => Some(Command::ServerUsage { grant, servers: objects, grantees }),
        (true, false) => Some(Command::Membership { grant, roles: objects, members: grantees }),
    }
}

fn table_options(mut words: Words<'_>) -> Option<Command> {
    let if_exists = words.take_all(&["IF", "EXISTS"]);
    words.take("ONLY");
    let first = words.name()?;
    let table = match words.take_token(&Token::Period) {
        true => (Some(first), words.name()?),
        false => (None, first),
    };
    if !(words.take("SET") && words.take_token(&Token::LParen)) {
        return None;
    }
    let mut options = vec![table_option(&mut words)?];
    while words.take_token(&Token::Comma) {
        options.push(table_option(&mut words)?);
    }
    let done = words.take_token(&Token::RParen) && words.is_done();
    done.then_some(Command::TableOptions { table, if_exists, options })
}

fn table_option(words: &mut Words<'_>) -> Option<TableOption> {
    let mut name = words.name()?;
    while words.take_token(&Token::Period) {
        name = format!("{name}.{}", words.name()?);
    }
    if !words.take_token(&Token::Eq) {
        return Some(TableOption { name, value: None });
    }
    let sign = if words.take_token(&Token::Minus) { "-" } else { "" };
    let value = match words.peek()? {
        Token::Word(word) => word.value.clone(),
        Token::Number(digits, _) => format!("{sign}{digits}"),
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text.clone(),
        _ => return None,
    };
    words.next += 1;
    Some(TableOption { name, value: Some(value) })
}

/// A cursor over significant tokens.
struct Words<'a> {
    tokens: &'a [&'a TokenWithSpan],
    next: usize,
}

impl Words<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|token| &token.token)
    }

    fn take(&mut self, keyword: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(word)) if word.quote_style.is_none()
            && word.value.eq_ignore_ascii_case(keyword));
        self.next += usize::from(found);
        found
    }

    fn take_all(&mut self, keywords: &[&str]) -> bool {
        let start = self.next;
        let all = keywords.iter().all(|keyword| self.take(keyword));
        if !all {
            self.next = start;
        }
        all
    }

    fn name(&mut self) -> Option<String> {
        let name = match self.peek()? {
            Token::Word(word) => fold(&Ident {
                value: word.value.clone(),
                quote_style: word.quote_style,
                span: self.tokens[self.next].span,
            }),
            _ => return None,
        };
        self.next += 1;
        Some(name)
    }

    fn names(&mut self) -> Option<Vec<String>> {
        let mut names = vec![self.name()?];
        while self.take_token(&Token::Comma) {
            names.push(self.name()?);
        }
        Some(names)
    }

    fn take_token(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    fn is_done(&self) -> bool {
        self.next == self.tokens.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::parse::parse;
    use datafusion::sql::sqlparser::ast::Statement;

    fn one(sql: &str) -> Command {
        let mut parsed = parse(sql).unwrap();
        assert_eq!(parsed.len(), 1, "{sql}");
        parsed.remove(0).command
    }

    #[test]
    fn the_tutorials_grant_is_read() {
        let Command::ServerUsage { grant, servers, grantees } =
            one("GRANT USAGE ON FOREIGN SERVER dn1, dn2 to testuser;")
        else {
            panic!("another command");
        };
        assert!(grant);
        assert_eq!((servers, grantees), (vec!["dn1".to_owned(), "dn2".to_owned()], vec!["testuser".to_owned()]));
    }

    #[test]
    fn roles_and_tables_are_told_apart_in_grants() {
        assert!(matches!(one("GRANT a TO b"), Command::Membership { grant: true, .. }));
        assert!(matches!(one("REVOKE a FROM b"), Command::Membership { grant: false, .. }));
        assert!(matches!(one("GRANT SELECT ON t TO b"), Command::Sql(Statement::Grant(_))));
        assert!(matches!(one("GRANT CREATE ON SCHEMA public TO b"), Command::Sql(Statement::Grant(_))));
    }

    #[test]
    fn options_with_a_dot_in_their_names_are_read() {
        let sql = "alter table only s.t set (timescaledb.compress, timescaledb.compress_orderby = 'time DESC', x=-1)";
        let Command::TableOptions { table, if_exists, options } = one(sql) else { panic!("another command") };
        let plain = options.iter().map(|option| (option.name.as_str(), option.value.as_deref())).collect::<Vec<_>>();
        assert_eq!((table, if_exists), ((Some("s".to_owned()), "t".to_owned()), false));
        assert_eq!(
            plain,
            [("timescaledb.compress", None), ("timescaledb.compress_orderby", Some("time DESC")), ("x", Some("-1"))]
        );
        assert!(matches!(one("ALTER TABLE t ADD COLUMN x int"), Command::Sql(_)));
    }
}
