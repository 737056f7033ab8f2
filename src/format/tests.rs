use super::*;
use crate::value::Decimal;

fn one(ty: Type) -> Schema {
    Schema::new([Column::new("k", ty, true)])
}

fn round_trip(format: Format, ty: Type, value: &Value) -> Vec<u8> {
    let schema = one(ty);
    let mut bytes = Vec::new();
    Encoder::new(format, &schema).encode(std::slice::from_ref(value), &mut bytes).unwrap();
    let mut row = Row::new();
    Decoder::new(format, &schema, &[true], 2).decode(&bytes, &mut row).unwrap();
    assert_eq!(row, [Value::Null, Value::Null, value.clone()]);
    bytes
}

#[test]
fn kafkas_serializers_are_big_endian_and_utf_8() {
    assert_eq!(round_trip(Format::Kafka, Type::Int, &Value::Int(-2)), [0xff, 0xff, 0xff, 0xfe]);
    assert_eq!(round_trip(Format::Kafka, Type::Bigint, &Value::Bigint(258)), [0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(round_trip(Format::Kafka, Type::Double, &Value::Double(1.0)), [0x3f, 0xf0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(round_trip(Format::Kafka, Type::String, &Value::string("h\u{e9}")), "h\u{e9}".as_bytes());
    assert_eq!(round_trip(Format::Kafka, Type::Bytes, &Value::bytes([0, 255])), [0, 255]);
}

#[test]
fn one_value_is_text_or_bytes() {
    assert_eq!(round_trip(Format::String, Type::String, &Value::string("a")), b"a");
    assert_eq!(round_trip(Format::String, Type::Timestamp, &Value::Timestamp(0)), b"1970-01-01T00:00:00Z");
    let decimal = Type::Decimal { precision: 5, scale: 2 };
    assert_eq!(round_trip(Format::String, decimal, &Value::Decimal(Decimal::new(150, 2))), b"1.50");
    assert_eq!(round_trip(Format::Bytes, Type::Bytes, &Value::bytes([1, 2])), [1, 2]);
}

#[test]
fn bytes_of_the_wrong_length_or_encoding_name_the_column() {
    for (format, ty, bytes, expected) in [
        (Format::Kafka, Type::Int, &[1, 2, 3][..], "column `k`: INT is 4 bytes, found 3"),
        (Format::Kafka, Type::Bigint, &[1, 2, 3, 4], "column `k`: BIGINT is 8 bytes, found 4"),
        (Format::String, Type::Int, b"x", "column `k`: `x` is not a INT"),
    ] {
        let error = Decoder::new(format, &one(ty), &[true], 0).decode(bytes, &mut Row::new()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    for format in [Format::Kafka, Format::String] {
        let error = Decoder::new(format, &one(Type::String), &[true], 0).decode(&[0xff], &mut Row::new()).unwrap_err();
        assert!(matches!(error, DecodeError::Column { .. }), "{error}");
    }
}

#[test]
fn an_unused_column_is_not_looked_at() {
    let mut row = vec![Value::Int(7)];
    Decoder::new(Format::Kafka, &one(Type::Int), &[false], 0).decode(b"not four", &mut row).unwrap();
    assert_eq!(row, [Value::Int(7)]);
}

#[test]
fn null_has_no_form_as_one_value() {
    for format in [Format::Kafka, Format::String, Format::Bytes] {
        let error = Encoder::new(format, &one(Type::Bytes)).encode(&[Value::Null], &mut Vec::new()).unwrap_err();
        assert_eq!(error.reason, "it is NULL");
    }
}

#[test]
fn what_a_format_holds_is_known_before_anything_runs() {
    let two = Schema::new([Column::new("a", Type::Int, true), Column::new("b", Type::Int, true)]);
    assert_eq!(supports(Format::Json, &two), Ok(()));
    assert_eq!(supports(Format::Kafka, &one(Type::Int)), Ok(()));
    assert_eq!(supports(Format::String, &one(Type::Timestamp)), Ok(()));
    for (format, schema, expected) in [
        (Format::Kafka, &two, "format kafka holds one column, not 2"),
        (
            Format::Kafka,
            &one(Type::Date),
            "format kafka holds INT, BIGINT, DOUBLE, STRING or BYTES; column `k` is DATE",
        ),
        (Format::Bytes, &one(Type::String), "format bytes holds BYTES; column `k` is STRING"),
    ] {
        assert_eq!(supports(format, schema), Err(expected.to_owned()));
    }
}

#[test]
fn a_key_is_the_plain_value_of_one_column_and_json_of_several() {
    assert_eq!(Format::of_key(&one(Type::String)), Format::Kafka);
    assert_eq!(Format::of_key(&one(Type::Timestamp)), Format::String);
    let two = Schema::new([Column::new("a", Type::Int, true), Column::new("b", Type::Int, true)]);
    assert_eq!(Format::of_key(&two), Format::Json);
    assert_eq!(Format::of_key(&Schema::empty()), Format::Json);
    for format in Format::ALL {
        assert_eq!(Format::from_name(format.name()), Some(format));
    }
}
