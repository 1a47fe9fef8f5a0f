//! OIDs to names and back: the input and output of regclass, regtype and their kin.

use super::{Context, column_of};
use crate::pgcatalog::functions::{quote_ident, split_ident};
use crate::pgcatalog::value::{Row, Value};
use engine::PgType;
use proto::{Error, Result, SqlState};

impl Context<'_> {
    /// How a reg* value prints: `-` for zero, the number when nothing has that OID.
    pub(crate) fn reg_text(&mut self, ty: &PgType, oid: i64) -> Result<String> {
        if oid == 0 {
            return Ok("-".to_owned());
        }
        let key = Value::Int(oid);
        let name = match ty {
            PgType::Regclass => self.class_name(oid),
            PgType::Regtype => Some(self.type_name(oid, -1)),
            PgType::Regproc => self.lookup_value("pg_proc", "oid", &key, "proname"),
            PgType::Regnamespace => self.lookup_value("pg_namespace", "oid", &key, "nspname").map(quoted),
            _ => self.lookup_value("pg_authid", "oid", &key, "rolname").map(quoted),
        };
        Ok(name.map_or_else(|| oid.to_string(), |name| name.as_str().to_owned()))
    }

    /// Schema-qualified unless the search path finds it.
    fn class_name(&mut self, oid: i64) -> Option<Value> {
        let row = self.lookup("pg_class", "oid", &Value::Int(oid)).into_iter().next()?;
        let name = quote_ident(row[column_of("pg_class", "relname")].as_str());
        if self.is_visible("pg_class", "relname", "relnamespace", &row) {
            return Some(Value::text(name));
        }
        let namespace = row[column_of("pg_class", "relnamespace")].clone();
        let schema = self.lookup_value("pg_namespace", "oid", &namespace, "nspname")?;
        Some(Value::text(format!("{}.{name}", quote_ident(schema.as_str()))))
    }

    /// The namespaces a bare name is looked for in, first one first.
    pub(crate) fn search_path_oids(&mut self) -> Vec<i64> {
        let path = self.catalog.search_path();
        let implicit = (!path.iter().any(|name| name == "pg_catalog")).then(|| "pg_catalog".to_owned());
        let names = implicit.into_iter().chain(path);
        names
            .filter_map(|name| self.lookup_value("pg_namespace", "nspname", &Value::text(name), "oid")?.as_int())
            .collect()
    }

    /// Whether a bare name finds this row and not one of the same name in an earlier schema.
    pub(crate) fn is_visible(&mut self, relation: &str, name: &str, namespace: &str, row: &Row) -> bool {
        let path = self.search_path_oids();
        let rank = |row: &Row| {
            let schema = row[column_of(relation, namespace)].as_int();
            path.iter().position(|oid| Some(*oid) == schema)
        };
        let Some(own) = rank(row) else { return false };
        let same_name = self.lookup(relation, name, &row[column_of(relation, name)].clone());
        same_name.iter().filter_map(rank).all(|other| other >= own)
    }

    /// `format_type`.
    pub(crate) fn type_name(&mut self, oid: i64, typmod: i64) -> Value {
        if let Some(ty) = u32::try_from(oid).ok().and_then(PgType::from_oid) {
            return Value::text(with_typmod(ty, typmod).to_string());
        }
        let Some(row) = self.lookup("pg_type", "oid", &Value::Int(oid)).into_iter().next() else {
            return Value::text("???");
        };
        let name = row[column_of("pg_type", "typname")].as_str();
        let element = row[column_of("pg_type", "typelem")].as_int().unwrap_or(0);
        if let (Some(_), true) = (name.strip_prefix('_'), element != 0) {
            return Value::text(format!("{}[]", self.type_name(element, -1).as_str()));
        }
        let spelled = match name {
            "timetz" => "time with time zone",
            "varbit" => "bit varying",
            name => name,
        };
        let namespace = row[column_of("pg_type", "typnamespace")].clone();
        let schema = self.lookup_value("pg_namespace", "oid", &namespace, "nspname");
        match schema.as_ref().map(Value::as_str) {
            Some("information_schema") => Value::text(format!("information_schema.{spelled}")),
            _ => Value::text(spelled),
        }
    }

    /// # Errors
    /// `42P01`, `42704`, `42883`: no such object; `3F000`: no such schema.
    pub(crate) fn parse_reg(&mut self, ty: &PgType, text: &str) -> Result<i64> {
        if text == "-" {
            return Ok(0);
        }
        if let Ok(oid) = text.parse::<u32>() {
            return Ok(oid as i64);
        }
        let kind = match ty {
            PgType::Regclass => {
                return self.find_class(text)?.ok_or_else(|| undefined(SqlState::UNDEFINED_TABLE, "relation", text));
            }
            PgType::Regtype => {
                return self.find_type(text)?.ok_or_else(|| undefined(SqlState::UNDEFINED_OBJECT, "type", text));
            }
            PgType::Regproc => ("pg_proc", "proname", SqlState::UNDEFINED_FUNCTION, "function"),
            PgType::Regnamespace => ("pg_namespace", "nspname", SqlState::INVALID_SCHEMA_NAME, "schema"),
            _ => ("pg_authid", "rolname", SqlState::UNDEFINED_OBJECT, "role"),
        };
        let (relation, column, code, what) = kind;
        let name = split_ident(text, true)?.pop().unwrap_or_default();
        let found = self.lookup_value(relation, column, &Value::text(&name), "oid");
        found.and_then(|oid| oid.as_int()).ok_or_else(|| undefined(code, what, text))
    }

    /// `None` when there is no such relation: `to_regclass`.
    pub(crate) fn find_class(&mut self, text: &str) -> Result<Option<i64>> {
        let mut parts = split_ident(text, true)?;
        let name = parts.pop().unwrap_or_default();
        let rows = self.lookup("pg_class", "relname", &Value::text(&name));
        let schemas = match parts.pop() {
            Some(schema) => {
                let oid = self.lookup_value("pg_namespace", "nspname", &Value::text(schema), "oid");
                oid.and_then(|oid| oid.as_int()).into_iter().collect()
            }
            None => self.search_path_oids(),
        };
        let (oid, namespace) = (column_of("pg_class", "oid"), column_of("pg_class", "relnamespace"));
        let in_schema = |schema: &i64| rows.iter().find(|row| row[namespace].as_int() == Some(*schema));
        Ok(schemas.iter().find_map(in_schema).and_then(|row| row[oid].as_int()))
    }

    pub(crate) fn find_type(&mut self, text: &str) -> Result<Option<i64>> {
        let bare = text.trim().strip_prefix("pg_catalog.").unwrap_or(text.trim());
        if let Some(ty) = PgType::parse(bare) {
            return Ok(Some(ty.oid() as i64).filter(|oid| *oid != 0));
        }
        let name = match bare.strip_suffix("[]") {
            Some(element) => format!("_{element}"),
            None => split_ident(bare, true)?.pop().unwrap_or_default(),
        };
        Ok(self.lookup_value("pg_type", "typname", &Value::text(name), "oid").and_then(|oid| oid.as_int()))
    }
}

fn quoted(name: Value) -> Value {
    Value::text(quote_ident(name.as_str()))
}

fn undefined(code: SqlState, what: &str, name: &str) -> Error {
    Error::new(code, format!("{what} \"{name}\" does not exist"))
}

fn with_typmod(ty: PgType, typmod: i64) -> PgType {
    let size = typmod - 4;
    match ty {
        PgType::Varchar(_) if size >= 0 => PgType::Varchar(Some(size as u32)),
        PgType::Bpchar(_) if size >= 0 => PgType::Bpchar(Some(size as u32)),
        PgType::Numeric(_) if size >= 0 => PgType::Numeric(Some(((size >> 16) as u8, (size & 0x7ff) as i8))),
        PgType::Array(inner) => PgType::Array(Box::new(with_typmod(*inner, typmod))),
        other => other,
    }
}
