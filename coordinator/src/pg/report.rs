//! Errors, notices and status as messages.

use super::backend::{Notice, OutputColumn, Severity, TransactionStatus};
use pgwire::messages::data::{FieldDescription, RowDescription};
use pgwire::messages::response::{self, ErrorResponse, NoticeResponse, ReadyForQuery};
use proto::Error;

#[derive(Clone, Copy)]
pub(super) enum Gravity {
    Error,
    /// The connection ends with it.
    Fatal,
}

pub(super) fn error_response(error: &Error, gravity: Gravity) -> ErrorResponse {
    let severity = match gravity {
        Gravity::Error => "ERROR",
        Gravity::Fatal => "FATAL",
    };
    let mut fields = fields(severity, error.code.as_str(), &error.message, &error.detail, &error.hint);
    fields.extend(error.context.as_deref().map(|text| (b'W', without_nul(text))));
    if let Some(position) = error.position {
        fields.push((b'P', position.to_string()));
    }
    ErrorResponse::new(fields)
}

pub(super) fn notice_response(notice: &Notice) -> NoticeResponse {
    let severity = match notice.severity {
        Severity::Debug => "DEBUG",
        Severity::Info => "INFO",
        Severity::Notice => "NOTICE",
        Severity::Warning => "WARNING",
    };
    NoticeResponse::new(fields(severity, notice.code.as_str(), &notice.message, &notice.detail, &notice.hint))
}

fn fields(
    severity: &str,
    code: &str,
    message: &str,
    detail: &Option<String>,
    hint: &Option<String>,
) -> Vec<(u8, String)> {
    let mut fields = vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', code.to_owned()),
        (b'M', without_nul(message)),
    ];
    fields.extend(detail.as_deref().map(|text| (b'D', without_nul(text))));
    fields.extend(hint.as_deref().map(|text| (b'H', without_nul(text))));
    fields
}

/// A NUL inside a field would end it, and the rest be read as further fields.
fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}

pub(super) fn ready_for_query(status: TransactionStatus) -> ReadyForQuery {
    ReadyForQuery::new(match status {
        TransactionStatus::Idle => response::TransactionStatus::Idle,
        TransactionStatus::Block => response::TransactionStatus::Transaction,
        TransactionStatus::Failed => response::TransactionStatus::Error,
    })
}

/// `format` gives the format code of a column by its place.
pub(super) fn row_description(columns: &[OutputColumn], format: impl Fn(usize) -> i16) -> RowDescription {
    let field = |(place, column): (usize, &OutputColumn)| {
        FieldDescription::new(
            without_nul(&column.name),
            column.table_oid as i32,
            column.attnum,
            column.ty.oid(),
            column.ty.len(),
            column.ty.typmod(),
            format(place),
        )
    };
    RowDescription::new(columns.iter().enumerate().map(field).collect())
}
