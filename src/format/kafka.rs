//! Kafka's own serializers (`org.apache.kafka.common.serialization`): one column, INT, BIGINT and DOUBLE big-endian,
//! STRING as UTF-8, BYTES as they are.

use compact_str::CompactString;

use crate::schema::Type;
use crate::value::Value;

pub(super) fn supports(ty: &Type) -> bool {
    matches!(ty, Type::Int | Type::Bigint | Type::Double | Type::String | Type::Bytes)
}

pub(super) fn decode(bytes: &[u8], ty: &Type) -> Result<Value, String> {
    Ok(match ty {
        Type::Int => Value::Int(i32::from_be_bytes(exactly(bytes, ty)?)),
        Type::Bigint => Value::Bigint(i64::from_be_bytes(exactly(bytes, ty)?)),
        Type::Double => Value::Double(f64::from_be_bytes(exactly(bytes, ty)?)),
        Type::String => Value::String(CompactString::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))?),
        Type::Bytes => Value::bytes(bytes),
        _ => return Err(format!("Kafka's serializers have no {ty}")),
    })
}

pub(super) fn encode(value: &Value, into: &mut Vec<u8>) -> Result<(), String> {
    match value {
        Value::Int(value) => into.extend_from_slice(&value.to_be_bytes()),
        Value::Bigint(value) => into.extend_from_slice(&value.to_be_bytes()),
        Value::Double(value) => into.extend_from_slice(&value.to_be_bytes()),
        Value::String(value) => into.extend_from_slice(value.as_bytes()),
        Value::Bytes(value) => into.extend_from_slice(value),
        Value::Null => return Err("it is NULL".to_owned()),
        _ => return Err("Kafka's serializers have nothing for its type".to_owned()),
    }
    Ok(())
}

fn exactly<const N: usize>(bytes: &[u8], ty: &Type) -> Result<[u8; N], String> {
    <[u8; N]>::try_from(bytes).map_err(|_| format!("{ty} is {N} bytes, found {}", bytes.len()))
}
