//! A stock node, driven over standard input and output in JSON lines: `tests/interop/reference/README.md` lists them.

mod control;
mod node;

use std::{error::Error, io::BufRead};

use serde_json::{Value, json};

use crate::{control::Control, node::Stock};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut lines = std::io::stdin().lock().lines();
    let setup: Value = serde_json::from_str(&lines.next().ok_or("no setup")??)?;
    let node = runtime.block_on(Stock::start(&setup))?;
    control::print(json!({ "ready": { "key": node.key() } }));
    let control = Control::new(&node);
    for line in lines {
        let command: Value = serde_json::from_str(&line?)?;
        if command["do"] == "stop" {
            break;
        }
        let mut control = control.clone();
        runtime.spawn(async move {
            let id = &command["id"];
            match control.act(&command).await {
                Ok(value) => control::print(json!({ "id": id, "ok": value })),
                Err(error) => control::print(json!({ "id": id, "err": error.to_string() })),
            }
        });
    }
    drop(control);
    runtime.block_on(node.stop());
    control::print(json!({ "event": "stopped" }));
    Ok(())
}
