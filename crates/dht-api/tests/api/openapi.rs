use std::{env, fs, path::Path};

use crate::served::Served;

/// Writes the document instead of comparing it.
const WRITE: &str = "DHT_API_WRITE_OPENAPI";

#[tokio::test]
async fn the_document_is_the_one_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let mut document = serde_json::to_string_pretty(&dht_api::openapi()).unwrap();
    document.push('\n');
    if env::var_os(WRITE).is_some() {
        fs::write(&path, &document).unwrap();
    }
    let held = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        held == document,
        "docs/openapi.json is out of date: run this test with {WRITE}=1"
    );
    let served = Served::start().await.client.openapi().await.unwrap();
    assert_eq!(
        served,
        serde_json::from_str::<serde_json::Value>(&document).unwrap()
    );
}
