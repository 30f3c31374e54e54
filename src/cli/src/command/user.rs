//! `micro user`: who you are, where you work, and your settings.

use micro_core::Namespace;
use serde_json::json;

use crate::{
    command::{accounts, block_on},
    command_line::{User, UserCommand, UserConfigCommand, UserNamespaceCommand, UserSetCommand},
    context::{Context, Login},
    error::{Error, Result},
    prompt,
    session::Session,
};

/// Shows or changes something of the user.
pub(crate) fn run(context: Context, args: User) -> Result<()> {
    match args.command {
        None => who(&context),
        Some(UserCommand::Token) => block_on(token(&context)),
        Some(UserCommand::Namespace(args)) => match args.command {
            None => namespace(&context),
            Some(UserNamespaceCommand::Set { name }) => choose(context, &name),
        },
        Some(UserCommand::Config(args)) => config(context, args.command),
        Some(UserCommand::Set(args)) => {
            let UserSetCommand::Password {
                email,
                old_password,
                new_password,
            } = args.command;
            block_on(password(&context, email, old_password, new_password))
        }
    }
}

fn login_of(context: &Context) -> Result<Login> {
    let env = context.environment()?;
    let namespace = context.namespace(&env)?;
    context
        .login(&env, namespace.as_str())?
        .ok_or_else(|| Error::failed("You are not logged in").with_hint("run `micro login`"))
}

fn who(context: &Context) -> Result<()> {
    let login = login_of(context)?;
    if context.printer.is_json() {
        return context
            .printer
            .json(&json!({ "account": login.account, "namespace": login.issuer }));
    }
    context.printer.line(&login.account)
}

/// The token, renewed first if it is about to end.
async fn token(context: &Context) -> Result<()> {
    let kept = login_of(context)?;
    // The printed token should work; if nobody can be reached to renew it, the kept one must do.
    let token = match Session::open(context).await {
        Ok(session) => session
            .login()
            .map_or(kept.token.clone(), |login| login.token.clone()),
        Err(_) => kept.token,
    };
    if context.printer.is_json() {
        return context.printer.json(&json!({
            "access_token": token.access_token,
            "expiry": token.expiry,
        }));
    }
    context.printer.line(&token.access_token)
}

fn namespace(context: &Context) -> Result<()> {
    let env = context.environment()?;
    let namespace = context.namespace(&env)?;
    if context.printer.is_json() {
        return context.printer.json(&json!({ "namespace": namespace }));
    }
    context.printer.line(namespace.as_str())
}

fn choose(mut context: Context, name: &str) -> Result<()> {
    let namespace = Namespace::parse(name).map_err(|e| Error::usage(e.to_string()))?;
    let env = context.environment()?;
    let all_key = format!("namespaces.{}.all", env.name);
    let all = context.config.get(&all_key).unwrap_or_default();
    if !all.split(',').any(|n| n == namespace.as_str()) {
        let all = if all.is_empty() {
            namespace.to_string()
        } else {
            format!("{all},{namespace}")
        };
        context.config.set(&all_key, &all)?;
    }
    context.config.set(
        &format!("namespaces.{}.current", env.name),
        namespace.as_str(),
    )?;
    if context.login(&env, namespace.as_str())?.is_none() {
        context.printer.note(&format!(
            "note: nobody is logged in to namespace {namespace}; run `micro login`"
        ));
    }
    Ok(())
}

fn config(mut context: Context, command: Option<UserConfigCommand>) -> Result<()> {
    match command {
        None => summary(&context),
        Some(UserConfigCommand::Get { key }) => {
            let value = context.config.get(&key);
            if context.printer.is_json() {
                return context.printer.json(&json!({ "key": key, "value": value }));
            }
            context.printer.line(&value.unwrap_or_default())
        }
        Some(UserConfigCommand::Set { key, value }) => context.config.set(&key, &value),
        Some(UserConfigCommand::Delete { key }) => context.config.delete(&key),
    }
}

fn summary(context: &Context) -> Result<()> {
    let env = context.environment()?;
    let login = context.login(&env, context.namespace(&env)?.as_str())?;
    let namespace = context
        .config
        .get(&format!("namespaces.{}.current", env.name));
    let base = context
        .config
        .get(&format!("git.{}.baseurl", env.name))
        .or_else(|| context.config.get("git.baseurl"));
    let has_credentials = context.config.get("git.credentials").is_some();
    if context.printer.is_json() {
        return context.printer.json(&json!({
            "user": login.map(|l| l.account),
            "namespace": namespace,
            "environment": env.name,
            "git": { "credentials": has_credentials, "baseurl": base },
        }));
    }
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "n/a".into());
    context.printer.line(&format!(
        "user: {}\nnamespace: {}\nenvironment: {}\ngit.credentials: {}\ngit.baseurl: {}",
        or_none(login.map(|l| l.account)),
        or_none(namespace),
        env.name,
        if has_credentials { "[hidden]" } else { "n/a" },
        or_none(base),
    ))
}

async fn password(
    context: &Context,
    account: Option<String>,
    old: Option<String>,
    new: Option<String>,
) -> Result<()> {
    let login = login_of(context)?;
    let session = Session::open(context).await?;
    let printer = context.printer;
    let old = match old {
        Some(old) => old,
        None => prompt::password(printer, "Enter current password: ", "--old-password")?,
    };
    let new = match new {
        Some(new) => new,
        None => prompt::new_password(printer, "--new-password")?,
    };
    let id = account.unwrap_or(login.account);
    accounts::change_secret(&session, &id, old, new, &login.issuer).await?;
    if printer.is_json() {
        return printer.json(&json!({ "account": id, "changed": true }));
    }
    printer.note("Password changed.");
    Ok(())
}
