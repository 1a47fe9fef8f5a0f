//! PostgreSQL's binary form of values, as `typreceive` reads it; the inverse of `types::binary`.

use super::super::calendar::{DATE_MAX, DATE_MIN, PG_EPOCH_DAYS, PG_EPOCH_US, TIMESTAMP_MIN, US_PER_DAY};
use super::{ColumnBuilder, ListBuilder, PgType, Values, append_string, arrow_interval, decimal_from_binary, utf8};
use proto::{Error, Result, SqlState};

impl ColumnBuilder {
    /// Reads a value in its binary form.
    ///
    /// # Errors
    /// 22P03 for a wrong length, otherwise what PostgreSQL gives for the type.
    pub fn append_binary(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.values {
            Values::Bool(builder) => builder.append_value(fixed::<1>(bytes)?[0] != 0),
            Values::Int2(builder) => builder.append_value(i16::from_be_bytes(fixed(bytes)?)),
            Values::Int4(builder) => builder.append_value(i32::from_be_bytes(fixed(bytes)?)),
            Values::Int8(builder) => builder.append_value(i64::from_be_bytes(fixed(bytes)?)),
            Values::Oid(builder) => builder.append_value(u32::from_be_bytes(fixed(bytes)?)),
            Values::Float4(builder) => builder.append_value(f32::from_be_bytes(fixed(bytes)?)),
            Values::Float8(builder) => builder.append_value(f64::from_be_bytes(fixed(bytes)?)),
            Values::Decimal(builder, limits) => builder.append_value(decimal_from_binary(bytes, *limits)?),
            Values::Text(builder) => match &self.ty {
                PgType::Uuid => builder.append_value(super::uuid_text(&fixed(bytes)?)),
                PgType::Jsonb => match bytes.split_first() {
                    Some((1, text)) => append_string(&self.ty, utf8(text)?, builder)?,
                    Some((version, _)) => {
                        return Err(Error::internal(format!("unsupported jsonb version number {version}")));
                    }
                    None => return Err(wrong_length()),
                },
                PgType::Char if bytes == [0] => builder.append_value(""),
                ty => append_string(ty, utf8(bytes)?, builder)?,
            },
            Values::Bytes(builder) => builder.append_value(bytes),
            Values::Date(builder) => builder.append_value(date(i32::from_be_bytes(fixed(bytes)?))?),
            Values::Time(builder) => match i64::from_be_bytes(fixed(bytes)?) {
                us @ 0..=US_PER_DAY => builder.append_value(us),
                _ => return Err(Error::new(SqlState::DATETIME_FIELD_OVERFLOW, "time out of range")),
            },
            Values::Timestamp(builder) => builder.append_value(timestamp(i64::from_be_bytes(fixed(bytes)?))?),
            Values::Interval(builder) => {
                let bytes = fixed::<16>(bytes)?;
                let (us, rest) = bytes.split_at(8);
                let (days, months) = rest.split_at(4);
                let parts = (
                    i32::from_be_bytes(fixed(months)?),
                    i32::from_be_bytes(fixed(days)?),
                    i64::from_be_bytes(fixed(us)?),
                );
                builder.append_value(arrow_interval(parts)?);
            }
            Values::List(list) => append_array(list, bytes)?,
        }
        Ok(())
    }
}

fn append_array(list: &mut ListBuilder, bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    let dimensions = take_i32(&mut rest)?;
    let _has_nulls = take_i32(&mut rest)?;
    let element_oid = take_i32(&mut rest)? as u32;
    let expected = list.elements.ty.oid();
    if element_oid != expected {
        let message = format!("binary data has array element type {element_oid} instead of expected {expected}");
        return Err(Error::new(SqlState::DATATYPE_MISMATCH, message));
    }
    let count = match dimensions {
        0 => 0,
        1 => {
            let count = take_i32(&mut rest)?;
            let _lower_bound = take_i32(&mut rest)?;
            count
        }
        _ => return Err(Error::unsupported("an array of more than one dimension")),
    };
    for _ in 0..count {
        let length = take_i32(&mut rest)?;
        match usize::try_from(length) {
            Ok(length) => {
                let element = rest.get(..length).ok_or_else(insufficient)?;
                list.elements.append_binary(element)?;
                rest = &rest[length..];
            }
            Err(_) if length == -1 => list.elements.append_null(),
            Err(_) => return Err(insufficient()),
        }
    }
    if !rest.is_empty() {
        return Err(wrong_length());
    }
    list.end()
}

fn take_i32(rest: &mut &[u8]) -> Result<i32> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or_else(insufficient)?;
    *rest = tail;
    Ok(i32::from_be_bytes(*head))
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    match bytes.len() < N {
        true => Err(insufficient()),
        false => bytes.try_into().map_err(|_| wrong_length()),
    }
}

fn date(days: i32) -> Result<i32> {
    if days == i32::MAX || days == i32::MIN {
        return Ok(days);
    }
    let days = days.checked_add(PG_EPOCH_DAYS).filter(|days| (DATE_MIN..=DATE_MAX).contains(days));
    days.ok_or_else(|| Error::new(SqlState::DATETIME_FIELD_OVERFLOW, "date out of range"))
}

fn timestamp(us: i64) -> Result<i64> {
    if us == i64::MAX || us == i64::MIN {
        return Ok(us);
    }
    let us = us.checked_add(PG_EPOCH_US).filter(|us| (TIMESTAMP_MIN..i64::MAX).contains(us));
    us.ok_or_else(|| Error::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range"))
}

fn wrong_length() -> Error {
    Error::new(SqlState::INVALID_BINARY_REPRESENTATION, "incorrect binary data format")
}

fn insufficient() -> Error {
    Error::new(SqlState::PROTOCOL_VIOLATION, "insufficient data left in message")
}
