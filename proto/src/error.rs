//! The error that crosses `DataNode` and reaches the client. Crates have their own enums inside and convert to this one
//! at their edge.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A five-character SQLSTATE, as PostgreSQL's appendix A lists them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    pub const fn new(code: &str) -> SqlState {
        let bytes = code.as_bytes();
        assert!(bytes.len() == 5, "a SQLSTATE has five characters");
        SqlState([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]])
    }

    /// Anything that is not five ASCII characters becomes `XX000`.
    pub fn parse(code: &str) -> SqlState {
        match <[u8; 5]>::try_from(code.as_bytes()) {
            Ok(bytes) if bytes.is_ascii() => SqlState(bytes),
            _ => SqlState::INTERNAL_ERROR,
        }
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("constructors accept ASCII only")
    }

    pub const FEATURE_NOT_SUPPORTED: SqlState = SqlState::new("0A000");
    pub const PROTOCOL_VIOLATION: SqlState = SqlState::new("08P01");
    pub const CONNECTION_FAILURE: SqlState = SqlState::new("08006");
    pub const CANNOT_CONNECT: SqlState = SqlState::new("08001");
    pub const TRANSACTION_RESOLUTION_UNKNOWN: SqlState = SqlState::new("08007");
    pub const CARDINALITY_VIOLATION: SqlState = SqlState::new("21000");
    pub const STRING_DATA_RIGHT_TRUNCATION: SqlState = SqlState::new("22001");
    pub const NUMERIC_VALUE_OUT_OF_RANGE: SqlState = SqlState::new("22003");
    pub const INVALID_DATETIME_FORMAT: SqlState = SqlState::new("22007");
    pub const DATETIME_FIELD_OVERFLOW: SqlState = SqlState::new("22008");
    pub const INVALID_TIME_ZONE_DISPLACEMENT: SqlState = SqlState::new("22009");
    pub const INTERVAL_FIELD_OVERFLOW: SqlState = SqlState::new("22015");
    pub const DIVISION_BY_ZERO: SqlState = SqlState::new("22012");
    pub const INVALID_PARAMETER_VALUE: SqlState = SqlState::new("22023");
    pub const INVALID_TEXT_REPRESENTATION: SqlState = SqlState::new("22P02");
    pub const INVALID_BINARY_REPRESENTATION: SqlState = SqlState::new("22P03");
    pub const BAD_COPY_FILE_FORMAT: SqlState = SqlState::new("22P04");
    pub const CHARACTER_NOT_IN_REPERTOIRE: SqlState = SqlState::new("22021");
    pub const UNTRANSLATABLE_CHARACTER: SqlState = SqlState::new("22P05");
    pub const NOT_NULL_VIOLATION: SqlState = SqlState::new("23502");
    pub const UNIQUE_VIOLATION: SqlState = SqlState::new("23505");
    pub const CHECK_VIOLATION: SqlState = SqlState::new("23514");
    pub const ACTIVE_SQL_TRANSACTION: SqlState = SqlState::new("25001");
    pub const NO_ACTIVE_SQL_TRANSACTION: SqlState = SqlState::new("25P01");
    pub const IN_FAILED_SQL_TRANSACTION: SqlState = SqlState::new("25P02");
    pub const INVALID_SQL_STATEMENT_NAME: SqlState = SqlState::new("26000");
    pub const INVALID_PASSWORD: SqlState = SqlState::new("28P01");
    pub const INVALID_AUTHORIZATION: SqlState = SqlState::new("28000");
    pub const DEPENDENT_OBJECTS_STILL_EXIST: SqlState = SqlState::new("2BP01");
    pub const INVALID_CURSOR_NAME: SqlState = SqlState::new("34000");
    pub const INVALID_CATALOG_NAME: SqlState = SqlState::new("3D000");
    pub const INVALID_SCHEMA_NAME: SqlState = SqlState::new("3F000");
    pub const SERIALIZATION_FAILURE: SqlState = SqlState::new("40001");
    pub const SYNTAX_ERROR: SqlState = SqlState::new("42601");
    pub const INSUFFICIENT_PRIVILEGE: SqlState = SqlState::new("42501");
    pub const GROUPING_ERROR: SqlState = SqlState::new("42803");
    pub const DATATYPE_MISMATCH: SqlState = SqlState::new("42804");
    pub const WRONG_OBJECT_TYPE: SqlState = SqlState::new("42809");
    pub const UNDEFINED_COLUMN: SqlState = SqlState::new("42703");
    pub const UNDEFINED_FUNCTION: SqlState = SqlState::new("42883");
    pub const UNDEFINED_TABLE: SqlState = SqlState::new("42P01");
    pub const UNDEFINED_PARAMETER: SqlState = SqlState::new("42P02");
    pub const UNDEFINED_OBJECT: SqlState = SqlState::new("42704");
    pub const INDETERMINATE_DATATYPE: SqlState = SqlState::new("42P18");
    pub const DUPLICATE_COLUMN: SqlState = SqlState::new("42701");
    pub const DUPLICATE_DATABASE: SqlState = SqlState::new("42P04");
    pub const DUPLICATE_PREPARED_STATEMENT: SqlState = SqlState::new("42P05");
    pub const DUPLICATE_SCHEMA: SqlState = SqlState::new("42P06");
    pub const DUPLICATE_TABLE: SqlState = SqlState::new("42P07");
    pub const DUPLICATE_OBJECT: SqlState = SqlState::new("42710");
    pub const AMBIGUOUS_COLUMN: SqlState = SqlState::new("42702");
    pub const INVALID_TABLE_DEFINITION: SqlState = SqlState::new("42P16");
    pub const DISK_FULL: SqlState = SqlState::new("53100");
    pub const OUT_OF_MEMORY: SqlState = SqlState::new("53200");
    pub const TOO_MANY_CONNECTIONS: SqlState = SqlState::new("53300");
    pub const CONFIGURATION_LIMIT_EXCEEDED: SqlState = SqlState::new("53400");
    pub const PROGRAM_LIMIT_EXCEEDED: SqlState = SqlState::new("54000");
    pub const STATEMENT_TOO_COMPLEX: SqlState = SqlState::new("54001");
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: SqlState = SqlState::new("55000");
    pub const CANT_CHANGE_RUNTIME_PARAM: SqlState = SqlState::new("55P02");
    pub const LOCK_NOT_AVAILABLE: SqlState = SqlState::new("55P03");
    pub const QUERY_CANCELED: SqlState = SqlState::new("57014");
    pub const ADMIN_SHUTDOWN: SqlState = SqlState::new("57P01");
    pub const CANNOT_CONNECT_NOW: SqlState = SqlState::new("57P03");
    pub const IO_ERROR: SqlState = SqlState::new("58030");
    pub const SNAPSHOT_TOO_OLD: SqlState = SqlState::new("72000");
    pub const INTERNAL_ERROR: SqlState = SqlState::new("XX000");
    pub const DATA_CORRUPTED: SqlState = SqlState::new("XX001");
    pub const HYPERTABLE_NOT_EXIST: SqlState = SqlState::new("TS001");
    pub const HYPERTABLE_EXISTS: SqlState = SqlState::new("TS110");
    pub const HYPERTABLE_NOT_DISTRIBUTED: SqlState = SqlState::new("TS111");
    pub const BAD_HYPERTABLE_INDEX: SqlState = SqlState::new("TS103");
    pub const DUPLICATE_DIMENSION: SqlState = SqlState::new("TS160");
    pub const INSUFFICIENT_DATA_NODES: SqlState = SqlState::new("TS170");
    pub const DATA_NODE_ASSIGNMENT: SqlState = SqlState::new("TS171");
    pub const DATA_NODE_INVALID_CONFIG: SqlState = SqlState::new("TS174");
    pub const DATA_NODE_IN_USE: SqlState = SqlState::new("TS504");
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the receiver is to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// The caller's input was wrong: report it, the transaction fails.
    Report,
    /// Nothing happened; the same call may succeed later.
    Retry,
    /// The transaction cannot go on here: abort it everywhere.
    Abort,
    /// It is not known whether the call took effect: ask before deciding.
    Resolve,
    /// The node has stopped serving until a human looks.
    GiveUp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub code: SqlState,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// Where it happened, innermost first: `COPY conditions, line 3, column temp: "abc"`.
    pub context: Option<String>,
    /// Character position in the statement, from 1.
    pub position: Option<u32>,
    pub reaction: Reaction,
}

impl Error {
    pub fn new(code: SqlState, message: impl Into<String>) -> Error {
        Error {
            code,
            message: message.into(),
            detail: None,
            hint: None,
            context: None,
            position: None,
            reaction: Reaction::Report,
        }
    }

    pub fn unsupported(what: impl fmt::Display) -> Error {
        Error::new(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} is not supported yet"))
    }

    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(SqlState::INTERNAL_ERROR, message)
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Error {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a line behind the context that is there.
    pub fn context(mut self, context: impl Into<String>) -> Error {
        self.context = Some(match self.context {
            Some(inner) => format!("{inner}\n{}", context.into()),
            None => context.into(),
        });
        self
    }

    pub fn position(mut self, position: u32) -> Error {
        self.position = Some(position);
        self
    }

    pub fn reaction(mut self, reaction: Reaction) -> Error {
        self.reaction = reaction;
        self
    }

    /// The form in which a node's error is shown to a client: `[dn1]: …`. What the statement did wrong has no place: a
    /// value, a constraint, a race lost against another transaction read as on one machine.
    pub fn on_node(mut self, node: &crate::NodeName) -> Error {
        let of_the_statement = ["21", "22", "23", "40"].contains(&&self.code.as_str()[..2]);
        if !of_the_statement && !self.names_a_node() {
            self.message = format!("[{node}]: {}", self.message);
        }
        self
    }

    /// Whether it says on which node it happened, which need not be the one that reports it.
    pub fn names_a_node(&self) -> bool {
        self.message.starts_with('[')
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
