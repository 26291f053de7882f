//! The loads of `synod bench`: scripts like any other, with the flags as their parameters.
//!
//! The mixes are those of YCSB's core workloads (Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", 2010);
//! `ycsb-e` scans, and Synod has no scans yet.

/// A script with a name.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// What `synod bench` calls it.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// How keys are drawn.
    keys: &'static str,
    /// Length of a value, bytes, unless a flag says otherwise.
    value_bytes: usize,
    /// Whether keys are loaded first: whatever reads finds them.
    loads: bool,
    /// The lines of its mix.
    mix: &'static str,
}

/// All presets.
pub const PRESETS: [Preset; 9] = [
    Preset {
        name: "ycsb-a",
        about: "half reads, half updates, zipfian keys",
        keys: "zipf",
        value_bytes: 256,
        loads: true,
        mix: "50 get $k\n50 put $k $v",
    },
    Preset {
        name: "ycsb-b",
        about: "95% reads, 5% updates, zipfian keys",
        keys: "zipf",
        value_bytes: 256,
        loads: true,
        mix: "95 get $k\n5 put $k $v",
    },
    Preset {
        name: "ycsb-c",
        about: "reads only, zipfian keys",
        keys: "zipf",
        value_bytes: 256,
        loads: true,
        mix: "100 get $k",
    },
    Preset {
        name: "ycsb-d",
        about: "95% reads, mostly of the latest keys, 5% inserts",
        keys: "latest",
        value_bytes: 256,
        loads: true,
        mix: "95 get $k\n5 put $k.next $v",
    },
    Preset {
        name: "ycsb-f",
        about: "half reads, half read-modify-writes, zipfian keys",
        keys: "zipf",
        value_bytes: 256,
        loads: true,
        mix: "50 get $k\n50 do\n  let key = $k\n  get $key\n  put $key $v\nend",
    },
    Preset {
        name: "put",
        about: "writes only, uniform keys",
        keys: "uniform",
        value_bytes: 256,
        loads: false,
        mix: "100 put $k $v",
    },
    Preset {
        name: "get",
        about: "reads only, uniform keys",
        keys: "uniform",
        value_bytes: 256,
        loads: true,
        mix: "100 get $k",
    },
    Preset {
        name: "mixed",
        about: "half reads, half writes, uniform keys",
        keys: "uniform",
        value_bytes: 256,
        loads: true,
        mix: "50 get $k\n50 put $k $v",
    },
    // A cas expects what its client read of the key just before: of 80 draws, 20 are a get with its cas, so that of
    // 100 operations 40 are gets, 30 puts, 20 cas and 10 dels.
    Preset {
        name: "register",
        about: "40% get, 30% put, 20% cas, 10% del, uniform keys: for checking histories",
        keys: "uniform",
        value_bytes: 16,
        loads: true,
        mix: "20 get $k\n30 put $k $v\n10 del $k\n20 do\n  let key = $k\n  get $key\n  cas $key --old $value $v\nend",
    },
];

impl Preset {
    /// The preset of a name.
    pub fn named(name: &str) -> Option<&'static Preset> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// Its script.
    pub fn script(&self) -> String {
        let Preset {
            name,
            about,
            keys,
            value_bytes,
            loads,
            mix,
        } = self;
        let load = if *loads { "load k v\n" } else { "" };
        let mix: String = mix.lines().map(|line| format!("      {line}\n")).collect();
        format!(
            "# {name}: {about}\n\
             param clients 16\n\
             param pipeline 1\n\
             param keys 10000\n\
             param value_size {value_bytes}\n\
             param warmup 1s\n\
             param duration 10s   # warm-up included\n\
             param rate 0         # 0: as fast as answers come\n\
             \n\
             keys k {keys} $keys\n\
             values v unique $value_size\n\
             {load}\
             warmup $warmup\n\
             clients $clients c pipeline $pipeline rate $rate\n\
             \x20 for $duration\n\
             \x20   mix\n\
             {mix}\
             \x20   end\n\
             \x20 end\n\
             end\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::script;
    use std::collections::BTreeMap;

    #[test]
    fn every_preset_is_a_script_and_can_stand_in_a_history() {
        for preset in PRESETS {
            let text = preset.script();
            let program = script::parse(text.as_bytes(), &BTreeMap::new());
            let program = program.unwrap_or_else(|error| panic!("{error} in\n{text}"));
            assert_eq!(program.check_for_history(), Ok(()));
            assert!(Preset::named(preset.name).is_some());
        }
    }

    #[test]
    fn a_preset_reads_like_a_script_written_by_hand() {
        let text = Preset::named("register").map(Preset::script).unwrap_or_default();
        assert!(text.starts_with("# register: 40% get"));
        assert!(
            text.contains("\n      20 do\n        let key = $k\n        get $key\n"),
            "{text}"
        );
    }
}
