//! What a scan may skip: conjunctive bounds on columns, without any SQL. They are hints. A store may return rows that
//! do not satisfy them; it must never leave out one that does.

use crate::ColumnId;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnPredicate {
    pub column: ColumnId,
    pub kind: PredicateKind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PredicateKind {
    /// `min <= value <= max`, both ends included; NULL never qualifies.
    Range { min: Option<Scalar>, max: Option<Scalar> },
    /// `value = ANY (…)`; NULL never qualifies.
    OneOf(Vec<Scalar>),
}

/// Of rows that agree in all columns of `of`, only one with the largest `time` is wanted. A hint as well: more rows may
/// be returned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latest {
    pub of: Vec<ColumnId>,
    pub time: ColumnId,
}

/// A value as it is compared: dates as days, timestamps as microseconds, all integers as i64.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Scalar {
    Int(i64),
    /// On the wire its bits: a bound that is off by one in the last place would leave rows out.
    Float(#[serde(with = "bits")] f64),
    Text(String),
    Bytes(Vec<u8>),
}

mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.to_bits())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decimal text is not read back exactly by every reader.
    #[test]
    fn a_bound_keeps_its_last_bit_on_the_wire() {
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..10_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = f64::from_bits(bits);
            let json = serde_json::to_vec(&Scalar::Float(value)).unwrap();
            let Scalar::Float(back) = serde_json::from_slice(&json).unwrap() else { panic!("another kind") };
            assert_eq!(back.to_bits(), bits);
        }
    }
}
