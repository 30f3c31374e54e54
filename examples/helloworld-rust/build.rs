fn main() -> Result<(), micro_sdk::build::Error> {
    micro_sdk::build::compile(&["proto/helloworld.proto"])
}
