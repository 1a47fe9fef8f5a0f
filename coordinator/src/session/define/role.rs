//! Roles. The only place that sees a password: it becomes a SCRAM verifier here, before anything is logged or sent.

use super::columns::{checked_name, unserved};
use super::{object_name, skip_or};
use crate::catalog::{CatalogChange, Role, RoleAlteration, SettingScope};
use crate::pg::scram::Verifier;
use crate::session::Session;
use crate::session::parse::fold;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    AlterRoleOperation, CreateRole, Expr, Ident, Password, ResetConfig, RoleOption, SetConfigValue, Value as Literal,
};
use engine::PgType;
use engine::types::{TimeContext, parse_scalar};
use proto::{Error, Result, SqlState};

pub async fn create(session: &mut Session, create: &CreateRole) -> Result<&'static str> {
    session.check_writable("CREATE ROLE")?;
    let options = Options {
        password: create.password.as_ref(),
        login: create.login,
        superuser: create.superuser,
        create_db: create.create_db,
        create_role: create.create_role,
        inherit: create.inherit,
        connection_limit: create.connection_limit.as_ref(),
        valid_until: create.valid_until.as_ref(),
    };
    for name in &create.names {
        let name = checked_name(object_name(name).1)?;
        if name.starts_with("pg_") || name == "public" || name == "none" {
            return Err(Error::new(SqlState::new("42939"), format!("role name \"{name}\" is reserved")));
        }
        check_creator(session, "create role", &options).await?;
        let alteration = options.resolve(session)?;
        let mut role = Role::new(session.new_oid(), &name);
        role.verifier = alteration.verifier.clone().flatten();
        role.login = alteration.login.unwrap_or(role.login);
        role.superuser = alteration.superuser.unwrap_or(role.superuser);
        role.create_db = alteration.create_db.unwrap_or(role.create_db);
        role.create_role = alteration.create_role.unwrap_or(role.create_role);
        role.inherit = alteration.inherit.unwrap_or(role.inherit);
        role.connection_limit = alteration.connection_limit.unwrap_or(role.connection_limit);
        role.valid_until_us = alteration.valid_until_us.flatten();
        session.change(CatalogChange::CreateRole(role)).await?;
        for above in create.in_role.iter().chain(&create.in_group) {
            session.change(CatalogChange::GrantRole { role: fold(above), member: name.clone() }).await?;
        }
        for below in create.role.iter().chain(&create.user).chain(&create.admin) {
            session.change(CatalogChange::GrantRole { role: name.clone(), member: fold(below) }).await?;
        }
    }
    Ok("CREATE ROLE")
}

/// What CREATE ROLE and ALTER ROLE have in common.
#[derive(Default)]
struct Options<'a> {
    password: Option<&'a Password>,
    login: Option<bool>,
    superuser: Option<bool>,
    create_db: Option<bool>,
    create_role: Option<bool>,
    inherit: Option<bool>,
    connection_limit: Option<&'a Expr>,
    valid_until: Option<&'a Expr>,
}

impl Options<'_> {
    fn resolve(&self, session: &Session) -> Result<RoleAlteration> {
        let connection_limit = self.connection_limit.map(|expr| {
            let text = expr.to_string();
            text.parse::<i32>()
                .map_err(|_| Error::new(SqlState::SYNTAX_ERROR, format!("invalid connection limit: {text}")))
        });
        let valid_until_us = self.valid_until.map(|expr| valid_until(session, expr)).transpose()?;
        Ok(RoleAlteration {
            verifier: self.password.map(|password| verifier(session, password)).transpose()?,
            login: self.login,
            superuser: self.superuser,
            create_db: self.create_db,
            create_role: self.create_role,
            inherit: self.inherit,
            connection_limit: connection_limit.transpose()?,
            valid_until_us,
        })
    }
}

/// A ready verifier is taken as it is, as `\password` sends one.
fn verifier(session: &Session, password: &Password) -> Result<Option<String>> {
    let Password::Password(expr) = password else { return Ok(None) };
    let text =
        literal(expr).ok_or_else(|| Error::new(SqlState::SYNTAX_ERROR, "a password must be a string literal"))?;
    if let Some(verifier) = Verifier::parse(&text) {
        return Ok(Some(verifier.to_string()));
    }
    if text.starts_with("md5") && text.len() == 35 {
        return Err(unserved("an md5 password"));
    }
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(Verifier::from_password(&text, &*session.front.rng).to_string()))
}

fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Literal::SingleQuotedString(text) | Literal::EscapedStringLiteral(text) => Some(text.clone()),
            Literal::DollarQuotedString(text) => Some(text.value.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// `infinity` is no end.
fn valid_until(session: &Session, expr: &Expr) -> Result<Option<i64>> {
    let text = literal(expr).unwrap_or_else(|| expr.to_string());
    let context = TimeContext::of_session(&session.settings())?;
    match parse_scalar(&PgType::Timestamptz, &text, &context)? {
        ScalarValue::TimestampMicrosecond(Some(us), _) => Ok((us != i64::MAX).then_some(us)),
        _ => Ok(None),
    }
}

async fn check_creator(session: &mut Session, what: &str, options: &Options<'_>) -> Result<()> {
    let catalog = session.catalog().await;
    let user = catalog.role(session.current_user())?;
    let needs_superuser = options.superuser == Some(true);
    match (user.superuser, needs_superuser, user.create_role) {
        (true, ..) | (false, false, true) => Ok(()),
        (false, true, _) => Err(Error::new(SqlState::INSUFFICIENT_PRIVILEGE, "must be superuser to create superusers")),
        _ => Err(Error::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied to {what}"))),
    }
}

pub async fn alter(session: &mut Session, name: &Ident, operation: &AlterRoleOperation) -> Result<&'static str> {
    session.check_writable("ALTER ROLE")?;
    let name = match fold(name).as_str() {
        "current_user" | "current_role" => session.current_user().to_owned(),
        "session_user" => session.session_user.clone(),
        _ => fold(name),
    };
    let catalog = session.catalog().await;
    let role = catalog.role(&name)?;
    match operation {
        AlterRoleOperation::WithOptions { options } => {
            let options = collected(options);
            let only_password = matches!(
                options,
                Options {
                    login: None,
                    superuser: None,
                    create_db: None,
                    create_role: None,
                    inherit: None,
                    connection_limit: None,
                    valid_until: None,
                    ..
                }
            );
            if !(only_password && name == session.current_user()) {
                let demands =
                    Options { superuser: options.superuser.or(role.superuser.then_some(true)), ..Options::default() };
                check_creator(session, "alter role", &demands).await?;
            }
            let alteration = options.resolve(session)?;
            session.change(CatalogChange::AlterRole { name, alteration }).await?;
        }
        AlterRoleOperation::Set { config_name, config_value, in_database } => {
            let value = match config_value {
                SetConfigValue::Value(expr) => Some(literal(expr).unwrap_or_else(|| expr.to_string())),
                SetConfigValue::Default => None,
                SetConfigValue::FromCurrent => Some(session.variables.show(&config_name.to_string())?),
            };
            if let Some(value) = &value {
                session.variables.clone().set(&config_name.to_string(), value)?;
            }
            check_creator_or_self(session, &name).await?;
            let scope = scope(&name, in_database.as_ref().map(|database| object_name(database).1));
            session
                .change(CatalogChange::SetSetting { scope, name: config_name.to_string().to_lowercase(), value })
                .await?;
        }
        AlterRoleOperation::Reset { config_name, in_database } => {
            check_creator_or_self(session, &name).await?;
            let names = match config_name {
                ResetConfig::ALL => role.settings.keys().cloned().collect(),
                ResetConfig::ConfigName(one) => vec![one.to_string().to_lowercase()],
            };
            for setting in names {
                let scope = scope(&name, in_database.as_ref().map(|database| object_name(database).1));
                session.change(CatalogChange::SetSetting { scope, name: setting, value: None }).await?;
            }
        }
        AlterRoleOperation::RenameRole { .. } => return Err(unserved("ALTER ROLE … RENAME")),
        other => return Err(unserved(&format!("ALTER ROLE … {other}"))),
    }
    Ok("ALTER ROLE")
}

fn scope(role: &str, database: Option<String>) -> SettingScope {
    match database {
        Some(database) => SettingScope::RoleInDatabase { role: role.to_owned(), database },
        None => SettingScope::Role(role.to_owned()),
    }
}

async fn check_creator_or_self(session: &mut Session, name: &str) -> Result<()> {
    match name == session.current_user() {
        true => Ok(()),
        false => check_creator(session, "alter role", &Options::default()).await,
    }
}

fn collected(options: &[RoleOption]) -> Options<'_> {
    let mut all = Options::default();
    for option in options {
        match option {
            RoleOption::Password(password) => all.password = Some(password),
            RoleOption::Login(on) => all.login = Some(*on),
            RoleOption::SuperUser(on) => all.superuser = Some(*on),
            RoleOption::CreateDB(on) => all.create_db = Some(*on),
            RoleOption::CreateRole(on) => all.create_role = Some(*on),
            RoleOption::Inherit(on) => all.inherit = Some(*on),
            RoleOption::ConnectionLimit(limit) => all.connection_limit = Some(limit),
            RoleOption::ValidUntil(until) => all.valid_until = Some(until),
            // Neither row security nor streaming replication exists here to be bypassed or used.
            RoleOption::BypassRLS(_) | RoleOption::Replication(_) => {}
        }
    }
    all
}

pub async fn drop(session: &mut Session, name: &str, if_exists: bool) -> Result<()> {
    session.check_writable("DROP ROLE")?;
    let catalog = session.catalog().await;
    let role = match catalog.role(name) {
        Ok(role) => role,
        Err(missing) => return skip_or(session, if_exists, missing),
    };
    let demands = Options { superuser: role.superuser.then_some(true), ..Options::default() };
    check_creator(session, "drop role", &demands).await?;
    if name == session.current_user() || name == session.session_user {
        return Err(Error::new(SqlState::new("55006"), "current user cannot be dropped"));
    }
    session.change(CatalogChange::DropRole(name.to_owned())).await
}
