//! The one table from what went wrong to what each protocol says about it.
//!
//! Every error type of ours implements [`Fault`]; adapters ask it for a [`Kind`] and never choose a
//! status themselves. On the wire an error is Micro's JSON object (contract §3.4): a [`WireError`].

use serde::{Deserialize, Serialize};

/// What kind of failure an error is, from the caller's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong; repeating it will not help.
    Invalid,
    /// No identity, or one that does not suffice to act at all.
    Unauthenticated,
    /// A known identity that may not do this.
    Denied,
    /// There is no such thing.
    NotFound,
    /// There is one already, or somebody else changed it first.
    Conflict,
    /// The system is not in the state that this needs.
    Precondition,
    /// A quota or a size limit.
    Exhausted,
    /// It took too long.
    Timeout,
    /// Not offered here.
    Unimplemented,
    /// Nobody there to answer now; trying again may help.
    Unavailable,
    /// Our fault: the detail is for the log.
    Internal,
}

impl Kind {
    /// All kinds, for tests and for the generated page.
    pub const ALL: [Kind; 11] = [
        Kind::Invalid,
        Kind::Unauthenticated,
        Kind::Denied,
        Kind::NotFound,
        Kind::Conflict,
        Kind::Precondition,
        Kind::Exhausted,
        Kind::Timeout,
        Kind::Unimplemented,
        Kind::Unavailable,
        Kind::Internal,
    ];

    /// The HTTP status, which is also `code` in Micro's error object.
    pub const fn http(self) -> u16 {
        match self {
            Kind::Invalid => 400,
            Kind::Unauthenticated => 401,
            Kind::Denied => 403,
            Kind::NotFound => 404,
            Kind::Timeout => 408,
            Kind::Conflict => 409,
            Kind::Precondition => 412,
            Kind::Exhausted => 429,
            Kind::Internal => 500,
            Kind::Unimplemented => 501,
            Kind::Unavailable => 503,
        }
    }

    /// The gRPC status code number (contract §3.4).
    pub const fn grpc(self) -> i32 {
        grpc_of_http(self.http())
    }
}

/// Micro's table from an error's `code` to a gRPC status code (contract §3.4), with 429 added.
pub const fn grpc_of_http(code: u16) -> i32 {
    match code {
        200 => 0,
        400 => 3,
        401 => 16,
        403 => 7,
        404 => 5,
        408 => 4,
        409 => 6,
        412 => 9,
        429 => 8,
        500 => 13,
        501 => 12,
        503 => 14,
        _ => 2,
    }
}

/// The HTTP status for a gRPC status code of a service that knows nothing of Micro's error object.
pub const fn http_of_grpc(code: i32) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 11 => 400,
        4 => 408,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        9 => 412,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// What the standard library's texts for HTTP statuses are in Go, which Micro's clients expect.
pub const fn status_text(code: u16) -> &'static str {
    match code {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        429 => "Too Many Requests",
        499 => "Client Closed Request",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

/// What every error type of ours can say of itself.
pub trait Fault: std::error::Error {
    /// What kind of failure this is.
    fn kind(&self) -> Kind;
    /// What the person at the other end can do about it, in one sentence.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Micro's error object, the same in `grpc-message` and in an HTTP body (contract §3.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    /// Who speaks: a service name or a method name.
    #[serde(default, alias = "Id")]
    pub id: String,
    /// An HTTP status.
    #[serde(default, alias = "Code")]
    pub code: u16,
    /// What happened, for a person.
    #[serde(default, alias = "Detail")]
    pub detail: String,
    /// The text of `code`.
    #[serde(default, alias = "Status")]
    pub status: String,
}

impl WireError {
    /// An error object of this kind.
    pub fn new(id: impl Into<String>, kind: Kind, detail: impl Into<String>) -> Self {
        Self::with_code(id, kind.http(), detail)
    }

    /// An error object with any HTTP status.
    pub fn with_code(id: impl Into<String>, code: u16, detail: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            code,
            detail: detail.into(),
            status: status_text(code).into(),
        }
    }

    /// The object for `fault`, its hint as a second line of the detail.
    pub fn of(id: impl Into<String>, fault: &(impl Fault + ?Sized)) -> Self {
        let detail = match fault.hint() {
            Some(hint) => format!("{fault}\nhint: {hint}"),
            None => fault.to_string(),
        };
        Self::new(id, fault.kind(), detail)
    }

    /// Reads an error object out of a `grpc-message`, going down into nested ones.
    ///
    /// `None` when `text` is not Micro's JSON.
    pub fn parse(text: &str) -> Option<Self> {
        let outer: Self = serde_json::from_str(text).ok()?;
        if outer.code == 0 {
            return None;
        }
        Some(Self::parse(&outer.detail).unwrap_or(outer))
    }

    /// The object as Micro writes it: keys in the order id, code, detail, status.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| String::from("{}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_total_and_its_two_halves_agree() {
        for kind in Kind::ALL {
            assert_eq!(http_of_grpc(kind.grpc()), kind.http(), "{kind:?}");
            assert_ne!(kind.grpc(), 2, "{kind:?} has a gRPC code of its own");
        }
    }

    #[test]
    fn nested_and_capitalised_objects_are_read() {
        let inner = WireError::new(
            "go.micro.client",
            Kind::Internal,
            "service foo: route not found",
        );
        let outer = WireError::new("go.micro.client", Kind::Internal, inner.to_json());
        assert_eq!(WireError::parse(&outer.to_json()), Some(inner));
        let old = r#"{"Id":"x","Code":404,"Detail":"gone","Status":"Not Found"}"#;
        assert_eq!(WireError::parse(old).map(|e| e.code), Some(404));
        assert_eq!(WireError::parse("unknown service Foo"), None);
        assert_eq!(WireError::parse("{}"), None);
    }
}
