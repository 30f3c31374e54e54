//! `micro env`: which servers there are, and which one is worked with.

use serde_json::json;

use crate::{
    command_line::{Env, EnvCommand},
    context::Context,
    environment::{self, Environment},
    error::{Error, Result},
    table::{self, Padding},
};

/// Shows or changes environments.
pub(crate) fn run(mut context: Context, args: Env) -> Result<()> {
    match args.command {
        None => list(&context),
        Some(EnvCommand::Get) => {
            let name = context.environment()?.name;
            if context.printer.is_json() {
                return context.printer.json(&json!({ "name": name }));
            }
            context.printer.line(&name)
        }
        Some(EnvCommand::Set { name }) => {
            if !environment::all(&context.config)?.contains_key(&name) {
                return Err(environment::missing(&name));
            }
            context.config.set("env", &name)
        }
        Some(EnvCommand::Add { name, address }) => environment::add(
            &mut context.config,
            Environment {
                name,
                address: address.unwrap_or_default(),
                description: String::new(),
            },
        ),
        Some(EnvCommand::Del { name }) => {
            if environment::current_name(&context.config, context.chosen_env()) == name {
                return Err(Error::failed(format!(
                    "Environment '{name}' is your current environment. Before deleting it, please change your current environment."
                ))
                .with_hint("micro env set local"));
            }
            environment::remove(&mut context.config, &name)
        }
    }
}

fn list(context: &Context) -> Result<()> {
    let current = environment::current_name(&context.config, context.chosen_env());
    let all = environment::all(&context.config)?;
    if context.printer.is_json() {
        let rows: Vec<_> = all
            .values()
            .map(|env| {
                json!({
                    "name": env.name,
                    "address": env.address,
                    "description": env.description,
                    "current": env.name == current,
                })
            })
            .collect();
        return context.printer.json(&rows);
    }
    let table = rows(all.values(), &current);
    context.printer.write(table.as_bytes())
}

fn rows<'a>(all: impl Iterator<Item = &'a Environment>, current: &str) -> String {
    let mut text = String::new();
    for env in all {
        let mark = if env.name == current { '*' } else { ' ' };
        let address = if env.address.is_empty() {
            "none"
        } else {
            &env.address
        };
        text.push_str(&format!(
            "{mark} {} \t {address} \t\t {}\n",
            env.name, env.description
        ));
    }
    table::align(&text, Padding::Spaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_environment_has_a_star() {
        let env = |name: &str, address: &str, description: &str| Environment {
            name: name.into(),
            address: address.into(),
            description: description.into(),
        };
        let all = [
            env("local", "127.0.0.1:8081", "Local running Micro Server"),
            env("prod", "", ""),
        ];
        assert_eq!(
            rows(all.iter(), "local"),
            "* local   127.0.0.1:8081    Local running Micro Server\n  prod    none              \n"
        );
    }
}
