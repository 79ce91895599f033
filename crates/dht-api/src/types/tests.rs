use dht_core::PublicKey;
use serde_json::json;

use super::*;

const KEY: &str = "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919";

#[test]
fn a_request_takes_text_or_base64() {
    let mut text: NewMessage = serde_json::from_value(json!({"to": KEY, "text": "hi"})).unwrap();
    assert_eq!(text.content().unwrap(), "hi");
    let mut bytes: NewMessage =
        serde_json::from_value(json!({"to": KEY, "payload": "aGk="})).unwrap();
    assert_eq!(bytes.content().unwrap(), "hi");

    let mut both: NewMessage =
        serde_json::from_value(json!({"to": KEY, "text": "hi", "payload": "aGk="})).unwrap();
    assert_eq!(both.content(), Err(PayloadError::Both));
    let mut neither: NewMessage = serde_json::from_value(json!({"to": KEY})).unwrap();
    assert_eq!(neither.content(), Err(PayloadError::Missing));
}

#[test]
fn an_unknown_field_is_refused() {
    let error = serde_json::from_value::<NewMessage>(json!({"to": KEY, "txt": "hi"})).unwrap_err();
    assert!(error.to_string().contains("unknown field `txt`"), "{error}");
}

#[test]
fn a_wrong_key_says_so() {
    let error = serde_json::from_value::<NewMessage>(json!({"to": "6a", "text": ""})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "6a".parse::<PublicKey>().unwrap_err().to_string()
    );
}

#[test]
fn another_version_is_refused() {
    assert!(serde_json::from_value::<Done>(json!({"version": 1, "changed": true})).is_ok());
    let error = serde_json::from_value::<Done>(json!({"version": 2, "changed": true}));
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("version 2 of the API")
    );
}

#[test]
fn unknown_events_and_codes_are_read() {
    let event: NodeEvent =
        serde_json::from_value(json!({"version": 1, "at": 5, "event": "moved", "x": 1})).unwrap();
    assert_eq!(event.kind, NodeEventKind::Other);
    assert_eq!(
        serde_json::from_value::<ErrorCode>(json!("from_the_future")).unwrap(),
        ErrorCode::Unknown
    );
}

#[test]
fn long_or_binary_payload_lacks_text() {
    assert_eq!(Base64("hi".into()).text().as_deref(), Some("hi"));
    assert_eq!(Base64(vec![0xff].into()).text(), None);
    assert_eq!(Base64(vec![b'x'; MAX_TEXT_BYTES + 1].into()).text(), None);
}
