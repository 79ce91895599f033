//! `keys`, `node_ids`, `distances`.

use dht_core::{NodeId, PublicKey, SecretKey};

use super::case::{Case, Outcome, same, same_bytes};

pub(super) fn key(case: &Case<'_>) -> Outcome {
    match case.text("kind")? {
        "keypair" => {
            let secret = case.secret("secret_key")?;
            same_bytes(
                "public key",
                secret.public_key().as_bytes(),
                &case.hex("public_key")?,
            )?;
            same_bytes(
                "secret key",
                &secret.to_bytes()[..],
                &case.hex("secret_key")?,
            )
        }
        "scalar_decode" => same(
            "accepted",
            SecretKey::from_bytes(&case.hex("bytes")?).is_ok(),
            case.flag("accepted")?,
        ),
        "point_decode" => {
            let bytes = case.hex("bytes")?;
            let key = PublicKey::from_bytes(&bytes);
            same("accepted", key.is_ok(), case.flag("accepted")?)?;
            key.map_or(Ok(()), |key| same_bytes("encoding", key.as_bytes(), &bytes))
        }
        "wide_reduce" => {
            let scalar = SecretKey::from_uniform_bytes(&case.hex("bytes")?)
                .map_err(|error| error.to_string())?;
            same_bytes("scalar", &scalar.to_bytes()[..], &case.hex("scalar")?)
        }
        other => Err(format!("unknown kind {other}")),
    }
}

pub(super) fn node_id(case: &Case<'_>) -> Outcome {
    let id = case.key("public_key")?.node_id();
    same("node id", id.to_string(), case.text("node_id")?)?;
    same_bytes("node id", id.as_bytes(), &case.hex("node_id")?)?;
    same("short form", id.short(), case.text("short")?)
}

pub(super) fn distance(case: &Case<'_>) -> Outcome {
    match case.text("kind")? {
        "distance" => {
            let (a, b) = (id(&case.object("a")?)?, id(&case.object("b")?)?);
            let distance = a.distance(&b);
            same("reverse distance", b.distance(&a), distance)?;
            same_bytes(
                "distance",
                &distance.to_be_bytes(),
                &case.hex("distance_be128")?,
            )?;
            same("decimal", distance.to_string(), case.text("distance_dec")?)?;
            same(
                "bucket",
                distance.bucket(),
                case.number::<u32>("bucket_index")?,
            )
        }
        "closest" => {
            let target = id(&case.object("target")?)?;
            let mut ids = ids(case, "node_ids")?;
            ids.sort_by_key(|id| id.distance(&target));
            same("sorted", &ids, &self::ids(case, "sorted")?)?;
            ids.truncate(case.number("k")?);
            same("closest", ids, self::ids(case, "closest")?)
        }
        "decode" => same(
            "accepted",
            NodeId::from_bytes(&case.hex("bytes")?).is_ok(),
            case.flag("accepted")?,
        ),
        other => Err(format!("unknown kind {other}")),
    }
}

fn ids(case: &Case<'_>, field: &str) -> Outcome<Vec<NodeId>> {
    case.list(field)?.iter().map(id).collect()
}

fn id(text: &Case<'_>) -> Outcome<NodeId> {
    NodeId::from_bytes(&text.own_hex()?).map_err(|error| error.to_string())
}
