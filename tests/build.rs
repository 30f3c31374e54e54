//! Generates the test service's messages the way any user of the service library does.

fn main() -> Result<(), micro_sdk::build::Error> {
    micro_sdk::build::compile(&["services/echo.proto"])
}
