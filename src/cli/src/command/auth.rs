//! `micro auth`: rules, and the way to accounts and tokens.

use micro_proto::auth::{Access, CreateRequest, DeleteRequest, ListRequest, Resource, Rule};
use serde_json::json;

use crate::{
    command::accounts,
    command_line::{AuthCommand, AuthCreate, AuthDelete, AuthList, AuthUpdate},
    context::Context,
    error::{Error, Result},
    session::Session,
    table::{self, Padding},
};

/// Does what `micro auth …` says.
pub(crate) async fn run(context: &Context, command: AuthCommand) -> Result<()> {
    match command {
        AuthCommand::List { what } => match what {
            AuthList::Accounts => accounts::list(context).await,
            AuthList::Rules => list(context).await,
        },
        AuthCommand::Create { what } => match what {
            AuthCreate::Account {
                id,
                secret,
                scopes,
                kind,
            } => accounts::create(context, id, secret, scopes, kind).await,
            AuthCreate::Token { id, secret, expiry } => {
                accounts::token(context, id, secret, expiry).await
            }
            AuthCreate::Rule {
                id,
                scope,
                resource,
                access,
                priority,
            } => {
                let rule = Rule {
                    id,
                    scope,
                    resource: Some(parse_resource(&resource)?),
                    access: parse_access(&access)?.into(),
                    priority,
                };
                create(context, rule).await
            }
        },
        AuthCommand::Delete { what } => match what {
            AuthDelete::Account { id } => accounts::delete(context, id).await,
            AuthDelete::Rule { id } => delete(context, id).await,
        },
        AuthCommand::Update { what } => match what {
            AuthUpdate::Secret {
                id,
                old_secret,
                new_secret,
            } => accounts::update_secret(context, id, old_secret, new_secret).await,
        },
    }
}

/// Micro prefixes failures with rules.
fn rule_error(error: Error) -> Error {
    match error.plainly() {
        Error::Failed {
            message,
            hint,
            exit,
        } => Error::Failed {
            message: format!("Error: {message}"),
            hint,
            exit,
        },
        other => other,
    }
}

async fn create(context: &Context, rule: Rule) -> Result<()> {
    let session = Session::open(context).await?;
    let id = rule.id.clone();
    let request = session.request(CreateRequest {
        rule: Some(rule),
        options: accounts::options(&session),
    });
    let answer = session.rules().create(request).await;
    answer.map_err(|s| rule_error(session.failure(s)))?;
    if context.printer.is_json() {
        return context.printer.json(&json!({ "id": id, "created": true }));
    }
    context.printer.line("Rule created")
}

async fn delete(context: &Context, id: String) -> Result<()> {
    let session = Session::open(context).await?;
    let request = session.request(DeleteRequest {
        id: id.clone(),
        options: accounts::options(&session),
    });
    let answer = session.rules().delete(request).await;
    answer.map_err(|s| rule_error(session.failure(s)))?;
    if context.printer.is_json() {
        return context.printer.json(&json!({ "id": id, "deleted": true }));
    }
    context.printer.line("Rule deleted")
}

async fn list(context: &Context) -> Result<()> {
    let session = Session::open(context).await?;
    let request = session.request(ListRequest {
        options: accounts::options(&session),
    });
    let answer = session.rules().list(request).await;
    let mut rules = answer
        .map_err(|s| rule_error(session.failure(s)))?
        .into_inner()
        .rules;
    // As they are looked at: the higher number first.
    rules.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.id.cmp(&b.id)));
    if context.printer.is_json() {
        let rows: Vec<_> = rules
            .iter()
            .map(|rule| {
                json!({
                    "id": rule.id,
                    "scope": rule.scope,
                    "access": access_word(rule),
                    "resource": resource_text(rule),
                    "priority": rule.priority,
                })
            })
            .collect();
        return context.printer.json(&rows);
    }
    let table = table::align(&rows(&rules), Padding::Tabs);
    context.printer.write(table.as_bytes())
}

fn rows(rules: &[Rule]) -> String {
    let mut text = String::from("ID\t\tScope\t\tAccess\t\tResource\t\tPriority\n");
    for rule in rules {
        let scope = if rule.scope.is_empty() {
            "<public>"
        } else {
            &rule.scope
        };
        text.push_str(&format!(
            "{}\t\t{scope}\t\t{}\t\t{}\t\t{}\n",
            rule.id,
            access_word(rule),
            resource_text(rule),
            rule.priority
        ));
    }
    text
}

fn access_word(rule: &Rule) -> &'static str {
    rule.access().as_str_name()
}

fn resource_text(rule: &Rule) -> String {
    let resource = rule.resource.clone().unwrap_or_default();
    format!(
        "{}:{}:{}",
        resource.r#type, resource.name, resource.endpoint
    )
}

fn parse_resource(text: &str) -> Result<Resource> {
    let mut parts = text.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(kind), Some(name), Some(endpoint))
            if ![kind, name, endpoint].iter().any(|p| p.is_empty()) =>
        {
            Ok(Resource {
                r#type: kind.into(),
                name: name.into(),
                endpoint: endpoint.into(),
            })
        }
        _ => Err(
            Error::usage("Invalid resource, must be in the format type:name:endpoint").with_hint(
                "for example --resource service:helloworld:Helloworld.Call, or * for any",
            ),
        ),
    }
}

fn parse_access(text: &str) -> Result<Access> {
    match text.to_ascii_lowercase().as_str() {
        "granted" => Ok(Access::Granted),
        "denied" => Ok(Access::Denied),
        _ => Err(Error::usage(format!(
            "Invalid access: {text}, must be granted or denied"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_shown_as_micro_shows_them() {
        let rule = Rule {
            id: "default".into(),
            scope: String::new(),
            resource: Some(parse_resource("*:*:*").unwrap()),
            access: Access::Granted.into(),
            priority: 0,
        };
        assert_eq!(
            rows(&[rule]),
            "ID\t\tScope\t\tAccess\t\tResource\t\tPriority\ndefault\t\t<public>\t\tGRANTED\t\t*:*:*\t\t0\n"
        );
    }

    #[test]
    fn resources_have_three_parts() {
        let resource = parse_resource("service:foo:/a/*:x").unwrap();
        assert_eq!(resource.endpoint, "/a/*:x");
        for bad in ["", "a", "a:b", "a::c"] {
            assert!(parse_resource(bad).is_err(), "{bad}");
        }
        assert!(parse_access("maybe").is_err());
    }
}
