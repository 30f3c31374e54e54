fn main() -> Result<(), micro_sdk::build::Error> {
    micro_sdk::build::compile(&["proto/notes.proto", "proto/helloworld.proto"])
}
