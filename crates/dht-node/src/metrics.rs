//! Metrics of all crates of a node.

/// Describes the metrics of every crate of a node to the installed recorder.
pub fn describe_metrics() {
    dht_dedup::describe_metrics();
    dht_inbound::describe_metrics();
    dht_outbound::describe_metrics();
    dht_peers::describe_metrics();
    dht_spool::describe_metrics();
    dht_transport::describe_metrics();
    #[cfg(feature = "overlay")]
    {
        dht_overlay::describe_metrics();
        dht_rpc::describe_metrics();
    }
    #[cfg(feature = "dns-seeds")]
    crate::dns_seeds::describe_metrics();
    #[cfg(feature = "lan")]
    crate::lan::describe_metrics();
    #[cfg(feature = "tor")]
    dht_tor::describe_metrics();
    #[cfg(feature = "saf")]
    {
        dht_mailbox::describe_metrics();
        dht_saf::describe_metrics();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// Every crate with metrics is called, and describes each of its names.
    #[test]
    fn every_metric_is_described() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let called = include_str!("metrics.rs");
        let mut names = 0;
        for entry in fs::read_dir(crates).unwrap() {
            let folder = entry.unwrap().path();
            let library = folder.file_name().unwrap().to_str().unwrap();
            let library = library.replace('-', "_");
            let Ok(source) = fs::read_to_string(folder.join("src/metrics.rs")) else {
                continue;
            };
            if library == "dht_node" {
                continue;
            }
            let call = format!("{library}::describe_metrics();");
            assert!(called.contains(&call), "{call}");
            let (_, described) = source.split_once("pub fn describe_metrics() {").unwrap();
            let (described, _) = described.split_once("\n}").unwrap();
            let is_described = |name: &str| {
                let mut words = described.split(|c: char| !c.is_ascii_uppercase() && c != '_');
                words.any(|word| word == name)
            };
            for line in source.lines() {
                let Some((constant, _)) = line.split_once(": &str = \"dht_") else {
                    continue;
                };
                let name = constant.rsplit(' ').next().unwrap();
                assert!(is_described(name), "{library}: {name}");
                names += 1;
            }
        }
        assert!(names > 50, "the sources are not where they were");
    }
}
