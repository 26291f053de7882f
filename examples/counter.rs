//! A counter that counts exactly once, whatever fails meanwhile: several of these at once end at the exact sum.
//!
//! The value is a line such as `alice=5 bob=7`: each writer keeps its own number in it, and the counter is their sum. An
//! increment is a compare-and-swap by version. Its end may be unknown, if the cluster cannot answer in time; then the
//! writer reads the value again: its own number says whether the increment took effect, and a late one cannot take
//! effect beside a second one, since both expect the same version and a version never comes back.
//!
//!     cargo run --example counter -- [NAME [TIMES [ENDPOINTS]]]

use std::collections::BTreeMap;
use std::error::Error;
use synod::client::blocking::{Cas, Client};
use synod::client::{Options, options::ENDPOINTS_DEFAULT};
use synod::kv::Expect;

const KEY: &str = "counter";

/// The numbers of all writers.
type Counts = BTreeMap<String, u64>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_else(|| "example".into());
    let times: u64 = words.next().map_or(Ok(10), |times| times.parse())?;
    let endpoints = words.next().unwrap_or_else(|| ENDPOINTS_DEFAULT.into());
    let endpoints: Vec<&str> = endpoints.split(',').collect();

    let mut client = Client::connect(&endpoints, Options::random()?)?;
    let (_, counts) = read(&mut client)?;
    let begin = counts.get(&name).copied().unwrap_or(0);
    for target in begin + 1..=begin + times {
        count_to(&mut client, &name, target)?;
    }
    let (_, counts) = read(&mut client)?;
    println!("{KEY} = {} ({})", counts.values().sum::<u64>(), line(&counts));
    client.close()?;
    Ok(())
}

/// Brings this writer's own number to `target`, which is one more than it was.
fn count_to(client: &mut Client, name: &str, target: u64) -> Result<(), Box<dyn Error>> {
    loop {
        let (version, mut counts) = read(client)?;
        if counts.get(name).copied().unwrap_or(0) >= target {
            return Ok(()); // an earlier try took effect, although its answer was lost
        }
        counts.insert(name.to_string(), target);
        let tried = match version {
            Some(version) => client
                .cas(KEY, Expect::Version(version), line(&counts))
                .map(|cas| matches!(cas, Cas::Swapped { .. })),
            None => client.put_if_absent(KEY, line(&counts)),
        };
        match tried {
            Ok(true) => return Ok(()),
            Ok(false) => {} // another writer was faster
            // Also when it is unknown: what is there now says how to go on.
            Err(error) if error.is_retryable() || error.is_maybe_done() => eprintln!("{name} tries again: {error}"),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The version of the counter, and the numbers of all writers.
fn read(client: &mut Client) -> Result<(Option<u64>, Counts), Box<dyn Error>> {
    let Some(found) = client.get(KEY)? else {
        return Ok((None, Counts::new()));
    };
    let mut counts = Counts::new();
    for part in std::str::from_utf8(&found.value)?.split_whitespace() {
        let (name, number) = part.split_once('=').ok_or("the key holds something else")?;
        counts.insert(name.to_string(), number.parse()?);
    }
    Ok((Some(found.version), counts))
}

fn line(counts: &Counts) -> String {
    let parts: Vec<String> = counts.iter().map(|(name, number)| format!("{name}={number}")).collect();
    parts.join(" ")
}
