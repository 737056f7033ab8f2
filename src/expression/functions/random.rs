//! Random values for the generators of `dev:`. Each thread has its own generator, seeded by the caller: the same seed gives
//! the same records.

use std::cell::RefCell;

use super::{failure, misuse};
use crate::expression::eval::{Eval, out_of_range};
use crate::schema::Type;
use crate::value::Value;

thread_local! {
    static GENERATOR: RefCell<fastrand::Rng> = const { RefCell::new(fastrand::Rng::with_seed(0)) };
}

/// Starts this thread's generator anew.
pub fn seed(seed: u64) {
    GENERATOR.set(fastrand::Rng::with_seed(seed));
}

fn draw<T>(draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
    GENERATOR.with_borrow_mut(draw)
}

pub fn int(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Bigint(from), Value::Bigint(to)] = arguments else { return misuse("RANDOM_INT") };
    if from > to {
        return failure("RANDOM_INT", "the range is empty");
    }
    Ok(Value::Bigint(draw(|generator| generator.i64(*from..=*to))))
}

pub fn double(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Double(from), Value::Double(to)] = arguments else { return misuse("RANDOM_DOUBLE") };
    Ok(Value::Double(from + (to - from) * draw(fastrand::Rng::f64)))
}

/// By the method of Box and Muller.
fn standard_normal() -> f64 {
    draw(|generator| {
        let radius = (-2.0 * (1.0 - generator.f64()).ln()).sqrt();
        radius * (std::f64::consts::TAU * generator.f64()).cos()
    })
}

pub fn normal(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Double(mean), Value::Double(deviation)] = arguments else { return misuse("RANDOM_NORMAL") };
    Ok(Value::Double(mean + deviation * standard_normal()))
}

pub fn lognormal(arguments: &[&Value]) -> Eval<Value> {
    let [Value::Double(mu), Value::Double(sigma)] = arguments else { return misuse("RANDOM_LOGNORMAL") };
    let number = (mu + sigma * standard_normal()).exp();
    if number.is_infinite() { Err(out_of_range(Type::Double)) } else { Ok(Value::Double(number)) }
}

pub fn choice(arguments: &[&Value]) -> Eval<Value> {
    let index = draw(|generator| generator.usize(0..arguments.len().max(1)));
    Ok(arguments.get(index).map_or(Value::Null, |value| (*value).clone()))
}

pub fn uuid(_arguments: &[&Value]) -> Eval<Value> {
    let bits = draw(|generator| generator.u128(..));
    // Version 4, variant 1 (RFC 9562).
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Ok(Value::string(parts.join("-")))
}
