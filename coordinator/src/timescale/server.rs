//! Functions of PostgreSQL itself that change or stop a session.

use super::host::Host;
use super::signature::Bound;
use crate::pgcatalog::{Row, Value};
use proto::{Error, Result, SqlState};

pub fn set_config(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let name = args.text("setting_name").unwrap_or_default().to_lowercase();
    let value = args.text("new_value").unwrap_or_default().to_owned();
    let runtime = tokio::runtime::Handle::current();
    runtime.block_on(host.session.assign(&name, value, args.bool("is_local", false)))?;
    Ok(vec![vec![Value::text(host.session.shown(&name)?)]])
}

pub fn cancel(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let pid = target(host, args)?;
    Ok(vec![vec![Value::Bool(host.session.cancels().cancel_backend(pid))]])
}

pub fn terminate(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let pid = target(host, args)?;
    Ok(vec![vec![Value::Bool(host.session.cancels().terminate_backend(pid))]])
}

/// One's own sessions, and for a superuser all.
fn target(host: &mut Host<'_>, args: &Bound<'_>) -> Result<i32> {
    let pid = i32::try_from(args.int("pid")?.unwrap_or_default()).unwrap_or_default();
    match host.session.may_stop(pid) {
        true => Ok(pid),
        false => Err(Error::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            "must be a member of the role whose process is being terminated",
        )),
    }
}
