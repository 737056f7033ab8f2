use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;
use crate::format::arbitrary::{any_key_type, any_schema, row_of};
use crate::schema::Column;

fn schema(types: &[Type]) -> Schema {
    Schema::new(types.iter().map(|ty| Column::new("c", ty.clone(), true)))
}

fn encoded(key: &[Value], schema: &Schema) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(key, schema, &mut bytes).unwrap();
    bytes
}

fn decoded(bytes: &[u8], schema: &Schema) -> Row {
    let mut row = Row::new();
    decode_key(bytes, schema, &mut row).unwrap();
    row
}

/// The order that the encoding must have, by value.
fn naive(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Greater,
        (_, Value::Null) => Ordering::Less,
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) | (Value::Date(a), Value::Date(b)) => a.cmp(b),
        (Value::Bigint(a), Value::Bigint(b)) | (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Double(a), Value::Double(b)) => match (a.is_nan(), b.is_nan()) {
            (false, false) => a.partial_cmp(b).unwrap(),
            (a, b) => a.cmp(&b),
        },
        (Value::Decimal(a), Value::Decimal(b)) => {
            assert_eq!(a.scale, b.scale);
            { a.unscaled }.cmp(&{ b.unscaled })
        }
        (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Interval(a), Value::Interval(b)) => length(*a).cmp(&length(*b)),
        (Value::Array(a), Value::Array(b)) | (Value::Struct(a), Value::Struct(b)) => naive_all(a, b),
        other => panic!("{other:?}"),
    }
}

fn naive_all(a: &[Value], b: &[Value]) -> Ordering {
    let first = a.iter().zip(b).map(|(a, b)| naive(a, b)).find(|order| order.is_ne());
    first.unwrap_or_else(|| a.len().cmp(&b.len()))
}

fn length(interval: Interval) -> i128 {
    (i128::from(interval.months) * 30 + i128::from(interval.days)) * i128::from(MICROS_PER_DAY)
        + i128::from(interval.micros)
}

#[test]
fn the_bytes_on_disk_do_not_change() {
    let cases: [(Type, Value, &[u8]); 16] = [
        (Type::Int, Value::Null, &[2]),
        (Type::Boolean, Value::Boolean(true), &[1, 1]),
        (Type::Int, Value::Int(-1), &[1, 0x7f, 0xff, 0xff, 0xff]),
        (Type::Bigint, Value::Bigint(1), &[1, 0x80, 0, 0, 0, 0, 0, 0, 1]),
        (Type::Double, Value::Double(-0.0), &[1, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        (Type::Double, Value::Double(-1.0), &[1, 0x40, 0x0f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        (Type::Double, Value::Double(-f64::NAN), &[1, 0xff, 0xf8, 0, 0, 0, 0, 0, 0]),
        (
            Type::Decimal { precision: 18, scale: 2 },
            Value::Decimal(Decimal::new(15, 1)),
            &[1, 0x80, 0, 0, 0, 0, 0, 0, 150],
        ),
        (
            Type::Decimal { precision: 19, scale: 0 },
            Value::Decimal(Decimal::new(-1, 0)),
            &[1, 0x7f, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
        ),
        (Type::String, Value::string("a\0b"), &[1, b'a', 0, 0xff, b'b', 0, 1]),
        (Type::Bytes, Value::bytes([0xff]), &[1, 0xff, 0, 1]),
        (Type::Date, Value::Date(2), &[1, 0x80, 0, 0, 2]),
        (Type::Timestamp, Value::Timestamp(-2), &[1, 0x7f, 255, 255, 255, 255, 255, 255, 254]),
        (
            Type::Interval,
            Value::Interval(Interval { months: 0, days: 31, micros: 1 }),
            &[1, 0x80, 0, 0, 1, 0x80, 0, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 1],
        ),
        (
            Type::Array(Arc::new(Type::Boolean)),
            Value::Array([Value::Null, Value::Boolean(false)].into()),
            &[1, 2, 1, 0, 0],
        ),
        (
            Type::Struct([Column::new("a", Type::Boolean, true), Column::new("b", Type::Boolean, true)].into()),
            Value::Struct([Value::Boolean(true), Value::Null].into()),
            &[1, 1, 1, 2],
        ),
    ];
    for (ty, value, bytes) in cases {
        assert_eq!(encoded(std::slice::from_ref(&value), &schema(std::slice::from_ref(&ty))), bytes, "{value:?}");
    }
}

#[test]
fn values_that_sql_calls_equal_have_the_same_bytes() {
    let decimal = Type::Decimal { precision: 10, scale: 3 };
    let interval = |months, days, micros| Value::Interval(Interval { months, days, micros });
    for (ty, a, b) in [
        (Type::Double, Value::Double(0.0), Value::Double(-0.0)),
        (Type::Double, Value::Double(f64::NAN), Value::Double(f64::from_bits(0xfff0_0000_0000_0001))),
        (Type::Double, Value::Double(2.0), Value::Int(2)),
        (Type::Bigint, Value::Bigint(2), Value::Int(2)),
        (decimal.clone(), Value::Decimal(Decimal::new(15, 1)), Value::Decimal(Decimal::new(1500, 3))),
        (decimal.clone(), Value::Decimal(Decimal::new(150_000, 5)), Value::Decimal(Decimal::new(15, 1))),
        (decimal, Value::Int(3), Value::Decimal(Decimal::new(3, 0))),
        (Type::Interval, interval(1, 0, 0), interval(0, 30, 0)),
        (Type::Interval, interval(0, 1, 0), interval(0, 0, MICROS_PER_DAY)),
        (Type::Interval, interval(0, -1, 1), interval(0, 0, 1 - MICROS_PER_DAY)),
    ] {
        let schema = schema(&[ty]);
        assert_eq!(
            encoded(std::slice::from_ref(&a), &schema),
            encoded(std::slice::from_ref(&b), &schema),
            "{a:?} {b:?}"
        );
    }
}

#[test]
fn slots_of_a_row_encode_as_the_key_alone() {
    let row_schema = schema(&[Type::Int, Type::String, Type::Bigint]);
    let row = [Value::Int(1), Value::string("k"), Value::Bigint(2)];
    let mut bytes = Vec::new();
    encode_key_slots(&row, &[2, 1], &row_schema, &mut bytes).unwrap();
    let key_schema = schema(&[Type::Bigint, Type::String]);
    assert_eq!(decoded(&bytes, &key_schema), [Value::Bigint(2), Value::string("k")]);
    assert!(encode_key_slots(&row, &[3], &row_schema, &mut bytes).is_err());
}

#[test]
fn a_value_that_the_type_cannot_hold_is_refused() {
    for (ty, value) in [
        (Type::Int, Value::string("a")),
        (Type::Int, Value::Bigint(1)),
        (Type::Decimal { precision: 10, scale: 0 }, Value::Decimal(Decimal::new(15, 1))),
        (Type::Decimal { precision: 10, scale: 0 }, Value::Decimal(Decimal::new(i128::MAX, 0))),
        (Type::Interval, Value::Interval(Interval { months: i32::MAX, days: i32::MAX, micros: 0 })),
        (Type::Json, Value::Json(serde_json::json!(1).into())),
    ] {
        assert!(encode_value(&value, &ty, &mut Vec::new()).is_err(), "{value:?} as {ty}");
    }
    assert!(encode_key(&[], &schema(&[Type::Int]), &mut Vec::new()).is_err());
}

#[test]
fn only_types_with_an_order_are_key_types() {
    assert!(is_key_type(&Type::Array(Arc::new(Type::Interval))));
    assert!(!is_key_type(&Type::Json));
    assert!(!is_key_type(&Type::Map(Arc::new(Type::Int))));
    assert!(!is_key_type(&Type::Struct([Column::new("a", Type::Json, true)].into())));
}

#[test]
fn windows_sort_before_keys_and_list_entries_behind_them() {
    let mut windowed = Vec::new();
    push_window_start(EventTime(-5), &mut windowed);
    windowed.extend_from_slice(b"key");
    assert_eq!(split_windowed_key(&windowed).unwrap(), (EventTime(-5), &b"key"[..]));
    assert!(split_windowed_key(&windowed[..7]).is_err());

    let mut entry = b"key".to_vec();
    push_list_position(EventTime(7), 3, &mut entry);
    assert_eq!(split_list_key(&entry).unwrap(), (&b"key"[..], EventTime(7), 3));
    assert!(split_list_key(&entry[..15]).is_err());

    let at = |time, tie| {
        let mut entry = b"key".to_vec();
        push_list_position(EventTime(time), tie, &mut entry);
        entry
    };
    assert!(at(-1, 9) < at(0, 0) && at(0, 0) < at(0, 1) && at(0, u64::MAX) < at(1, 0));
    assert!(at(i64::MAX, u64::MAX) < prefix_end(b"key").unwrap());
}

#[test]
fn the_end_of_a_prefix_is_above_all_that_start_with_it() {
    assert_eq!(prefix_end(&[1, 2]), Some(vec![1, 3]));
    assert_eq!(prefix_end(&[1, 0xff, 0xff]), Some(vec![2]));
    assert_eq!(prefix_end(&[0xff]), None);
    assert_eq!(prefix_end(&[]), None);
}

#[test]
fn keys_are_found_by_the_beginning_of_their_text() {
    let schema = schema(&[Type::String]);
    let mut from = Vec::new();
    push_text_prefix("a\0", &mut from);
    let to = prefix_end(&from).unwrap();
    for (text, within) in [("a\0", true), ("a\0b", true), ("a", false), ("a\u{1}", false), ("b", false)] {
        let key = encoded(&[Value::string(text)], &schema);
        assert_eq!(key >= from && key < to, within, "{text:?}");
    }
}

fn schema_and_two_rows() -> impl Strategy<Value = (Schema, Row, Row)> {
    any_schema(any_key_type(2)).prop_flat_map(|schema| (Just(schema.clone()), row_of(&schema), row_of(&schema)))
}

proptest! {
    #[test]
    fn keys_sort_as_their_values((schema, a, b) in schema_and_two_rows(), shared in 0_usize..6) {
        // Rows that begin alike are the interesting ones.
        let mut b = b;
        let shared = shared.min(a.len());
        b[..shared].clone_from_slice(&a[..shared]);
        prop_assert_eq!(encoded(&a, &schema).cmp(&encoded(&b, &schema)), naive_all(&a, &b));
    }

    #[test]
    fn texts_and_numbers_that_begin_alike_sort_as_their_values(
        a in "[ab\\x00\\x01\u{ff}]{0,4}", b in "[ab\\x00\\x01\u{ff}]{0,4}", x in -300_i64..300, y in -300_i64..300,
    ) {
        let schema = schema(&[Type::String, Type::Bigint]);
        let (a, b) = ([Value::string(a), Value::Bigint(x)], [Value::string(b), Value::Bigint(y)]);
        prop_assert_eq!(encoded(&a, &schema).cmp(&encoded(&b, &schema)), naive_all(&a, &b));
    }

    #[test]
    fn keys_read_back_as_equal_values((schema, key, _) in schema_and_two_rows()) {
        let bytes = encoded(&key, &schema);
        let read = decoded(&bytes, &schema);
        prop_assert_eq!(naive_all(&read, &key), Ordering::Equal, "{:?}", read);
        prop_assert_eq!(encoded(&read, &schema), bytes);
    }

    #[test]
    fn no_key_is_the_beginning_of_another((schema, a, b) in schema_and_two_rows()) {
        let (a, b) = (encoded(&a, &schema), encoded(&b, &schema));
        prop_assert!(a == b || !b.starts_with(&a));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(
        (schema, key, _) in schema_and_two_rows(), bytes: Vec<u8>, at: prop::sample::Index, with: u8,
    ) {
        let _ = decode_key(&bytes, &schema, &mut Row::new());
        let mut bytes = encoded(&key, &schema);
        if bytes.is_empty() {
            return Ok(());
        }
        let at = at.index(bytes.len());
        prop_assert!(decode_key(&bytes[..at], &schema, &mut Row::new()).is_err());
        bytes[at] = with;
        let _ = decode_key(&bytes, &schema, &mut Row::new());
    }
}
