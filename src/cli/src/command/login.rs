//! `micro login` and `micro logout`.

use std::net::IpAddr;

use micro_proto::auth::{ClaimRequest, InspectRequest, Options, TokenRequest};
use serde_json::json;

use crate::{
    command_line,
    context::{Context, Login},
    environment::{self, Environment},
    error::{Error, Result},
    prompt,
    session::{self, Session, TOKEN_SECONDS},
};

/// Logs in, setting up the first account before if there is a one-time token.
pub(crate) async fn login(mut context: Context, args: command_line::Login) -> Result<()> {
    if let Some(address) = &args.address {
        adopt(&mut context, address)?;
    }
    let env = context.environment()?;
    let namespace = context.namespace(&env)?;
    if !is_private(&env.address) {
        context.printer.note(&format!(
            "warning: the connection to {} is not encrypted: whoever is on the way can read the password",
            env.address
        ));
    }
    // Nobody should type a password before it is known that somebody listens.
    let session = Session::connect(env.clone(), namespace.clone()).await?;
    let printer = context.printer;
    let username = match args.username {
        Some(name) => name,
        None => prompt::line(printer, "Enter username: ", "--username")?,
    };
    let password = match (args.password, &args.token) {
        (Some(password), _) => password,
        (None, Some(_)) => prompt::new_password(printer, "--password")?,
        (None, None) => prompt::password(printer, "Enter password: ", "--password")?,
    };
    if let Some(token) = args.token {
        let request = session.request(ClaimRequest {
            token,
            id: username.clone(),
            secret: password.clone(),
        });
        session
            .auth()
            .claim(request)
            .await
            .map_err(|s| session.failure(s).plainly())?;
    }
    let login = obtain(&session, username, password).await?;
    context.remember(&env, &login)?;
    if printer.is_json() {
        return printer.json(&json!({
            "account": login.account,
            "namespace": login.issuer,
            "environment": env.name,
            "address": env.address,
        }));
    }
    printer.line("Successfully logged in.")
}

/// Exchanges a password for a token and learns whose it is.
async fn obtain(session: &Session, id: String, secret: String) -> Result<Login> {
    let options = Options {
        namespace: session.namespace.to_string(),
    };
    let request = session.request(TokenRequest {
        id: id.clone(),
        secret,
        token_expiry: TOKEN_SECONDS,
        options: Some(options.clone()),
        ..TokenRequest::default()
    });
    let answer = session.auth().token(request).await;
    let token = answer
        .map_err(|s| session.failure(s).plainly())?
        .into_inner()
        .token
        .ok_or_else(|| Error::failed("the server gave no token"))?;
    let token = session::stored(token, "");
    // An account may be named by its name, but tokens are kept by id.
    let request = session.request(InspectRequest {
        token: token.access_token.clone(),
        options: Some(options),
    });
    let answer = session.auth().inspect(request).await;
    let account = answer
        .map_err(|s| session.failure(s).plainly())?
        .into_inner()
        .account
        .map(|a| a.id)
        .filter(|id| !id.is_empty())
        .unwrap_or(id);
    Ok(Login {
        account,
        issuer: session.namespace.to_string(),
        token,
    })
}

/// Forgets the login of the environment and namespace in force.
pub(crate) fn logout(context: &mut Context) -> Result<()> {
    let env = context.environment()?;
    let namespace = context.namespace(&env)?;
    context.forget(&env, namespace.as_str())
}

/// Makes an environment for an address, unless there is one, and chooses it.
fn adopt(context: &mut Context, address: &str) -> Result<()> {
    let all = environment::all(&context.config)?;
    let name = match context.chosen_env() {
        Some(name) => name.to_owned(),
        None => match all.values().find(|env| env.address == address) {
            Some(env) => env.name.clone(),
            None => name_of(address),
        },
    };
    if all.get(&name).is_none_or(|env| env.address != address) {
        if let Some(other) = all.get(&name).filter(|_| context.chosen_env().is_none()) {
            return Err(Error::failed(format!(
                "the environment {name} is {} already",
                other.address
            ))
            .with_hint(format!(
                "name the new one: micro login --env NAME {address}"
            )));
        }
        environment::add(
            &mut context.config,
            Environment {
                name: name.clone(),
                address: address.into(),
                description: String::new(),
            },
        )?;
    }
    context.config.set("env", &name)?;
    context.choose_env(&name);
    context
        .printer
        .note(&format!("Environment {name} is {address}."));
    Ok(())
}

/// A name for the server at an address: its host, and its port when that is no usual one.
fn name_of(address: &str) -> String {
    let bare = address
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let bare = bare
        .strip_suffix(":443")
        .or_else(|| bare.strip_suffix(":8081"))
        .unwrap_or(bare);
    let name: String = bare
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    name.trim_matches('-').to_owned()
}

/// Whether nobody else can listen on the way: TLS, or this machine.
fn is_private(address: &str) -> bool {
    let (full, secure) = environment::dial(address);
    let host = full
        .rsplit_once(':')
        .map_or(full.as_str(), |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    secure
        || address.is_empty()
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_make_names_for_environments() {
        for (address, name) in [
            ("prod.example.com", "prod-example-com"),
            ("10.0.0.7:8081", "10-0-0-7"),
            ("https://box:9000/", "box-9000"),
            ("[::1]:8081", "1"),
        ] {
            assert_eq!(name_of(address), name);
        }
    }

    #[test]
    fn plain_connections_to_others_are_warned_about() {
        for (address, private) in [
            ("127.0.0.1:8081", true),
            ("[::1]:8081", true),
            ("localhost:8081", true),
            ("micro.example.com", true),
            ("10.0.0.7:8081", false),
            ("box:8081", false),
        ] {
            assert_eq!(is_private(address), private, "{address}");
        }
    }
}
