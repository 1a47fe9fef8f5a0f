//! The options of a COPY statement, checked together as PostgreSQL checks them.

use datafusion::sql::sqlparser::ast::{CopyLegacyCsvOption, CopyLegacyOption, CopyOption, Ident};
use proto::{Error, Result, SqlState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    Text,
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyDirection {
    From,
    To,
}

/// How the data is spelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyForm {
    Binary,
    Delimited(CopyOptions),
}

/// What the first line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderLine {
    Absent,
    /// Column names; not looked at on the way in.
    Present,
    /// Column names that must be those of the columns copied.
    Match,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOptions {
    pub format: CopyFormat,
    pub delimiter: u8,
    pub null: String,
    pub header: HeaderLine,
    /// CSV only.
    pub quote: u8,
    /// CSV only.
    pub escape: u8,
    /// Columns quoted on the way out although they need not be.
    pub force_quote: Vec<String>,
    /// Columns whose unquoted null string is that string.
    pub force_not_null: Vec<String>,
    /// Columns whose quoted null string is NULL.
    pub force_null: Vec<String>,
}

/// As written, before the defaults are known.
#[derive(Default)]
struct Written {
    binary: bool,
    format: Option<CopyFormat>,
    delimiter: Option<char>,
    null: Option<String>,
    header: Option<HeaderLine>,
    quote: Option<char>,
    escape: Option<char>,
    force_quote: Option<Vec<String>>,
    force_not_null: Option<Vec<String>>,
    force_null: Option<Vec<String>>,
    encoding: Option<String>,
    freeze: Option<bool>,
}

impl CopyOptions {
    /// What COPY does without options.
    pub fn text() -> CopyOptions {
        CopyOptions {
            format: CopyFormat::Text,
            delimiter: b'\t',
            null: "\\N".to_owned(),
            header: HeaderLine::Absent,
            quote: b'"',
            escape: b'"',
            force_quote: Vec::new(),
            force_not_null: Vec::new(),
            force_null: Vec::new(),
        }
    }

    pub fn csv() -> CopyOptions {
        CopyOptions { format: CopyFormat::Csv, delimiter: b',', null: String::new(), ..CopyOptions::text() }
    }
}

impl CopyForm {
    /// Both spellings: `WITH (FORMAT csv, …)` and the one before PostgreSQL 9.0.
    ///
    /// # Errors
    /// What PostgreSQL gives; 0A000 for other databases' options.
    pub fn parse(direction: CopyDirection, options: &[CopyOption], legacy: &[CopyLegacyOption]) -> Result<CopyForm> {
        let mut written = Written::default();
        for option in options {
            written.take(option)?;
        }
        for option in legacy {
            written.take_legacy(option)?;
        }
        match written.binary {
            true => written.check_binary().map(|()| CopyForm::Binary),
            false => written.check(direction).map(CopyForm::Delimited),
        }
    }
}

fn set<T>(field: &mut Option<T>, value: T) -> Result<()> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::new(SqlState::SYNTAX_ERROR, "conflicting or redundant options")),
    }
}

fn names(columns: &[Ident]) -> Vec<String> {
    let folded = |ident: &Ident| match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    };
    columns.iter().map(folded).collect()
}

fn header(present: bool) -> HeaderLine {
    if present { HeaderLine::Present } else { HeaderLine::Absent }
}

impl Written {
    fn take(&mut self, option: &CopyOption) -> Result<()> {
        match option {
            CopyOption::Format(name) => match name.value.to_ascii_lowercase().as_str() {
                "text" => set(&mut self.format, CopyFormat::Text),
                "csv" => set(&mut self.format, CopyFormat::Csv),
                "binary" => self.set_binary(),
                _ => Err(invalid(format!("COPY format \"{}\" not recognized", name.value))),
            },
            CopyOption::Freeze(freeze) => set(&mut self.freeze, *freeze),
            CopyOption::Delimiter(delimiter) => set(&mut self.delimiter, *delimiter),
            CopyOption::Null(null) => set(&mut self.null, null.clone()),
            CopyOption::Header(present) => set(&mut self.header, header(*present)),
            CopyOption::Quote(quote) => set(&mut self.quote, *quote),
            CopyOption::Escape(escape) => set(&mut self.escape, *escape),
            CopyOption::ForceQuote(columns) => set(&mut self.force_quote, names(columns)),
            CopyOption::ForceNotNull(columns) => set(&mut self.force_not_null, names(columns)),
            CopyOption::ForceNull(columns) => set(&mut self.force_null, names(columns)),
            CopyOption::Encoding(name) => set(&mut self.encoding, name.clone()),
        }
    }

    fn take_legacy(&mut self, option: &CopyLegacyOption) -> Result<()> {
        match option {
            CopyLegacyOption::Binary => self.set_binary(),
            CopyLegacyOption::Delimiter(delimiter) => set(&mut self.delimiter, *delimiter),
            CopyLegacyOption::Null(null) => set(&mut self.null, null.clone()),
            CopyLegacyOption::Header => set(&mut self.header, HeaderLine::Present),
            CopyLegacyOption::Csv(csv_options) => {
                set(&mut self.format, CopyFormat::Csv)?;
                csv_options.iter().try_for_each(|option| match option {
                    CopyLegacyCsvOption::Header => set(&mut self.header, HeaderLine::Present),
                    CopyLegacyCsvOption::Quote(quote) => set(&mut self.quote, *quote),
                    CopyLegacyCsvOption::Escape(escape) => set(&mut self.escape, *escape),
                    CopyLegacyCsvOption::ForceQuote(columns) => set(&mut self.force_quote, names(columns)),
                    CopyLegacyCsvOption::ForceNotNull(columns) => set(&mut self.force_not_null, names(columns)),
                })
            }
            other => Err(Error::unsupported(format_args!("COPY option {other}"))),
        }
    }

    fn set_binary(&mut self) -> Result<()> {
        if self.binary || self.format.is_some() {
            return Err(Error::new(SqlState::SYNTAX_ERROR, "conflicting or redundant options"));
        }
        self.binary = true;
        Ok(())
    }

    fn check_binary(&self) -> Result<()> {
        let refused = |code, what| Err(Error::new(code, format!("cannot specify {what} in BINARY mode")));
        match self {
            _ if self.delimiter.is_some() => refused(SqlState::SYNTAX_ERROR, "DELIMITER"),
            _ if self.null.is_some() => refused(SqlState::SYNTAX_ERROR, "NULL"),
            _ if self.header.is_some() => refused(SqlState::FEATURE_NOT_SUPPORTED, "HEADER"),
            _ if self.quote.is_some() => Err(unavailable("COPY quote available only in CSV mode")),
            _ if self.escape.is_some() => Err(unavailable("COPY escape available only in CSV mode")),
            _ => Ok(()),
        }
    }

    fn check(self, direction: CopyDirection) -> Result<CopyOptions> {
        let format = self.format.unwrap_or(CopyFormat::Text);
        let is_csv = format == CopyFormat::Csv;
        let defaults = if is_csv { CopyOptions::csv() } else { CopyOptions::text() };
        let delimiter = one_byte(self.delimiter, "delimiter")?.unwrap_or(defaults.delimiter);
        let null = self.null.unwrap_or(defaults.null);
        if matches!(delimiter, b'\n' | b'\r') {
            return Err(invalid("COPY delimiter cannot be newline or carriage return"));
        }
        if null.contains(['\n', '\r']) {
            return Err(invalid("COPY null representation cannot use newline or carriage return"));
        }
        // Bytes that text escapes give a meaning to.
        if !is_csv && b"\\.abcdefghijklmnopqrstuvwxyz0123456789".contains(&delimiter) {
            return Err(invalid(format!("COPY delimiter cannot be \"{}\"", char::from(delimiter))));
        }
        if !is_csv && self.quote.is_some() {
            return Err(unavailable("COPY quote available only in CSV mode"));
        }
        let quote = one_byte(self.quote, "quote")?.unwrap_or(defaults.quote);
        if is_csv && delimiter == quote {
            return Err(invalid("COPY delimiter and quote must be different"));
        }
        if !is_csv && self.escape.is_some() {
            return Err(unavailable("COPY escape available only in CSV mode"));
        }
        let escape = one_byte(self.escape, "escape")?.unwrap_or(quote);
        let forced = [
            (&self.force_quote, "quote", CopyDirection::To),
            (&self.force_not_null, "not null", CopyDirection::From),
            (&self.force_null, "null", CopyDirection::From),
        ];
        for (columns, name, only) in forced {
            if columns.is_some() && !is_csv {
                return Err(unavailable(format!("COPY force {name} available only in CSV mode")));
            }
            if columns.is_some() && only != direction {
                let word = if only == CopyDirection::To { "TO" } else { "FROM" };
                return Err(unavailable(format!("COPY force {name} only available using COPY {word}")));
            }
        }
        if null.as_bytes().contains(&delimiter) {
            return Err(unavailable("COPY delimiter must not appear in the NULL specification"));
        }
        if is_csv && null.as_bytes().contains(&quote) {
            return Err(unavailable("CSV quote character must not appear in the NULL specification"));
        }
        if let Some(encoding) = self.encoding {
            let plain = encoding.to_ascii_lowercase().replace(['-', '_'], "");
            if !matches!(plain.as_str(), "utf8" | "unicode") {
                return Err(Error::unsupported(format_args!("COPY in encoding \"{encoding}\"")));
            }
        }
        Ok(CopyOptions {
            format,
            delimiter,
            null,
            header: self.header.unwrap_or(HeaderLine::Absent),
            quote,
            escape,
            force_quote: self.force_quote.unwrap_or_default(),
            force_not_null: self.force_not_null.unwrap_or_default(),
            force_null: self.force_null.unwrap_or_default(),
        })
    }
}

fn one_byte(character: Option<char>, what: &str) -> Result<Option<u8>> {
    match character {
        Some(character) if !character.is_ascii() => {
            Err(unavailable(format!("COPY {what} must be a single one-byte character")))
        }
        other => Ok(other.map(|character| character as u8)),
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

fn unavailable(message: impl Into<String>) -> Error {
    Error::new(SqlState::FEATURE_NOT_SUPPORTED, message)
}
