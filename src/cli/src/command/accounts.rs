//! `micro auth … account` and secrets.

use micro_proto::auth::{
    Account, ChangeSecretRequest, DeleteAccountRequest, GenerateRequest, ListAccountsRequest,
    Options, TokenRequest,
};
use serde_json::{Map, Value, json};

use crate::{
    context::Context,
    error::{Error, Result},
    prompt,
    session::{self, Session},
    table::{self, Padding},
};

/// The namespace in force, as the options of a request.
pub(crate) fn options(session: &Session) -> Option<Options> {
    Some(Options {
        namespace: session.namespace.to_string(),
    })
}

/// `micro auth list accounts`
pub(crate) async fn list(context: &Context) -> Result<()> {
    let session = Session::open(context).await?;
    let request = session.request(ListAccountsRequest {
        options: options(&session),
    });
    let answer = session.accounts().list(request).await;
    let mut accounts = answer
        .map_err(|s| session.failure(s).plainly())?
        .into_inner()
        .accounts;
    accounts.sort_by(|a, b| a.id.cmp(&b.id));
    if context.printer.is_json() {
        let rows: Vec<_> = accounts.iter().map(shown).collect();
        return context.printer.json(&rows);
    }
    let table = table::align(&rows(&accounts), Padding::Tabs);
    context.printer.write(table.as_bytes())
}

fn rows(accounts: &[Account]) -> String {
    let mut text = String::from("ID\t\tName\t\tScopes\t\tMetadata\n");
    for account in accounts {
        let mut metadata: Vec<_> = account.metadata.iter().collect();
        metadata.sort();
        let metadata: String = metadata
            .iter()
            .map(|(key, value)| format!("{key}={value} "))
            .collect();
        let or_none = |text: String| if text.is_empty() { "n/a".into() } else { text };
        text.push_str(&format!(
            "{}\t\t{}\t\t{}\t\t{}\n",
            account.id,
            account.name,
            or_none(account.scopes.join(", ")),
            or_none(metadata),
        ));
    }
    text
}

/// An account in the shape that Micro prints.
fn shown(account: &Account) -> Value {
    let mut object = Map::new();
    let mut add = |key: &str, value: Value| object.insert(key.into(), value);
    add("id", json!(account.id));
    add("type", json!(account.r#type));
    add("issuer", json!(account.issuer));
    add("metadata", json!(account.metadata));
    add("scopes", json!(account.scopes));
    if !account.secret.is_empty() {
        add("secret", json!(account.secret));
    }
    add("name", json!(account.name));
    Value::Object(object)
}

/// `micro auth create account`
pub(crate) async fn create(
    context: &Context,
    id: String,
    secret: Option<String>,
    scopes: Vec<String>,
    kind: String,
) -> Result<()> {
    let session = Session::open(context).await?;
    let request = session.request(GenerateRequest {
        id,
        secret: secret.unwrap_or_default(),
        scopes,
        r#type: kind,
        options: options(&session),
        ..GenerateRequest::default()
    });
    let answer = session.auth().generate(request).await;
    let account = answer
        .map_err(|s| session.failure(s).plainly())?
        .into_inner()
        .account
        .unwrap_or_default();
    if context.printer.is_json() {
        return context.printer.json(&shown(&account));
    }
    context
        .printer
        .line(&format!("Account created: {}", shown(&account)))
}

/// `micro auth delete account`
pub(crate) async fn delete(context: &Context, id: String) -> Result<()> {
    let session = Session::open(context).await?;
    let request = session.request(DeleteAccountRequest {
        id: id.clone(),
        options: options(&session),
    });
    let answer = session.accounts().delete(request).await;
    answer.map_err(|s| session.failure(s).plainly())?;
    if context.printer.is_json() {
        return context.printer.json(&json!({ "id": id, "deleted": true }));
    }
    Ok(())
}

/// `micro auth create token`
pub(crate) async fn token(
    context: &Context,
    id: String,
    secret: Option<String>,
    expiry: i64,
) -> Result<()> {
    if expiry <= 0 {
        return Err(Error::usage("--expiry must be a number of seconds above 0"));
    }
    let session = Session::open(context).await?;
    let secret = match secret {
        Some(secret) => secret,
        None => prompt::password(context.printer, "Enter password: ", "--secret")?,
    };
    let request = session.request(TokenRequest {
        id,
        secret,
        token_expiry: expiry,
        options: options(&session),
        ..TokenRequest::default()
    });
    let answer = session.auth().token(request).await;
    let token = answer
        .map_err(|s| session.failure(s).plainly())?
        .into_inner()
        .token
        .ok_or_else(|| Error::failed("the server gave no token"))?;
    let token = session::stored(token, "");
    if context.printer.is_json() {
        return context.printer.json(&token);
    }
    let text = serde_json::to_string(&token).map_err(std::io::Error::from)?;
    context.printer.line(&format!("Token created: {text}"))
}

/// `micro auth update secret`
pub(crate) async fn update_secret(
    context: &Context,
    id: String,
    old: Option<String>,
    new: Option<String>,
) -> Result<()> {
    let session = Session::open(context).await?;
    let new = match new {
        Some(new) => new,
        None => prompt::new_password(context.printer, "--new_secret")?,
    };
    let namespace = session.namespace.to_string();
    change_secret(&session, &id, old.unwrap_or_default(), new, &namespace).await?;
    if context.printer.is_json() {
        return context.printer.json(&json!({ "id": id, "changed": true }));
    }
    context.printer.line("Account updated")
}

/// Changes the secret of an account.
///
/// # Errors
/// As the server refuses.
pub(crate) async fn change_secret(
    session: &Session,
    id: &str,
    old: String,
    new: String,
    namespace: &str,
) -> Result<()> {
    let request = session.request(ChangeSecretRequest {
        id: id.into(),
        old_secret: old,
        new_secret: new,
        options: Some(Options {
            namespace: namespace.into(),
        }),
    });
    let answer = session.accounts().change_secret(request).await;
    answer.map_err(|s| session.failure(s).plainly())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_shown_as_micro_shows_them() {
        let account = Account {
            id: "admin".into(),
            name: "admin".into(),
            scopes: vec!["admin".into(), "ops".into()],
            metadata: [("created".to_owned(), "1".to_owned())].into(),
            ..Account::default()
        };
        let plain = Account {
            id: "bob".into(),
            name: "bob".into(),
            ..Account::default()
        };
        assert_eq!(
            rows(&[account, plain]),
            "ID\t\tName\t\tScopes\t\tMetadata\nadmin\t\tadmin\t\tadmin, ops\t\tcreated=1 \nbob\t\tbob\t\tn/a\t\tn/a\n"
        );
    }
}
