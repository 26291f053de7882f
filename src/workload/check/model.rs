//! What operations mean: a register per key, which holds a value or is absent.
//!
//! Each operation becomes a [`Step`]: what it needs to find, and what it leaves. Values become small numbers, equal when
//! equal as JSON: the order of an object's fields does not matter, and 1 is 1.0.
//!
//! What the results say:
//! * put: nothing. get: the value that was there, null for none.
//! * delete: true, it was there; false, it was not; anything else says nothing of that.
//! * cas: true, null, or the pair itself (as Jepsen writes it): it swapped. False: what was there differed from the
//!   expected. `{"actual": v}`: it differed and was v. Anything else says nothing, so the cas counts as unknown.
//!
//! Operations that failed, and unknown ones that change nothing, are left out: they restrict nothing.

use crate::workload::history::{End, Function, History, Operation};
use serde_json::Value;
use std::collections::BTreeMap;

/// A value as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held(pub u32);

/// Nothing is there; JSON's null. What every key begins with.
pub const ABSENT: Held = Held(0);
/// A value that was only ever written, never read nor compared: all such are alike.
pub const UNSEEN: Held = Held(1);

/// What an operation needs to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Whatever is there.
    Any,
    /// This.
    Is(Held),
    /// Anything but this.
    Not(Held),
    /// It contradicts itself.
    Never,
}

/// What an operation leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leave {
    /// What was there.
    Same,
    /// This.
    Set(Held),
}

/// An operation's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// Before.
    pub need: Need,
    /// After.
    pub leave: Leave,
}

/// One operation on one key, ready for the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// Its meaning. Invariant: without an end, its need is `Any` or `Is`, and it leaves something.
    pub step: Step,
    /// When it began.
    pub call: u64,
    /// When it ended. `None`: unknown; it may take effect at any time from `call` on, or never.
    pub end: Option<u64>,
    /// Its index in the history.
    pub origin: usize,
}

/// The operations on one key.
#[derive(Clone, Debug)]
pub struct KeyHistory {
    /// The key.
    pub key: Value,
    /// In the order of their calls.
    pub ops: Vec<Op>,
}

impl Need {
    /// Whether it is met by what is there.
    pub fn is_met_by(self, there: Held) -> bool {
        match self {
            Need::Any => true,
            Need::Is(held) => there == held,
            Need::Not(held) => there != held,
            Need::Never => false,
        }
    }
}

impl Step {
    /// What is there afterwards.
    pub fn leaves(self, there: Held) -> Held {
        match self.leave {
            Leave::Same => there,
            Leave::Set(held) => held,
        }
    }

    /// The value of the highest number in it.
    pub fn highest(self) -> Held {
        let needed = match self.need {
            Need::Is(held) | Need::Not(held) => held,
            Need::Any | Need::Never => ABSENT,
        };
        needed.max(self.leaves(ABSENT))
    }
}

impl Op {
    /// The same operation as if its end had not been seen: a weaker claim. None if it then claims nothing at all.
    pub fn opened(mut self) -> Option<Op> {
        self.end = None;
        if let Need::Not(_) = self.step.need {
            // Weaker still, and all that an unknown delete is.
            self.step.need = Need::Any;
        }
        (self.step.leave != Leave::Same).then_some(self)
    }
}

/// Splits a history by key.
pub fn split(history: &History) -> Vec<KeyHistory> {
    let mut keys: Vec<KeyHistory> = Vec::new();
    let mut index: BTreeMap<String, (usize, Values)> = BTreeMap::new();
    for (origin, operation) in history.operations.iter().enumerate() {
        let place = keys.len();
        let (at, values) = index
            .entry(canonical(&operation.key))
            .or_insert_with(|| (place, Values::default()));
        if *at == place {
            keys.push(KeyHistory {
                key: operation.key.clone(),
                ops: Vec::new(),
            });
        }
        if let Some(op) = meaning(operation, origin, values) {
            keys[*at].ops.push(op);
        }
    }
    for key in &mut keys {
        merge_unseen(&mut key.ops);
        key.ops
            .sort_by_key(|op| (op.call, op.end.unwrap_or(u64::MAX), op.origin));
    }
    keys
}

fn meaning(operation: &Operation, origin: usize, values: &mut Values) -> Option<Op> {
    let (result, end) = match &operation.end {
        End::Fail => return None,
        End::Ok { value, time } => (Some(value), Some(*time)),
        End::Unknown => (None, None),
    };
    let mut op = Op {
        step: Step {
            need: Need::Any,
            leave: Leave::Same,
        },
        call: operation.invoked,
        end,
        origin,
    };
    op.step = match operation.function {
        Function::Put => Step {
            need: Need::Any,
            leave: Leave::Set(values.held(&operation.argument)),
        },
        Function::Get => Step {
            need: Need::Is(values.held(result?)),
            leave: Leave::Same,
        },
        Function::Delete => delete(result),
        Function::Cas => {
            let [expected, new] = operation.argument.as_array()?.as_slice() else {
                return None;
            };
            let (expected, new) = (values.held(expected), values.held(new));
            let swap = Step {
                need: Need::Is(expected),
                leave: Leave::Set(new),
            };
            match result {
                None => swap,
                Some(result) => cas(result, &operation.argument, swap, values).unwrap_or_else(|| {
                    op.end = None;
                    swap
                }),
            }
        }
    };
    Some(op)
}

fn delete(result: Option<&Value>) -> Step {
    let (need, leave) = match result.and_then(Value::as_bool) {
        Some(true) => (Need::Not(ABSENT), Leave::Set(ABSENT)),
        Some(false) => (Need::Is(ABSENT), Leave::Same),
        None => (Need::Any, Leave::Set(ABSENT)),
    };
    Step { need, leave }
}

/// What the result of a cas says; none if nothing that we understand.
fn cas(result: &Value, argument: &Value, swap: Step, values: &mut Values) -> Option<Step> {
    let Need::Is(expected) = swap.need else {
        return None;
    };
    let need = match result {
        Value::Null | Value::Bool(true) => return Some(swap),
        Value::Array(_) if canonical(result) == canonical(argument) => return Some(swap),
        Value::Bool(false) => Need::Not(expected),
        Value::Object(object) if object.len() == 1 => match values.held(object.get("actual")?) {
            actual if actual == expected => Need::Never,
            actual => Need::Is(actual),
        },
        _ => return None,
    };
    Some(Step {
        need,
        leave: Leave::Same,
    })
}

/// Numbers for the values of one key.
#[derive(Debug, Default)]
struct Values {
    numbers: BTreeMap<String, Held>,
}

impl Values {
    fn held(&mut self, value: &Value) -> Held {
        if value.is_null() {
            return ABSENT;
        }
        let next = Held(self.numbers.len() as u32 + 2);
        *self.numbers.entry(canonical(value)).or_insert(next)
    }
}

/// Values that nothing reads or compares become one: it makes states equal that nobody could tell apart.
fn merge_unseen(ops: &mut [Op]) {
    let mut seen: Vec<Held> = ops
        .iter()
        .filter_map(|op| match op.step.need {
            Need::Is(held) | Need::Not(held) => Some(held),
            Need::Any | Need::Never => None,
        })
        .chain([ABSENT])
        .collect();
    seen.sort_unstable();
    for op in ops {
        if let Leave::Set(held) = &mut op.step.leave
            && seen.binary_search(held).is_err()
        {
            *held = UNSEEN;
        }
    }
}

/// A text that is the same for values that are equal as JSON.
fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(object) => {
            let mut fields: Vec<_> = object.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (name, value) in fields {
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(array) => {
            out.push('[');
            for value in array {
                write_canonical(value, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Number(number) => match number.as_f64() {
            // Below 2^53 every whole number is exact as a float, so `1.0` may be read as `1`.
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0 => {
                out.push_str(&(float as i64).to_string());
            }
            _ => out.push_str(&number.to_string()),
        },
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_equal_when_equal_as_json() {
        let equal = [
            (json!({"a": 1, "b": [2]}), json!({"b": [2.0], "a": 1.0})),
            (json!(-0.0), json!(0)),
            (json!("a"), json!("a")),
        ];
        for (a, b) in equal {
            assert_eq!(canonical(&a), canonical(&b));
        }
        let differ = [
            (json!("1"), json!(1)),
            (json!(null), json!("null")),
            (json!([1, 2]), json!([2, 1])),
            (json!([]), json!({})),
            (json!(["a,b"]), json!(["a", "b"])),
            (json!(1.5), json!(1)),
            (json!(u64::MAX), json!(u64::MAX - 1)),
            (json!(false), json!(0)),
        ];
        for (a, b) in differ {
            assert_ne!(canonical(&a), canonical(&b));
        }
    }

    /// The meaning of one operation, alone on its key, with "a" and "b" as 2 and 3 where they occur in this order.
    fn meaning_of(function: Function, argument: Value, end: End) -> Option<(Step, bool)> {
        let operation = Operation {
            process: 0,
            function,
            key: json!("k"),
            argument,
            invoked: 1,
            end,
        };
        meaning(&operation, 0, &mut Values::default()).map(|op| (op.step, op.end.is_some()))
    }

    #[test]
    fn results_say_what_the_format_says() {
        use Function::{Cas, Delete, Get, Put};
        let ok = |value| End::Ok { value, time: 2 };
        let (a, b) = (Held(2), Held(3));
        let step = |need, leave| Some((Step { need, leave }, true));
        let open = |need, leave| Some((Step { need, leave }, false));
        let pair = || json!(["a", "b"]);
        #[rustfmt::skip]
        let table = [
            (Put, json!("a"), ok(json!(null)),               step(Need::Any, Leave::Set(a))),
            (Put, json!("a"), End::Unknown,                  open(Need::Any, Leave::Set(a))),
            (Put, json!("a"), End::Fail,                     None),
            (Get, json!(null), ok(json!("a")),               step(Need::Is(a), Leave::Same)),
            (Get, json!(null), ok(json!(null)),              step(Need::Is(ABSENT), Leave::Same)),
            (Get, json!(null), End::Unknown,                 None),
            (Delete, json!(null), ok(json!(true)),           step(Need::Not(ABSENT), Leave::Set(ABSENT))),
            (Delete, json!(null), ok(json!(false)),          step(Need::Is(ABSENT), Leave::Same)),
            (Delete, json!(null), ok(json!(null)),           step(Need::Any, Leave::Set(ABSENT))),
            (Delete, json!(null), End::Unknown,              open(Need::Any, Leave::Set(ABSENT))),
            (Cas, pair(), ok(json!(true)),                   step(Need::Is(a), Leave::Set(b))),
            (Cas, pair(), ok(json!(null)),                   step(Need::Is(a), Leave::Set(b))),
            (Cas, pair(), ok(pair()),                        step(Need::Is(a), Leave::Set(b))),
            (Cas, pair(), ok(json!(false)),                  step(Need::Not(a), Leave::Same)),
            (Cas, pair(), ok(json!({"actual": "c"})),        step(Need::Is(Held(4)), Leave::Same)),
            (Cas, pair(), ok(json!({"actual": null})),       step(Need::Is(ABSENT), Leave::Same)),
            (Cas, pair(), ok(json!({"actual": "a"})),        step(Need::Never, Leave::Same)),
            (Cas, pair(), ok(json!("what?")),                open(Need::Is(a), Leave::Set(b))),
            (Cas, pair(), End::Unknown,                      open(Need::Is(a), Leave::Set(b))),
            (Cas, json!([null, "a"]), ok(json!(true)),       step(Need::Is(ABSENT), Leave::Set(a))),
        ];
        for (function, argument, end, expected) in table {
            let case = format!("{function:?} {argument} {end:?}");
            assert_eq!(meaning_of(function, argument, end), expected, "{case}");
        }
    }

    #[test]
    fn keys_are_split_as_json_and_values_that_nobody_sees_become_one() {
        let put = |key, value| Operation {
            process: 0,
            function: Function::Put,
            key,
            argument: value,
            invoked: 1,
            end: End::Ok {
                value: Value::Null,
                time: 2,
            },
        };
        let get = Operation {
            function: Function::Get,
            end: End::Ok {
                value: json!("seen"),
                time: 9,
            },
            ..put(json!("k"), Value::Null)
        };
        let history = History {
            operations: vec![
                put(json!("k"), json!("x")),
                put(json!(1), json!("x")),
                put(json!("k"), json!("y")),
                put(json!("k"), json!("seen")),
                get,
            ],
        };
        let keys = split(&history);
        assert_eq!(keys.len(), 2);
        let left: Vec<_> = keys[0].ops.iter().map(|op| op.step.leave).collect();
        let unseen = Leave::Set(UNSEEN);
        assert_eq!(left[..2], [unseen, unseen]);
        assert!(matches!(left[2], Leave::Set(Held(2..))));
    }
}
