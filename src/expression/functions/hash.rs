//! Hash functions.

use md5::Digest as _;

use super::misuse;
use super::text::hex_encode;
use crate::expression::eval::Eval;
use crate::value::Value;

fn bytes<'a>(function: &'static str, arguments: &[&'a Value]) -> Eval<&'a [u8]> {
    match arguments {
        [Value::String(text)] => Ok(text.as_bytes()),
        [Value::Bytes(bytes)] => Ok(bytes),
        _ => misuse(function),
    }
}

pub fn md5(arguments: &[&Value]) -> Eval<Value> {
    Ok(Value::string(hex_encode(&md5::Md5::digest(bytes("MD5", arguments)?))))
}

pub fn sha256(arguments: &[&Value]) -> Eval<Value> {
    Ok(Value::string(hex_encode(&sha2::Sha256::digest(bytes("SHA256", arguments)?))))
}

pub fn xxhash64(arguments: &[&Value]) -> Eval<Value> {
    let hash = xxhash_rust::xxh64::xxh64(bytes("XXHASH64", arguments)?, 0);
    Ok(Value::Bigint(hash.cast_signed()))
}

pub fn murmur2(arguments: &[&Value]) -> Eval<Value> {
    Ok(Value::Int(murmur2_of(bytes("MURMUR2", arguments)?).cast_signed()))
}

/// Austin Appleby's MurmurHash2 with the seed of Kafka's Java client (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2_of(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Kafka's keys are shorter than 2 GB.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}
