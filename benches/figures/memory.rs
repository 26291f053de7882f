//! How much a node's resident memory grows by keys.

use crate::figure::{head, row, shown};
use crate::subject::{NodeFlags, Subject};
use std::time::Duration;
use synod::workload::generator::KEY_BYTES;

/// Which keys.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Keys that are there before; as many again are added
    #[arg(long, env = "KEYS", default_value_t = 1_000_000)]
    keys: u64,
    /// Bytes of a value
    #[arg(long, env = "SIZE", default_value_t = 256)]
    value_bytes: u64,
    /// Rest before each look, seconds: what a node does behind a load ends meanwhile
    #[arg(long, env = "REST", default_value_t = 5)]
    rest: u64,
    #[command(flatten)]
    flags: NodeFlags,
}

/// Loads, measures and prints.
pub(crate) fn run(args: &Args) {
    let growth = measure(args);
    println!(
        "{}",
        head(&["node", "MiB before", "MiB behind", "growth by bytes of keys and values"])
    );
    for (node, before, behind, ratio) in growth {
        let mib = |bytes: u64| shown(bytes as f64 / f64::from(1 << 20));
        println!("{}", row([node.to_string(), mib(before), mib(behind), shown(ratio)]));
    }
}

/// Each node's memory with the first keys and with as many more, and the growth in bytes of keys and values.
fn measure(args: &Args) -> Vec<(u16, u64, u64, f64)> {
    let flags = args.flags.list();
    let mut subject = Subject::start(3, &flags);
    fill(&mut subject, args.keys, args.value_bytes, "a");
    let before = resident(&mut subject, args.rest);
    fill(&mut subject, args.keys, args.value_bytes, "b");
    let behind = resident(&mut subject, args.rest);
    let added = args.keys * (KEY_BYTES as u64 + args.value_bytes);
    let nodes = before.into_iter().zip(behind);
    let growth = nodes.map(|((id, before), (_, behind))| {
        let ratio = (behind as f64 - before as f64) / added as f64;
        (id, before, behind, ratio)
    });
    growth.collect()
}

/// Puts so many keys of one prefix in, each once.
pub(crate) fn fill(subject: &mut Subject, keys: u64, value_bytes: u64, prefix: &str) {
    let script = "param keys 1\nparam bytes 1\nparam each 1\nkeys k in-order $keys prefix PREFIX\nvalues v unique $bytes\n\
                  clients 16 c pipeline 32\n  repeat $each\n    put $k $v\n  end\nend\n";
    let each = keys.div_ceil(16 * 32);
    let parameters = [
        ("keys", keys.to_string()),
        ("bytes", value_bytes.to_string()),
        ("each", each.to_string()),
    ];
    subject.run(&script.replace("PREFIX", prefix), &parameters);
}

/// Each node's resident memory after a rest of so many seconds.
pub(crate) fn resident(subject: &mut Subject, rest: u64) -> Vec<(u16, u64)> {
    subject.cluster.rest(Duration::from_secs(rest));
    let ids = subject.cluster.ids();
    let of = |id: u16| {
        let status = subject.cluster.status(id).expect("the node answers");
        (id, status["resident_bytes"].as_u64().expect("the system tells it"))
    };
    ids.into_iter().map(of).collect()
}
