//! Rows: comparisons of row values, and the cells of VALUES.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, SetExpr, Value, ValueWithSpan, Values,
};

/// `(a, b) = (c, d)` compares part by part, `(a, b) < (c, d)` by the first parts that differ.
pub fn comparison(expr: &mut Expr) {
    let Expr::BinaryOp { left, op, right } = expr else { return };
    let (Expr::Tuple(left), Expr::Tuple(right)) = (left.as_ref(), right.as_ref()) else { return };
    if left.len() != right.len() || left.is_empty() {
        return;
    }
    let all = |op: BinaryOperator, joined_by: BinaryOperator| {
        let parts = left.iter().zip(right).map(|(a, b)| binary(a.clone(), op.clone(), b.clone()));
        parts.reduce(|before, part| binary(before, joined_by.clone(), part))
    };
    let compared = match op {
        BinaryOperator::Eq => all(BinaryOperator::Eq, BinaryOperator::And),
        BinaryOperator::NotEq => all(BinaryOperator::NotEq, BinaryOperator::Or),
        BinaryOperator::Lt | BinaryOperator::LtEq => ordered(left, right, &BinaryOperator::Lt, op),
        BinaryOperator::Gt | BinaryOperator::GtEq => ordered(left, right, &BinaryOperator::Gt, op),
        _ => None,
    };
    if let Some(compared) = compared {
        *expr = Expr::Nested(Box::new(compared));
    }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn ordered(left: &[Expr], right: &[Expr], strict: &BinaryOperator, last: &BinaryOperator) -> Option<Expr> {
    let ((a, left_rest), (b, right_rest)) = (left.split_first()?, right.split_first()?);
    let (a, b) = (a.clone(), b.clone());
    let Some(rest) = ordered(left_rest, right_rest, strict, last) else {
        return Some(binary(a, last.clone(), b));
    };
    let equal = binary(binary(a.clone(), BinaryOperator::Eq, b.clone()), BinaryOperator::And, rest);
    Some(Expr::Nested(Box::new(binary(binary(a, strict.clone(), b), BinaryOperator::Or, equal))))
}

/// A column of VALUES has one type: where one cell is cast, literals of the same column are read as that type.
pub fn values(body: &mut SetExpr) {
    let SetExpr::Values(Values { rows, .. }) = body else { return };
    let columns = rows.first().map_or(0, |row| row.content.len());
    for column in 0..columns {
        let cast_type = rows.iter().filter_map(|row| row.content.get(column)).find_map(|cell| match cell {
            Expr::Cast { data_type, .. } => Some(data_type.clone()),
            Expr::TypedString(typed) => Some(typed.data_type.clone()),
            _ => None,
        });
        let Some(ty) = cast_type else { continue };
        for cell in rows.iter_mut().filter_map(|row| row.content.get_mut(column)) {
            if takes(&ty, cell) {
                let literal = std::mem::replace(cell, Expr::Value(ValueWithSpan::from(Value::Null)));
                *cell = Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(literal),
                    data_type: ty.clone(),
                    array: false,
                    format: None,
                };
            }
        }
    }
}

/// Quoted literals take any type; numbers take the types that PostgreSQL prefers over theirs.
fn takes(ty: &DataType, cell: &Expr) -> bool {
    let Expr::Value(value) = cell else { return false };
    match &value.value {
        Value::SingleQuotedString(_) => true,
        Value::Number(..) => {
            matches!(ty, DataType::Float(_) | DataType::Double(_) | DataType::DoublePrecision | DataType::Float8)
                || matches!(ty, DataType::Real | DataType::Float4)
        }
        _ => false,
    }
}
