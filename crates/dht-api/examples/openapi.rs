//! Prints the OpenAPI document of the API: `cargo run -p dht-api --example openapi`. `cargo xtask codegen` writes it to
//! `docs/openapi.json`.
#![allow(clippy::print_stdout, reason = "it is an example")]

fn main() -> serde_json::Result<()> {
    println!("{}", serde_json::to_string_pretty(&dht_api::openapi())?);
    Ok(())
}
