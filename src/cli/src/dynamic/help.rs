//! Help about a service, in Micro's layout, with what the author wrote beside it in the `.proto`.

use micro_schema::{Flag, Method};
use serde_json::{Value, json};

use super::Found;

/// `micro helloworld --help`
pub(crate) fn service(found: &Found, version: &str) -> String {
    let name = &found.name;
    let mut lines: Vec<(String, String)> = found
        .schema
        .methods()
        .iter()
        .map(|m| (words_of(found, m), first_line(&m.doc)))
        .collect();
    lines.sort();
    let mut out = format!(
        "NAME:\n\tmicro {name}\n\nVERSION:\n\t{version}\n\nUSAGE:\n\tmicro {name} [command]\n\nCOMMANDS:\n"
    );
    columns(&lines, &mut out);
    out
}

/// `micro helloworld call --help`
pub(crate) fn method(found: &Found, method: &Method) -> String {
    let path = command_of(found, method);
    let mut out = format!("NAME:\n\tmicro {path}\n\n");
    if !method.doc.trim().is_empty() {
        out.push_str("DESCRIPTION:\n");
        for line in method.doc.trim().lines() {
            out.push_str(&format!("\t{}\n", line.trim_end()));
        }
        out.push('\n');
    }
    out.push_str(&format!("USAGE:\n\tmicro {path} [flags]\n\nFLAGS:\n"));
    let lines: Vec<(String, String)> = method
        .flags()
        .iter()
        .map(|flag| (format!("--{} {}", flag.name, flag.type_name), about(flag)))
        .collect();
    columns(&lines, &mut out);
    out
}

fn about(flag: &Flag) -> String {
    let mut parts = Vec::new();
    let doc = first_line(&flag.doc);
    if !doc.is_empty() {
        parts.push(doc);
    }
    if !flag.enum_values.is_empty() {
        parts.push(format!("(one of {})", flag.enum_values.join(", ")));
    }
    if flag.repeated {
        parts.push("(may be repeated)".into());
    }
    if flag.is_map {
        parts.push(format!("(--{0} key=value, may be repeated)", flag.name));
    }
    if flag.type_name.ends_with("uint8") {
        parts.push("(base64)".into());
    }
    parts.join(" ")
}

/// A tab, the first column, and the second beside it where there is one.
fn columns(lines: &[(String, String)], out: &mut String) {
    let width = lines
        .iter()
        .filter(|(_, about)| !about.is_empty())
        .map(|(left, _)| left.chars().count())
        .max()
        .unwrap_or(0);
    for (left, right) in lines {
        if right.is_empty() {
            out.push_str(&format!("\t{left}\n"));
        } else {
            out.push_str(&format!("\t{left:width$}  {right}\n"));
        }
    }
}

fn first_line(doc: &str) -> String {
    doc.trim().lines().next().unwrap_or_default().trim().into()
}

/// A method as words: `Helloworld.Call` of helloworld is `call`, of another service `helloworld call`.
fn words_of(found: &Found, method: &Method) -> String {
    let lowered: Vec<String> = method
        .endpoint
        .split('.')
        .map(|part| {
            let mut chars = part.chars();
            chars.next().map_or_else(String::new, |first| {
                first.to_lowercase().chain(chars).collect()
            })
        })
        .collect();
    match lowered.as_slice() {
        [structure, name] if super::folded(structure) == super::folded(&found.name) => name.clone(),
        [structure, name] => format!("{structure} {name}"),
        // More parts than words can say: the endpoint itself works as one word.
        _ => method.endpoint.clone(),
    }
}

/// Service and method as words.
pub(crate) fn command_of(found: &Found, method: &Method) -> String {
    format!("{} {}", found.name, words_of(found, method))
}

/// How to call a service: the words for the method that is called without naming one, else for the
/// first, with one flag filled in; and the path and query for the gateway.
pub(crate) fn example(found: &Found) -> Option<(String, String)> {
    let methods = found.schema.methods();
    let method = found
        .schema
        .method(&format!("{}.Call", found.name))
        .or_else(|| methods.iter().find(|m| !m.client_streaming))
        .or_else(|| methods.first())?;
    let flags = method.flags();
    let flag = flags.iter().find(|f| !f.name.contains('-'));
    let (mut words, mut query) = (command_of(found, method), String::new());
    if let Some(flag) = flag {
        let sample = match flag.type_name.as_str() {
            "string" if flag.name == "name" => "Alice",
            "string" => "text",
            "bool" => "true",
            _ if !flag.enum_values.is_empty() => {
                flag.enum_values.first().map_or("", String::as_str)
            }
            kind if kind.contains("int") || kind.contains("float") => "1",
            _ => "",
        };
        if !sample.is_empty() {
            words.push_str(&format!(" --{}={sample}", flag.name));
            query = format!("?{}={sample}", flag.name);
        }
    }
    let path: String = words_of(found, method)
        .split([' ', '.'])
        .map(|word| format!("/{word}"))
        .collect();
    Some((words, format!("{path}{query}")))
}

/// The same as JSON.
pub(crate) fn service_json(found: &Found) -> Value {
    let commands: Vec<Value> = found.schema.methods().iter().map(method_json).collect();
    json!({ "service": found.name, "namespace": found.namespace, "endpoints": commands })
}

/// The same as JSON.
pub(crate) fn method_json(method: &Method) -> Value {
    let flags: Vec<Value> = method
        .flags()
        .iter()
        .map(|flag| {
            json!({
                "name": flag.name,
                "type": flag.type_name,
                "repeated": flag.repeated,
                "map": flag.is_map,
                "values": flag.enum_values,
                "description": flag.doc,
            })
        })
        .collect();
    json!({
        "name": method.endpoint,
        "description": method.doc,
        "stream": method.server_streaming,
        "flags": flags,
    })
}
