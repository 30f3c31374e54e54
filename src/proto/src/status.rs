//! Faults to gRPC statuses and back: `grpc-message` is Micro's JSON object, and no details are
//! attached, because each generation of Micro's clients fails on another one's (contract §3.4).

use micro_core::{Fault, Kind, WireError};
use tonic::{Code, Status};

/// The status for `fault`, spoken by `id` (a method such as `auth.Auth.Token`).
pub fn of(id: &str, fault: &(impl Fault + ?Sized)) -> Status {
    from_wire(&WireError::of(id, fault))
}

/// The status that carries `error`.
pub fn from_wire(error: &WireError) -> Status {
    Status::new(
        Code::from_i32(micro_core::fault::grpc_of_http(error.code)),
        error.to_json(),
    )
}

/// Reads a status back into Micro's object; one that is not ours keeps its text.
pub fn to_wire(status: &Status) -> WireError {
    WireError::parse(status.message()).unwrap_or_else(|| {
        let code = micro_core::fault::http_of_grpc(status.code() as i32);
        WireError::with_code(
            "go.micro.client",
            if code == 200 {
                Kind::Internal.http()
            } else {
                code
            },
            status.message(),
        )
    })
}
