use std::fs;

use super::*;

fn merge(file: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let variables: Vec<Variable> = variables
        .iter()
        .map(|(name, value)| Ok(variable(name, value)?.unwrap()))
        .collect::<Result<_, String>>()?;
    Settings::merge(
        "config.toml",
        file.parse().unwrap(),
        &variables,
        Table::new(),
    )
}

/// Unless the operator names others than the default, which is refused.
#[test]
fn proxied_nodes_ask_no_dns() {
    let proxy = "[transport]\nproxy = '127.0.0.1:9050'\nproxy_for = ";
    for kind in ["all", "names"] {
        let proxy = format!("{proxy}'{kind}'");
        assert!(merge(&proxy, &[]).unwrap().node.dns_seeds.is_empty());
        let default = format!("dns_seeds = ['{DEFAULT_DNS_SEEDS}']\n{proxy}");
        assert!(merge(&default, &[]).unwrap().node.dns_seeds.is_empty());
        let error = merge(&format!("dns_seeds = ['a.example']\n{proxy}"), &[]).unwrap_err();
        assert!(
            error.contains("dns_seeds are looked up without transport.proxy"),
            "{error}"
        );
    }
    let settings = merge(&format!("{proxy}'onion'"), &[]).unwrap();
    assert_eq!(settings.node.dns_seeds, default_node().dns_seeds);
    let variables = [("DHT_NODE_TRANSPORT_PROXY", "127.0.0.1:9050")];
    assert!(merge("", &variables).unwrap().node.dns_seeds.is_empty());
}

#[test]
fn the_environment_overrides_the_file() {
    let settings = merge(
        "memory_mib = 7\n[saf]\ncapacity_rows = 5\nmax_returned = 9",
        &[
            ("DHT_NODE_MEMORY_MIB", "8"),
            ("DHT_NODE_SAF_CAPACITY_ROWS", "6"),
            ("DHT_NODE_RATES_JOIN_BURST", "3"),
            (
                "DHT_NODE_LISTEN",
                "/ip4/127.0.0.1/tcp/1, /ip4/127.0.0.1/tcp/2",
            ),
            ("DHT_NODE_FORWARD", "false"),
            ("DHT_NODE_LOG", "debug"),
        ],
    )
    .unwrap();
    assert_eq!(settings.node.memory_mib, 8);
    assert_eq!(
        (
            settings.node.saf.capacity_rows,
            settings.node.saf.max_returned
        ),
        (6, 9)
    );
    let join = Config::default().rates.join.per_second;
    assert_eq!(
        (
            settings.node.rates.join.per_second,
            settings.node.rates.join.burst
        ),
        (join, 3)
    );
    assert_eq!(settings.node.listen.len(), 2);
    assert!(!settings.node.forward);
    assert_eq!(settings.log.unwrap().as_str(), "debug");
}

#[test]
fn mistakes_name_their_variable() {
    for (name, value, expected) in [
        (
            "DHT_NODE_MEMROY_MIB",
            "8",
            "did you mean DHT_NODE_MEMORY_MIB?",
        ),
        ("DHT_NODE_FOO", "8", "`dht-node config` shows all of them"),
        ("DHT_NODE_TRANSPORT", "8", "as in DHT_NODE_TRANSPORT_"),
        ("DHT_NODE_MEMORY_MIB", "8 MiB", "not a whole number"),
        ("DHT_NODE_MEMORY_MIB", "0", "range 1 to 1048576"),
        ("DHT_NODE_SAF_MAILBOX_PERCENT", "101", "range 0 to 100"),
        ("DHT_NODE_NETWORK", "mars", "esmeralda"),
        ("DHT_NODE_LOG", "warning", "did you mean `warn`?"),
        ("DHT_NODE_FORWARD", "yes", "true or false"),
        ("DHT_NODE_LISTEN", "/dns6/a/tcp/1", "as in /ip4/0.0.0.0/tcp"),
        ("DHT_NODE_API_LISTEN", "here", "127.0.0.1:18190"),
        ("DHT_NODE_API_LIMITS_CONNECTIONS", "0", "range 1 to 1048576"),
    ] {
        let error = merge("", &[(name, value)]).unwrap_err();
        assert!(
            error.contains(expected) && error.starts_with(name),
            "{error}"
        );
    }
}

#[test]
fn mistakes_name_their_setting() {
    for (file, expected) in [
        (
            "lisen = []",
            "`lisen` is no setting; did you mean `listen`?",
        ),
        ("logg = 'warn'", "did you mean `log`?"),
        ("[apii]\nlisten = ''", "did you mean `api`?"),
        (
            "[saf]\ncapacity_row = 5",
            "did you mean `saf.capacity_rows`?",
        ),
        ("capacity_rows = 5", "did you mean `saf.capacity_rows`?"),
        (
            "[api]\nzzz = 5",
            "settings here are limits, listen, metrics, token_file",
        ),
        ("saf = true", "saf is a section, as in [saf]"),
        (
            "memory_mib = 'much'",
            "memory_mib is \"much\", which is not a whole number",
        ),
        (
            "memory_mib = -1",
            "memory_mib is -1, which is not in the range 1 to 1048576",
        ),
        (
            "allowed_occurrences = 4294967296",
            "allowed_occurrences is 4294967296, which is not in the range 1 to 4294967295",
        ),
        (
            "[rates]\njoin = { per_second = 0 }",
            "rates.join.per_second is 0, which is not in the range 1 to 4294967295",
        ),
        (
            "listen = [7]",
            "listen is [7], which is not a list of texts",
        ),
        ("peers = ['nobody']", "peers: "),
        (
            "listen = ['/ip4/127.0.0.1/udp/1']",
            "listen: `/ip4/127.0.0.1/udp/1` is not an address to listen on, as in /ip4/",
        ),
        ("log = 7", "log is 7, which is not a text"),
        ("log = 'loud'", "log: `loud` is not a level"),
        (
            "api = { listen = 'here' }",
            "api.listen: `here` is not an address",
        ),
    ] {
        let error = merge(file, &[]).unwrap_err();
        assert!(
            error.starts_with("config.toml: ") && error.contains(expected),
            "{file}: {error}"
        );
        let internals = ["invalid", "expected", "usize", "u32"];
        assert!(
            !internals.iter().any(|word| error.contains(word)),
            "{error}"
        );
    }
}

/// The table of `docs/settings.md`, which names every setting.
fn table() -> String {
    let defaults = defaults();
    let rows = leaves(&defaults).into_iter().map(|(path, default)| {
        let takes = match (&default, check::range(&path, &defaults)) {
            (Value::Integer(_), Some((min, max))) => format!("{min} to {max}"),
            (Value::Boolean(_), _) => "true or false".to_owned(),
            (Value::Array(_), _) => "a list of texts".to_owned(),
            _ => "a text".to_owned(),
        };
        format!("| `{}` | `{default}` | {takes} |\n", path.join("."))
    });
    rows.collect()
}

/// The operator reads in `docs/settings.md` what the code takes, and in the README what it is for.
#[test]
fn documented_settings_match_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/settings.md")).unwrap();
    let table = table();
    assert!(
        page.ends_with(&table),
        "the table of docs/settings.md should be\n{table}"
    );
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let (_, rows) = readme.split_once("| Setting | Default | Means |").unwrap();
    let rows = rows
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let named: Vec<&str> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split(','))
        .map(|name| name.trim().trim_matches(['`', '[', ']']))
        .collect();
    for key in defaults().keys() {
        assert!(named.contains(&key.as_str()), "the README lacks {key}");
    }
    for name in named {
        assert!(defaults().contains_key(name), "the README has {name}");
    }
}

#[test]
fn every_number_has_a_range() {
    let defaults = defaults();
    for (path, default) in leaves(&defaults) {
        if !default.is_integer() {
            continue;
        }
        let key = path.join(".");
        let (min, max) = check::range(&path, &defaults).unwrap();
        let [min, max] = [min, max].map(|limit| i64::try_from(limit).unwrap());
        assert!(max < i64::MAX, "{key} has no upper limit");
        let error = |number: i64| {
            let mut file = Table::new();
            set(&mut file, &defaults, &path, &Value::Integer(number));
            let error = Settings::merge("config.toml", file, &[], Table::new()).err()?;
            // At its limit a setting may rule out the default of another.
            error
                .starts_with(&format!("config.toml: {key} is"))
                .then_some(error)
        };
        for number in [min - 1, max + 1] {
            let expected = format!("{key} is {number}, which is not in the range {min} to {max}");
            let error = error(number).unwrap_or_default();
            assert!(error.ends_with(&expected), "{key} {number}: {error}");
        }
        assert_eq!([min, max].map(error), [None, None]);
    }
}

/// Values that `run` refuses are refused here, and so by every command: each text and each list of texts.
#[test]
fn every_text_is_checked() {
    const KEY: &str = "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919";
    let at = |address: &str| format!("{KEY}::{address}");
    let (good, dead) = (at("/dns4/a.example/tcp/5"), at("/ip4/0.0.0.0/tcp/5"));
    let (portless, zeros) = (at("/ip4/10.0.0.1/tcp/0"), "0".repeat(64));
    let nobody = format!("{zeros}::/ip4/10.0.0.1/tcp/5");
    let none: &[&str] = &[];
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("api.listen", &["", "[::1]:0"], &["here", "10.0.0.1:5"]),
        ("api.metrics", &["", "0.0.0.0:9100"], &["here", "9100"]),
        ("api.token_file", &["a/b", "/a"], &["", "/", ".."]),
        ("attribution", &["strict", "legacy"], &["", "harsh"]),
        ("banned", &[KEY], &["", "zz", &zeros]),
        ("dns_seeds", &["a.example"], &["", "a..b", "a b", "{net}.a"]),
        (
            "dns_servers",
            &["9.9.9.9:53"],
            &["", "a:53", "9.9.9.9:0", "[::]:53"],
        ),
        (
            "listen",
            &["/ip6/::/tcp/0", "/dns4/a.example/tcp/5"],
            &["", "/memory/5", "/dns6/a.example/tcp/5", "/ip4/10.0.0.1"],
        ),
        (
            "log",
            &["trace", "warn,dht_transport=debug"],
            &["", "trcae"],
        ),
        ("network", &["esmeralda", "localnet"], &["", "mars"]),
        (
            "outbound.select.propagation",
            &["legacy", "prefer-closer"],
            &["", "closer"],
        ),
        ("peers", &[&good], &["", KEY, &dead, &portless, &nobody]),
        (
            "public_addresses",
            &["/ip4/0.0.0.0/tcp/5", "/dns4/a.example/tcp/5"],
            &["", "/ip4/0.0.0.0/tcp/0", "/ip6/::1/tcp/0", "/dns/a/tcp/5"],
        ),
        ("seeds", &[&good], &["", KEY, &dead, &portless, &nobody]),
        (
            "tor.control",
            &["", "127.0.0.1:5"],
            &["a", "10.0.0.1:5", "127.0.0.1:0"],
        ),
        ("tor.cookie_file", &["", "a"], none),
        ("tor.password_file", &["", "a"], none),
        (
            "transport.liveness_sources",
            &["10.0.0.0/8"],
            &["", "10.0.0.0/33", "a"],
        ),
        (
            "transport.proxy",
            &["", "10.0.0.1:5"],
            &["a", "0.0.0.0:5", "10.0.0.1:0"],
        ),
        (
            "transport.proxy_for",
            &["all", "names", "onion"],
            &["", "some"],
        ),
        (
            "transport.trusted_sources",
            &["::1/128"],
            &["", "10.0.0.0/33", "a"],
        ),
    ];
    let defaults = defaults();
    let is_text = |value: &Value| value.is_str() || value.is_array();
    let texts = leaves(&defaults).into_iter();
    let texts: Vec<_> = texts.filter(|(_, value)| is_text(value)).collect();
    let keys: Vec<_> = texts.iter().map(|(path, _)| path.join(".")).collect();
    let checked: Vec<_> = cases.iter().map(|(key, _, _)| *key).collect();
    assert_eq!(keys, checked);
    for ((path, default), (key, good, bad)) in texts.iter().zip(cases) {
        let outcome = |text: &str| {
            let value = match default.is_array() {
                true => Value::Array(vec![text.into()]),
                false => text.into(),
            };
            let mut file = Table::new();
            set(&mut file, &defaults, path, &value);
            Settings::merge("config.toml", file, &[], Table::new())
        };
        for text in *good {
            let outcome = outcome(text);
            assert!(outcome.is_ok(), "{key} {text}: {outcome:?}");
        }
        for text in *bad {
            let error = outcome(text).err().unwrap_or_default();
            let place = format!("config.toml: {key}");
            assert!(error.starts_with(&place), "{key} {text}: {error}");
        }
    }
}

#[test]
fn every_setting_has_one_variable() {
    let leaves = leaves(&defaults());
    let names: std::collections::BTreeSet<String> =
        leaves.keys().map(|path| path.join("_")).collect();
    assert_eq!(names.len(), leaves.len());
    assert!(names.contains("saf_capacity_rows") && names.contains("rates_stored_messages_burst"));
}

#[test]
fn the_text_reads_back() {
    let settings = merge("log = 'info'\nmemory_mib = 9", &[]).unwrap();
    let back = merge(&settings.to_text().unwrap(), &[]).unwrap();
    assert_eq!(back.log, settings.log);
    assert!(back.changed(&settings).is_empty());
    let other = merge("memory_mib = 10", &[]).unwrap();
    assert_eq!(other.changed(&settings), ["memory_mib"]);
}
