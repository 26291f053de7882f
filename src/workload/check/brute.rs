//! A checker without a single idea in it, to hold the real one against: every order of all operations is tried, on the
//! operations as they stand in the history. Only for tests, and only for a handful of operations.

use crate::workload::history::{End, Function, Operation};
use serde_json::{Value, json};

/// Whether some order of the operations of one key explains all results.
pub(super) fn is_linearizable(operations: &[Operation]) -> bool {
    let mut rest: Vec<&Operation> = operations.iter().filter(|op| op.end != End::Fail).collect();
    explains(&Value::Null, &mut rest)
}

fn explains(there: &Value, rest: &mut Vec<&Operation>) -> bool {
    if rest.iter().all(|op| op.end == End::Unknown) {
        return true;
    }
    for at in 0..rest.len() {
        let op = rest[at];
        let too_early = rest
            .iter()
            .any(|other| matches!(other.end, End::Ok { time, .. } if time < op.invoked));
        if too_early {
            continue;
        }
        if let Some(after) = run(op, there) {
            rest.swap_remove(at);
            let explained = explains(&after, rest);
            rest.push(op);
            let last = rest.len() - 1;
            rest.swap(at, last);
            if explained {
                return true;
            }
        }
    }
    false
}

/// What is there after the operation ran; none if its result could not have been.
fn run(op: &Operation, there: &Value) -> Option<Value> {
    let result = match &op.end {
        End::Ok { value, .. } => Some(value),
        End::Unknown => None,
        End::Fail => unreachable!("left out before"),
    };
    match op.function {
        Function::Put => Some(op.argument.clone()),
        Function::Get => match result {
            Some(result) if result != there => None,
            _ => Some(there.clone()),
        },
        Function::Delete => match result {
            Some(Value::Bool(was)) if *was == there.is_null() => None,
            _ => Some(Value::Null),
        },
        Function::Cas => {
            let hit = op.argument[0] == *there;
            let possible = match result {
                None => true,
                Some(Value::Bool(told)) => *told == hit,
                Some(actual) => !hit && *actual == json!({ "actual": there }),
            };
            let after = if hit { &op.argument[1] } else { there };
            possible.then(|| after.clone())
        }
    }
}
