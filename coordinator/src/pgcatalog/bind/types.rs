//! Conversions the binder puts in: a literal takes the type of what it meets.

use super::{Binder, Bound};
use crate::pgcatalog::cast::{element, is_number, is_text};
use crate::pgcatalog::schema::is_reg;
use crate::pgcatalog::tree::{Body, Expr, Query};
use crate::pgcatalog::value::Value;
use datafusion::sql::sqlparser::ast::DataType;
use engine::PgType;
use proto::{Error, Result, SqlState};

/// # Errors
/// `42704`: no such type here.
pub(crate) fn type_of(ty: &DataType) -> Result<PgType> {
    let text = ty.to_string().to_lowercase();
    let bare = text.strip_prefix("pg_catalog.").or_else(|| text.strip_prefix("\"pg_catalog\".")).unwrap_or(&text);
    if let Some(ty) = PgType::parse(bare) {
        return Ok(ty);
    }
    let unquoted = bare.replace('"', "");
    let (base, array) = unquoted.strip_suffix("[]").map_or((unquoted.as_str(), false), |base| (base, true));
    let plain = match base {
        "char" if bare.contains('"') => PgType::Char,
        "information_schema.sql_identifier" => PgType::Name,
        "information_schema.cardinal_number" => PgType::Int4,
        "information_schema.character_data" => PgType::Varchar(None),
        "information_schema.yes_or_no" => PgType::Varchar(Some(3)),
        "information_schema.time_stamp" => PgType::Timestamptz,
        "aclitem" | "cstring" | "pg_node_tree" | "inet" | "xid8" | "pg_lsn" | "anyarray" | "tid" | "citext" => {
            PgType::Text
        }
        "cid" => PgType::Xid,
        // Looked up as their kin: catalogs name procedures and operators by them.
        "regprocedure" => PgType::Regproc,
        "regoper" | "regoperator" | "regconfig" | "regdictionary" | "regcollation" => PgType::Oid,
        other => match PgType::parse(other) {
            Some(ty) => ty,
            None => return Err(Error::new(SqlState::UNDEFINED_OBJECT, format!("type \"{text}\" does not exist"))),
        },
    };
    Ok(if array { PgType::Array(Box::new(plain)) } else { plain })
}

impl Binder<'_> {
    /// `bound` as a `to`; a parameter of open type takes it.
    pub(super) fn convert(&mut self, bound: Bound, to: &PgType) -> Expr {
        if let (Expr::Param(index, PgType::Unknown), true) = (&bound.expr, *to != PgType::Unknown) {
            self.params[*index] = to.clone();
            return Expr::Param(*index, to.clone());
        }
        if bound.ty == *to || *to == PgType::Unknown {
            return bound.expr;
        }
        if matches!(bound.expr, Expr::Const(Value::Null)) {
            return bound.expr;
        }
        Expr::Cast { expr: Box::new(bound.expr), from: bound.ty, to: to.clone() }
    }

    /// As text, the way the type's output function writes it.
    pub(super) fn output_form(&mut self, bound: Bound) -> Expr {
        match bound.ty {
            PgType::Bool => Expr::Cast { expr: Box::new(bound.expr), from: PgType::Bool, to: PgType::Unknown },
            _ => self.convert(bound, &PgType::Text),
        }
    }

    /// Both sides of a comparison in one type family.
    ///
    /// # Errors
    /// `42883` when they have none in common.
    pub(super) fn unify_pair(&mut self, left: Bound, right: Bound, operator: &str) -> Result<(Expr, Expr, PgType)> {
        let Some(ty) = common(&left.ty, &right.ty) else {
            let message = format!("operator does not exist: {} {operator} {}", left.ty, right.ty);
            let hint =
                "No operator matches the given name and argument types. You might need to add explicit type casts.";
            return Err(Error::new(SqlState::UNDEFINED_FUNCTION, message).hint(hint));
        };
        let (left_ty, right_ty) = (left.ty.clone(), right.ty.clone());
        let side = |binder: &mut Self, bound: Bound, own: &PgType| match own {
            PgType::Unknown => binder.convert(bound, &ty),
            // Kinds of numbers and of texts compare as they are.
            own if is_number(own) && is_number(&ty) || is_text(own) && is_text(&ty) => bound.expr,
            _ => binder.convert(bound, &ty),
        };
        let left = side(self, left, &left_ty);
        let right = side(self, right, &right_ty);
        Ok((left, right, ty))
    }

    /// The branches of a CASE, the rows of a column: all in one type.
    ///
    /// # Errors
    /// `42804` when they have none in common.
    pub(super) fn unify_all(&mut self, bounds: Vec<Bound>, what: &str) -> Result<(Vec<Expr>, PgType)> {
        let mut ty = PgType::Unknown;
        for bound in &bounds {
            ty = common(&ty, &bound.ty).ok_or_else(|| {
                let message = format!("{what} types {ty} and {} cannot be matched", bound.ty);
                Error::new(SqlState::DATATYPE_MISMATCH, message)
            })?;
        }
        let ty = if ty == PgType::Unknown { PgType::Text } else { ty };
        Ok((bounds.into_iter().map(|bound| self.convert(bound, &ty)).collect(), ty))
    }
}

/// The type two values meet in; `None` when PostgreSQL would find no operator.
pub(super) fn common(a: &PgType, b: &PgType) -> Option<PgType> {
    use PgType::*;
    if a == b {
        return Some(a.clone());
    }
    Some(match (a, b) {
        (Unknown, other) | (other, Unknown) => other.clone(),
        (Array(inner), other) | (other, Array(inner)) if element(other).is_some() => {
            Array(Box::new(common(inner, &element(other)?)?))
        }
        (reg, other) | (other, reg) if is_reg(reg) && is_text(other) => Text,
        (a, b) if is_number(a) && is_number(b) => wider(a, b),
        (a, b) if is_text(a) && is_text(b) => Text,
        (Timestamptz, Timestamp | Date) | (Timestamp | Date, Timestamptz) => Timestamptz,
        (Timestamp, Date) | (Date, Timestamp) => Timestamp,
        _ => return None,
    })
}

fn wider(a: &PgType, b: &PgType) -> PgType {
    use PgType::*;
    let rank = |ty: &PgType| match ty {
        Int2 => 0,
        Int4 => 1,
        // An oid keeps being one beside a plain integer.
        Oid | Xid => 3,
        Int8 => 4,
        Numeric(_) => 5,
        Float4 => 6,
        Float8 => 7,
        _ => 2,
    };
    match (a, b) {
        (a, b) if is_reg(a) && is_reg(b) => Oid,
        (Numeric(_), Numeric(_)) => Numeric(None),
        (a, b) if rank(a) >= rank(b) => a.clone(),
        (_, b) => b.clone(),
    }
}

/// Brings a query's columns to given types; where they are still literals of open type, at their source.
pub(super) fn retype(query: &mut Query, types: &[PgType]) {
    let change: Vec<(PgType, PgType)> =
        query.columns.iter().zip(types).map(|(column, ty)| (column.ty.clone(), ty.clone())).collect();
    if change.iter().all(|(from, to)| from == to) {
        return;
    }
    let wrap = |row: &mut Vec<Expr>| {
        for (expr, (from, to)) in row.iter_mut().zip(&change) {
            if from != to {
                let inner = std::mem::replace(expr, Expr::Const(Value::Null));
                *expr = Expr::Cast { expr: Box::new(inner), from: from.clone(), to: to.clone() };
            }
        }
    };
    match &mut query.body {
        Body::Select(select) => wrap(&mut select.projection),
        Body::Values(rows) => rows.iter_mut().for_each(wrap),
        Body::Query(inner) => retype(inner, types),
        Body::Set { left, right, .. } => {
            retype(left, types);
            retype(right, types);
        }
    }
    for (column, ty) in query.columns.iter_mut().zip(types) {
        column.ty = ty.clone();
    }
}

/// Literals that met nothing are text.
pub(super) fn settle_unknown(query: &mut Query) {
    let settle = |ty: &PgType| if *ty == PgType::Unknown { PgType::Text } else { ty.clone() };
    let types: Vec<PgType> = query.columns.iter().map(|column| settle(&column.ty)).collect();
    retype(query, &types);
}
