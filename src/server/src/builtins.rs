//! The built-in services as routes of the pipeline: each is found by its name in every namespace,
//! with a schema cut out of our own descriptor set.

use std::sync::Arc;

use micro_auth::Service as Auth;
use micro_config::Service as Config;
use micro_events::Service as Events;
use micro_pipeline::Builtins;
use micro_registry::Service as Registry;
use micro_runtime::Service as Runtime;
use micro_schema::Schema;
use micro_store::Service as Store;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::service::Routes;

/// Mounts every built-in service, and lists each in the registry.
pub(crate) fn mount(
    auth: &Auth,
    registry: &Registry,
    runtime: &Runtime,
    config: &Config,
    store: &Store,
    events: &Events,
) -> Result<Builtins, micro_schema::Error> {
    let mut builtins = Builtins::new();
    let mut add = |name: &str, routes: Routes| -> Result<(), micro_schema::Error> {
        let schema = schema_of(name)?;
        registry.handle().add_builtin(name, Arc::clone(&schema));
        builtins.add(name, schema, routes);
        Ok(())
    };
    add(
        "auth",
        Routes::new(auth.auth_server())
            .add_service(auth.accounts_server())
            .add_service(auth.rules_server()),
    )?;
    add("registry", Routes::new(registry.server()))?;
    add(
        "runtime",
        Routes::new(runtime.runtime_server())
            .add_service(runtime.source_server())
            .add_service(runtime.build_server()),
    )?;
    add("config", Routes::new(config.server()))?;
    add(
        "store",
        Routes::new(store.store_server()).add_service(store.blob_server()),
    )?;
    add(
        "events",
        Routes::new(events.stream_server()).add_service(events.store_server()),
    )?;
    add("broker", Routes::new(events.broker_server()))?;
    Ok(builtins)
}

/// The schema of one package of `proto/`, alone.
fn schema_of(package: &str) -> Result<Arc<Schema>, micro_schema::Error> {
    let mut set = FileDescriptorSet::decode(micro_proto::DESCRIPTOR_SET).unwrap_or_default();
    set.file.retain(|file| file.package() == package);
    Schema::from_descriptor_set(&set.encode_to_vec()).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_built_in_service_offers_its_own_endpoints_only() {
        let schema = schema_of("auth").unwrap();
        let names: Vec<_> = schema.endpoints().iter().map(|e| e.name.as_str()).collect();
        assert!(
            names.contains(&"Auth.Token") && names.contains(&"Rules.List"),
            "{names:?}"
        );
        assert!(
            !names.iter().any(|n| n.starts_with("Runtime.")),
            "{names:?}"
        );
    }
}
