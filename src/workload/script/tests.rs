use super::program::{MAIN, Step};
use super::*;

fn read(text: &str) -> Program {
    parse(text.as_bytes(), &BTreeMap::new()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> String {
    match parse(text.as_bytes(), &BTreeMap::new()) {
        Ok(program) => panic!("{text} was read as {:?}", program.code),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_verb_is_read() {
    let program = read(
        "# All of them.
param n 4
keys k zipf $n theta 0.9 prefix key
values v unique 64B
load k v
warmup 10ms
let x = 1
let y = $x + 2
put a $y --if-absent
get a
expect value 3
expect value >= 2
cas a --old $y '$v'
cas a --version $version b
del a --prev
expect no_quorum
print x is $x
clients $n worker pipeline 2 rate 100/s
  barrier go
  repeat 2
    for 10ms
      mix
        3 get $k
        1 do
          get $k
          cas $k --old $value $v
        end
      end
    end
  end
end
client alice
  attempt
    put $client-$copy-$round 1 # names in words
  end
  barrier go
end
sleep 1ms
fault 2 acceptor down 5s
kill 1
start 1
wait alice
wait
expect get p99.9 < 50ms
expect unknown < 20
",
    );
    assert_eq!(program.groups.len(), 4, "main, load, worker, alice");
    assert_eq!(program.groups[2].places(), 8);
    assert_eq!(program.groups[2].rate, Some(100));
    assert_eq!(program.clients(), 1 + 4 + 4 + 1);
    assert_eq!(program.expectations.len(), 2);
    assert_eq!(program.barriers[0].groups.len(), 2);
    assert_eq!(program.keys[0].prefix, "key");
    assert!(!program.barriers[0].groups.contains(&MAIN));
    assert_eq!(program.code.len(), program.places.len());
}

#[test]
fn each_verb_of_the_list_is_known() {
    for verb in VERBS {
        let said = parse(verb.as_bytes(), &BTreeMap::new()).err();
        let said = said.map_or(String::new(), |error| error.to_string());
        assert!(!said.contains("unknown verb"), "{verb}: {said}");
    }
}

#[test]
fn what_is_wrong_is_named_with_line_and_column() {
    for (text, expected) in [
        ("put a 1\n  frobnicate b", "line 2, column 3: unknown verb `frobnicate`"),
        ("put a", "line 1, column 1: missing"),
        ("put '' v", "line 1, column 1: the key is empty"),
        ("put a 'b", "line 1, column 7: a quote is not closed"),
        (
            "get $k",
            "line 1, column 5: no parameter, variable, keys or values is named `k`",
        ),
        ("keys k round 3", "line 1, column 8: write it as: keys NAME"),
        ("keys k zipf 0", "line 1, column 13: `0` is not a whole number from 1"),
        ("keys k zipf 9 theta 1", "line 1, column 21: write it as: theta"),
        ("values v unique 2MiB", "line 1, column 17: the value has 2097152 bytes"),
        ("values v unique 2MB", "line 1, column 17: `2MB` is not a size"),
        ("sleep 5", "line 1, column 7: `5` is not a duration"),
        ("repeat 3\nget a", "line 1, column 1: this `repeat` has no `end`"),
        ("get a\nend", "line 2, column 1: `end`, but no block is open"),
        ("mix\nend", "line 1, column 1: a mix needs"),
        ("mix\n  get a\nend", "line 2, column 3: `get` is not a whole number"),
        ("mix\n 1 repeat 2\n end\nend", "line 2, column 4: `a block` belongs"),
        (
            "client a\n client b\n end\nend",
            "line 2, column 2: `client` belongs at the top",
        ),
        ("client a\nend\nclient a\nend", "line 3, column 8: `a` is named already"),
        ("let 1x = 3", "line 1, column 5: `1x` is no name"),
        ("let round = 3", "line 1, column 5: `round` is named already"),
        ("let x = 3 ^ 4", "line 1, column 11: write it as: let"),
        ("expect perhaps", "line 1, column 8: `perhaps` is nothing to expect"),
        ("expect p99 < 50", "line 1, column 14: `50` is not a duration"),
        ("expect unknown < many", "line 1, column 18: write it as: a number"),
        (
            "client a\nexpect unknown < 3\nend",
            "line 2, column 1: `expect of the whole run` belongs",
        ),
        ("fault 0 crash", "line 1, column 7: `0` is not a whole number from 1"),
        ("fault 2 explode", "line 1, column 9: no such fault"),
        (
            "clients 200000 a\nend",
            "line 1, column 9: `200000` is not a whole number",
        ),
        (
            "clients 8000 a pipeline 200\nend",
            "1600001 clients times pipeline in all",
        ),
        ("wait bob", "line 1, column 6: no client is named `bob`"),
    ] {
        let said = refused(text);
        assert!(said.starts_with(expected), "{text:?}: {said}");
        assert!(!said.contains('\n'), "{said}");
    }
    let said = parse(b"get a\n\xff", &BTreeMap::new())
        .err()
        .map(|error| error.to_string());
    assert_eq!(said.as_deref(), Some("line 2, column 1: not UTF-8"));
}

#[test]
fn parameters_from_outside_replace_defaults_and_must_be_known() {
    let text = b"param n 4\nclients $n a\nend";
    let given = |name: &str| BTreeMap::from([(name.to_owned(), "7".to_owned())]);
    let program = parse(text, &given("n")).unwrap();
    assert_eq!(program.groups[1].copies, 7);
    let error = parse(text, &given("m")).unwrap_err();
    assert_eq!(error.to_string(), "the script has no `param m`");
}

#[test]
fn a_loop_and_a_mix_know_where_they_end() {
    let program = read("repeat 2\nmix\n1 get a\n3 do\nget b\nend\nend\nend");
    let Step::Repeat { end: loop_end, .. } = program.code[0] else {
        panic!("{:?}", program.code[0])
    };
    let Step::Mix { arms, end } = &program.code[1] else {
        panic!("{:?}", program.code[1])
    };
    assert_eq!(arms, &[(1, 2), (4, 4)]);
    assert!(matches!(program.code[*end], Step::Again), "{:?}", program.code);
    assert!(matches!(program.code[loop_end], Step::End), "{:?}", program.code);
}

#[test]
fn a_history_takes_no_cas_by_version_and_no_stale_read() {
    for text in [
        "get a --stale",
        "cas a --version 3 b",
        "get a\ncas a --version $version b",
    ] {
        let error = read(text).check_for_history().unwrap_err();
        assert!(error.to_string().contains("cannot stand in a history"), "{error}");
        assert_eq!(error.at.column, 1);
    }
    assert_eq!(read("get a\ncas a --old 1 b").check_for_history(), Ok(()));
}

#[test]
fn kill_and_start_need_a_cluster() {
    let error = read("get a\nkill 1").check_without_cluster().unwrap_err();
    assert_eq!((error.at.line, error.trouble), (2, Trouble::NoCluster));
    assert_eq!(read("fault 1 crash").check_without_cluster(), Ok(()));
}

#[test]
fn the_scripts_of_the_documentation_can_be_read() {
    let page = include_str!("../../../docs/workloads.md");
    let blocks: Vec<&str> = page.split("```workload\n").skip(1).collect();
    assert!(blocks.len() >= 7, "{}", blocks.len());
    for block in blocks {
        let (script, _) = block.split_once("```").unwrap();
        read(script);
    }
}

#[test]
fn the_scripts_of_workloads_can_be_read() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/workloads");
    let scripts = std::fs::read_dir(directory).unwrap();
    let paths = scripts.map(|entry| entry.unwrap().path());
    let paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "workload"))
        .collect();
    assert!(paths.len() >= 5, "{paths:?}");
    for path in paths {
        let text = std::fs::read(&path).unwrap();
        if let Err(error) = parse(&text, &BTreeMap::new()) {
            panic!("{}: {error}", path.display());
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(put|mix|end|client|repeat|expect|let|[0-9]|\\$[a-z]|[ \n'\"=<$a-z0-9]){0,60}") {
        let _ = parse(text.as_bytes(), &BTreeMap::new());
    }
}
