use std::{fs, path::Path};

use crate::served::Served;

#[tokio::test]
async fn the_document_is_the_one_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let held = fs::read_to_string(&path).unwrap();
    let held: serde_json::Value = serde_json::from_str(&held).unwrap();
    let served = Served::start().await.client.openapi().await.unwrap();
    assert!(
        served == held,
        "docs/openapi.json is out of date: run `cargo xtask codegen`"
    );
}
