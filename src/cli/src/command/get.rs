//! `micro get service`.

use micro_proto::registry::{Endpoint, GetRequest, Node, Options, Service, Value};
use serde_json::{Value as Json, json};

use crate::{
    command_line::GetCommand,
    context::{Context, OPERATOR},
    dynamic,
    error::Result,
    session::Session,
};

/// Shows one thing in full.
pub(crate) async fn run(context: &Context, what: &GetCommand) -> Result<()> {
    let GetCommand::Service { name } = what;
    let session = Session::open(context).await?;
    let domain = if dynamic::is_builtin(name) {
        OPERATOR.to_owned()
    } else {
        session.namespace.to_string()
    };
    let request = session.request(GetRequest {
        service: name.clone(),
        options: Some(Options {
            domain,
            ..Options::default()
        }),
    });
    let answer = session.registry().get_service(request).await;
    let mut services = answer
        .map_err(|s| session.failure(s))?
        .into_inner()
        .services;
    services.sort_by(|a, b| a.version.cmp(&b.version));
    for service in &mut services {
        service.nodes.sort_by(|a, b| a.id.cmp(&b.id));
        service.endpoints.sort_by(|a, b| a.name.cmp(&b.name));
    }
    if context.printer.is_json() {
        let rows: Vec<_> = services.iter().map(shown).collect();
        return context.printer.json(&rows);
    }
    context.printer.write(text(name, &services).as_bytes())
}

fn text(name: &str, services: &[Service]) -> String {
    let mut out = format!("service  {name}\n");
    for service in services {
        out.push_str(&format!(
            "\nversion {}\n\nID\tAddress\tMetadata\n",
            service.version
        ));
        for Node {
            id,
            address,
            metadata,
            ..
        } in &service.nodes
        {
            out.push_str(&format!("{id}\t{address}\t{}\n", pairs(metadata)));
        }
    }
    // Micro shows the endpoints of the first version.
    for endpoint in services.iter().take(1).flat_map(|s| &s.endpoints) {
        out.push_str(&format!("\nEndpoint: {}\n", endpoint.name));
        if !endpoint.metadata.is_empty() {
            out.push_str(&format!("Metadata: {}\n", pairs(&endpoint.metadata)));
        }
        out.push_str(&format!(
            "Request: {}\n\nResponse: {}\n",
            tree(endpoint.request.as_ref()),
            tree(endpoint.response.as_ref())
        ));
    }
    out
}

fn pairs(map: &std::collections::HashMap<String, String>) -> String {
    let mut pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.sort();
    pairs.join(",")
}

fn tree(value: Option<&Value>) -> String {
    let Some(value) = value.filter(|v| !v.values.is_empty()) else {
        return "{}".into();
    };
    let mut out = String::from("{\n");
    for field in &value.values {
        branch(field, 1, &mut out);
    }
    out.push('}');
    out
}

fn branch(value: &Value, depth: usize, out: &mut String) {
    let indent = "\t".repeat(depth);
    let name = snake_case(&value.name);
    if value.values.is_empty() {
        out.push_str(&format!("{indent}{name} {}\n", value.r#type));
        return;
    }
    out.push_str(&format!("{indent}{name} {} {{\n", value.r#type));
    for field in &value.values {
        branch(field, depth + 1, out);
    }
    out.push_str(&format!("{indent}}}\n"));
}

fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut after_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_lower {
            out.push('_');
        }
        after_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn shown(service: &Service) -> Json {
    let nodes: Vec<Json> = service
        .nodes
        .iter()
        .map(|n| json!({ "id": n.id, "address": n.address, "metadata": n.metadata }))
        .collect();
    let endpoints: Vec<Json> = service.endpoints.iter().map(shown_endpoint).collect();
    json!({
        "name": service.name,
        "version": service.version,
        "metadata": service.metadata,
        "nodes": nodes,
        "endpoints": endpoints,
    })
}

fn shown_endpoint(endpoint: &Endpoint) -> Json {
    json!({
        "name": endpoint.name,
        "metadata": endpoint.metadata,
        "request": endpoint.request.as_ref().map(shown_value),
        "response": endpoint.response.as_ref().map(shown_value),
    })
}

fn shown_value(value: &Value) -> Json {
    let mut object = json!({ "name": value.name, "type": value.r#type });
    if let (Some(object), false) = (object.as_object_mut(), value.values.is_empty()) {
        let values = value.values.iter().map(shown_value).collect();
        object.insert("values".into(), Json::Array(values));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_shown_as_micro_shows_it() {
        let field = |name: &str, kind: &str, values: Vec<Value>| Value {
            name: name.into(),
            r#type: kind.into(),
            values,
        };
        let service = Service {
            name: "hello".into(),
            version: "latest".into(),
            nodes: vec![Node {
                id: "hello-1".into(),
                address: "127.0.0.1:9".into(),
                metadata: [("protocol".to_owned(), "grpc".to_owned())].into(),
                ..Node::default()
            }],
            endpoints: vec![Endpoint {
                name: "Hello.Call".into(),
                request: Some(field(
                    "Request",
                    "Request",
                    vec![
                        field("userName", "string", vec![]),
                        field(
                            "options",
                            "Options",
                            vec![field("domain", "string", vec![])],
                        ),
                    ],
                )),
                response: None,
                metadata: [("stream".to_owned(), "true".to_owned())].into(),
            }],
            ..Service::default()
        };
        assert_eq!(
            text("hello", &[service]),
            "service  hello\n\nversion latest\n\nID\tAddress\tMetadata\nhello-1\t127.0.0.1:9\tprotocol=grpc\n\nEndpoint: Hello.Call\nMetadata: stream=true\nRequest: {\n\tuser_name string\n\toptions Options {\n\t\tdomain string\n\t}\n}\n\nResponse: {}\n"
        );
    }
}
