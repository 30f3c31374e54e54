//! The methods of a service and how they are found.

use std::{collections::HashMap, fmt, sync::OnceLock};

use bytes::Bytes;
use micro_proto::registry::Endpoint;
use prost::Message as _;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use prost_types::FileDescriptorSet;

use crate::{DESCRIPTOR_LIMIT, Error, Method, describe, guard, protos, shape::fold};

/// What a service offers. Immutable; share it as `Arc<Schema>`.
#[derive(Default)]
pub struct Schema {
    descriptor_set: Option<Bytes>,
    methods: Vec<Method>,
    /// Beside `methods`, index for index; empty for a Go service.
    descriptors: Vec<MethodDescriptor>,
    services: Vec<String>,
    /// Positions in `methods` by endpoint, by folded endpoint, by path.
    exact: HashMap<Box<str>, usize>,
    folded: HashMap<Box<str>, usize>,
    paths: HashMap<Box<str>, usize>,
    /// Last segment of the service → method → position: asked for each call, so nothing is built
    /// for the look-up.
    structs: HashMap<Box<str>, HashMap<Box<str>, usize>>,
    /// As a Go service registered them, or made from descriptors when first asked for.
    endpoints: OnceLock<Vec<Endpoint>>,
}

impl Schema {
    /// A schema without methods, for a service that speaks plain HTTP.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The schema in a serialised `google.protobuf.FileDescriptorSet`. Reflection and health
    /// services are left out; imports of `google/protobuf/*.proto` may be missing.
    ///
    /// # Errors
    /// `Precondition` when the bytes are no descriptor set, lack an import or are too many.
    pub fn from_descriptor_set(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > DESCRIPTOR_LIMIT {
            return Err(Error::Descriptors(format!(
                "they are {} bytes, and {DESCRIPTOR_LIMIT} are the most",
                bytes.len()
            )));
        }
        let built = guard::unwinding(|| {
            let (pool, complete) = pool(bytes)?;
            guard::check(&pool).map_err(Error::Descriptors)?;
            Ok(Self::of_pool(&pool, complete))
        });
        built.unwrap_or_else(|| Err(Error::Descriptors("they contradict themselves".to_owned())))
    }

    fn of_pool(pool: &DescriptorPool, complete: Bytes) -> Self {
        let mut schema = Self {
            descriptor_set: Some(complete),
            ..Self::default()
        };
        for service in pool.services() {
            if is_plumbing(service.full_name()) {
                continue;
            }
            schema.services.push(service.full_name().to_owned());
            for method in service.methods() {
                let short = format!("{}.{}", service.name(), method.name());
                let full = format!("{}.{}", service.full_name(), method.name());
                let taken = schema.exact.contains_key(short.as_str());
                let endpoint = if taken { full.clone() } else { short };
                schema.add(Method::of_descriptor(endpoint, &method), Some(&full));
                schema.descriptors.push(method);
            }
        }
        schema
    }

    /// The schema of a Go service, which registers value trees and speaks JSON itself.
    pub fn from_endpoints(endpoints: Vec<Endpoint>) -> Self {
        let mut schema = Self::default();
        for method in endpoints.iter().filter_map(Method::of_endpoint) {
            if let Some((service, _)) = method.endpoint.rsplit_once('.')
                && !schema.services.iter().any(|known| known == service)
            {
                schema.services.push(service.to_owned());
            }
            schema.add(method, None);
        }
        schema.endpoints = OnceLock::from(endpoints);
        schema
    }

    fn add(&mut self, method: Method, full_name: Option<&str>) {
        let position = self.methods.len();
        self.exact
            .entry(method.endpoint.as_str().into())
            .or_insert(position);
        for name in [Some(method.endpoint.as_str()), full_name]
            .into_iter()
            .flatten()
        {
            self.folded.entry(fold(name).into()).or_insert(position);
        }
        self.paths
            .entry(method.path.as_str().into())
            .or_insert(position);
        if let Some((last, name)) = last_segment(&method.path) {
            self.structs
                .entry(last.into())
                .or_default()
                .entry(name.into())
                .or_insert(position);
        }
        self.methods.push(method);
    }

    /// The endpoints with their value trees, as Micro's registry hands them out.
    pub fn endpoints(&self) -> &[Endpoint] {
        self.endpoints.get_or_init(|| {
            let mut budget = describe::Budget::new();
            self.methods
                .iter()
                .zip(&self.descriptors)
                .map(|(method, descriptor)| method.describe(descriptor, &mut budget))
                .collect()
        })
    }

    /// The serialised `google.protobuf.FileDescriptorSet`, complete with its imports.
    pub fn descriptor_set(&self) -> Option<&[u8]> {
        self.descriptor_set.as_deref()
    }

    /// All methods.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// The method of an endpoint: `Helloworld.Call`, else the same ignoring case, `-` and `_`.
    pub fn method(&self, endpoint: &str) -> Option<&Method> {
        let position = self
            .exact
            .get(endpoint)
            .or_else(|| self.folded.get(fold(endpoint).as_str()))?;
        self.methods.get(*position)
    }

    /// The method of a path: `/pkg.Svc/Method`, else any `/anything.Svc/Method`, since Micro's
    /// clients put the service's registered name where the package belongs.
    pub fn method_by_path(&self, path: &str) -> Option<&Method> {
        let position = self.paths.get(path).or_else(|| {
            let (last, name) = last_segment(path)?;
            self.structs.get(last)?.get(name)
        })?;
        self.methods.get(*position)
    }

    /// Full protobuf names such as `hello.v1.Greeter`; for a Go service the names of its handlers.
    pub fn service_names(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(String::as_str)
    }

    /// Whether there is nothing to call.
    pub fn is_empty(&self) -> bool {
        self.methods.is_empty()
    }

    /// Whether both say the same, so that a registration with this schema changes nothing.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.descriptor_set, &other.descriptor_set) {
            (Some(a), Some(b)) => a == b,
            (None, None) => self.endpoints() == other.endpoints(),
            _ => false,
        }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.methods.iter().map(|m| &m.endpoint))
            .finish()
    }
}

/// `/pkg.Svc/Method` → `Svc`, `Method`.
fn last_segment(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let last = service.rsplit('.').next()?;
    (!last.is_empty() && !method.is_empty()).then_some((last, method))
}

/// Services of gRPC itself.
pub(crate) fn is_plumbing(service: &str) -> bool {
    service.starts_with("grpc.reflection.") || service.starts_with("grpc.health.")
}

/// The pool and the set it was made of, with the well-known imports added that were missing.
fn pool(bytes: &[u8]) -> Result<(DescriptorPool, Bytes), Error> {
    let unusable = |e: &dyn fmt::Display| Error::Descriptors(e.to_string());
    let set = FileDescriptorSet::decode(bytes).map_err(|e| unusable(&e))?;
    let missing = protos::missing_well_known(&set.file);
    drop(set);
    if missing.is_empty() {
        let pool = DescriptorPool::decode(bytes).map_err(|e| unusable(&e))?;
        return Ok((pool, Bytes::copy_from_slice(bytes)));
    }
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_protos(missing)
        .and_then(|()| pool.decode_file_descriptor_set(bytes))
        .map_err(|e| unusable(&e))?;
    let complete = pool.encode_to_vec().into();
    Ok((pool, complete))
}
