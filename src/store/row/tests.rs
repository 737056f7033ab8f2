use proptest::prelude::*;

use super::*;
use crate::format::arbitrary::{any_schema, any_type, row_of};
use crate::schema::Column;

fn schema(columns: &[(&str, Type)]) -> Schema {
    Schema::new(columns.iter().map(|(name, ty)| Column::new(name, ty.clone(), true)))
}

fn only(schema: &Schema) -> RowCodec {
    RowCodec::new(Vec::new(), schema.clone()).unwrap()
}

fn encoded(codec: &RowCodec, row: &[Value], time: Option<EventTime>) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec.encode(row, time, &mut bytes).unwrap();
    bytes
}

fn decimal(precision: u8, scale: u8) -> Type {
    Type::Decimal { precision, scale }
}

#[test]
fn the_bytes_on_disk_do_not_change() {
    let schema = schema(&[
        ("boolean", Type::Boolean),
        ("int", Type::Int),
        ("null", Type::Int),
        ("bigint", Type::Bigint),
        ("double", Type::Double),
        ("decimal", decimal(10, 2)),
        ("string", Type::String),
        ("bytes", Type::Bytes),
        ("date", Type::Date),
        ("timestamp", Type::Timestamp),
        ("interval", Type::Interval),
        ("array", Type::Array(Arc::new(Type::Int))),
        ("map", Type::Map(Arc::new(Type::Int))),
        ("struct", Type::Struct([Column::new("a", Type::Boolean, false)].into())),
        ("json", Type::Json),
    ]);
    let row = [
        Value::Boolean(true),
        Value::Int(-1),
        Value::Null,
        Value::Bigint(300),
        Value::Double(1.5),
        Value::Decimal(Decimal::new(-150, 2)),
        Value::string("hi"),
        Value::bytes([0, 255]),
        Value::Date(1),
        Value::Timestamp(2),
        Value::Interval(Interval { months: 1, days: -1, micros: 0 }),
        Value::Array([Value::Int(1), Value::Null].into()),
        Value::Map(Arc::new([(CompactString::new("k"), Value::Int(7))].into())),
        Value::Struct([Value::Boolean(false)].into()),
        Value::Json(serde_json::json!([1]).into()),
    ];
    let codec = RowCodec::with_version(Vec::new(), 5, schema).unwrap();
    #[rustfmt::skip]
    let bytes = [
        1, 11, 9,                        // format, layout 5 with a time, -5 ms
        0b0000_0100, 0,                  // the third is NULL
        1, 1, 216, 4,                    // true, -1, 300
        0, 0, 0, 0, 0, 0, 0xf8, 0x3f,    // 1.5
        2, 171, 2,                       // -1.50
        2, b'h', b'i', 2, 0, 255,
        2, 2, 0, 0, 0, 0, 0, 0, 0,       // date, timestamp
        2, 1, 0,                         // interval
        2, 0b10, 2,                      // array
        1, 1, b'k', 0, 14,               // map
        0, 0,                            // struct
        3, b'[', b'1', b']',
    ];
    assert_eq!(encoded(&codec, &row, Some(EventTime(-5))), bytes);
    assert_eq!(codec.decode(&bytes).unwrap(), (row.to_vec(), Some(EventTime(-5))));
    assert_eq!(encoded(&only(&Schema::empty()), &[], None), [1, 2]);
}

#[test]
fn a_bigint_widens_to_a_whole_decimal_that_holds_every_one() {
    let first = schema(&[("sum", Type::Bigint)]);
    let codec = RowCodec::new(Vec::new(), first.clone()).unwrap();
    let stored = encoded(&codec, &[Value::Bigint(i64::MIN)], None);
    let wide = RowCodec::new(vec![(1, first.clone())], schema(&[("sum", decimal(38, 0))])).unwrap();
    let expected = vec![Value::Decimal(Decimal::new(i128::from(i64::MIN), 0))];
    assert_eq!(wide.decode(&stored).unwrap(), (expected, None));
    for narrow in [decimal(18, 0), decimal(38, 2)] {
        assert!(RowCodec::new(vec![(1, first.clone())], schema(&[("sum", narrow)])).is_err());
    }
}

#[test]
fn a_store_survives_added_dropped_moved_and_widened_columns() {
    let first = schema(&[
        ("key", Type::String),
        ("dropped", Type::Array(Arc::new(Type::String))),
        ("count", Type::Int),
        ("mean", Type::Int),
        ("sum", Type::Bigint),
        ("price", decimal(6, 2)),
    ]);
    let row = [
        Value::string("k"),
        Value::Array([Value::string("x")].into()),
        Value::Int(3),
        Value::Int(2),
        Value::Bigint(9),
        Value::Decimal(Decimal::new(150, 2)),
    ];
    let codec = RowCodec::new(Vec::new(), first.clone()).unwrap();
    assert_eq!(codec.version(), 1);
    let stored = encoded(&codec, &row, Some(EventTime(8)));
    let stored_nulls = encoded(&codec, &vec![Value::Null; 6], None);

    let second = schema(&[
        ("price", decimal(10, 4)),
        ("key", Type::String),
        ("n", Type::Bigint),
        ("count", Type::Bigint),
        ("mean", Type::Double),
        ("sum", Type::Double),
    ]);
    let defaults = vec![Value::Null, Value::Null, Value::Bigint(0), Value::Null, Value::Null, Value::Null];
    let codec = RowCodec::new(vec![(1, first.clone())], second.clone()).unwrap().with_defaults(defaults).unwrap();
    assert_eq!(codec.version(), 2);
    let expected = vec![
        Value::Decimal(Decimal::new(15_000, 4)),
        Value::string("k"),
        Value::Bigint(0),
        Value::Bigint(3),
        Value::Double(2.0),
        Value::Double(9.0),
    ];
    assert_eq!(codec.decode(&stored).unwrap(), (expected.clone(), Some(EventTime(8))));
    let nulls = vec![Value::Null, Value::Null, Value::Bigint(0), Value::Null, Value::Null, Value::Null];
    assert_eq!(codec.decode(&stored_nulls).unwrap(), (nulls, None));

    // Rows of the new layout and of the old one live side by side.
    let rewritten = encoded(&codec, &expected, None);
    assert_eq!(codec.decode(&rewritten).unwrap().0, expected);
    let again = RowCodec::new(vec![(1, first), (2, second.clone())], second).unwrap();
    assert_eq!(again.version(), 2);
    assert_eq!(again.decode(&rewritten).unwrap().0, expected);
}

#[test]
fn a_layout_that_would_misread_stored_rows_is_refused_by_column_and_types() {
    let fields = |ty| Type::Struct([Column::new("a", ty, true)].into());
    for (stored, wanted, expected) in [
        (Type::Bigint, Type::Int, "column `v` is stored as BIGINT and cannot be read as INT"),
        (Type::Int, Type::String, "column `v` is stored as INT and cannot be read as STRING"),
        (decimal(10, 2), decimal(10, 4), "column `v` is stored as DECIMAL(10,2) and cannot be read as DECIMAL(10,4)"),
        (decimal(10, 2), decimal(12, 1), "column `v` is stored as DECIMAL(10,2) and cannot be read as DECIMAL(12,1)"),
        (
            fields(Type::Int),
            fields(Type::Bigint),
            "column `v` is stored as STRUCT<a INT> and cannot be read as STRUCT<a BIGINT>",
        ),
    ] {
        let error = RowCodec::new(vec![(1, schema(&[("v", stored)]))], schema(&[("v", wanted)])).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn columns_with_one_name_keep_their_order() {
    let stored = schema(&[("at", Type::Int), ("gone", Type::Int), ("at", Type::String)]);
    let row = [Value::Int(1), Value::Int(2), Value::string("3")];
    let bytes = encoded(&only(&stored), &row, None);
    let codec = RowCodec::new(vec![(1, stored)], schema(&[("at", Type::Int), ("at", Type::String), ("at", Type::Int)]));
    assert_eq!(codec.unwrap().decode(&bytes).unwrap().0, [Value::Int(1), Value::string("3"), Value::Null]);
}

#[test]
fn whether_a_column_may_be_null_is_not_a_new_layout() {
    let nullable = Schema::new([Column::new("a", Type::Int, true)]);
    let not_null = Schema::new([Column::new("a", Type::Int, false)]);
    assert_eq!(RowCodec::new(vec![(4, nullable)], not_null).unwrap().version(), 4);
}

#[test]
fn one_version_is_one_layout() {
    let (a, b) = (schema(&[("a", Type::Int)]), schema(&[("b", Type::Int)]));
    let error = RowCodec::new(vec![(1, a.clone()), (1, b.clone())], b.clone()).unwrap_err();
    assert_eq!(error, LayoutError::Duplicate { version: 1 });
    let error = RowCodec::with_version(vec![(1, a)], 1, b.clone()).unwrap_err();
    assert_eq!(error, LayoutError::Duplicate { version: 1 });
    let error = only(&b).with_defaults(Row::new()).unwrap_err();
    assert_eq!(error, LayoutError::Defaults { given: 0, columns: 1 });
}

#[test]
fn unknown_formats_and_layouts_are_refused() {
    let codec = only(&schema(&[("a", Type::Int)]));
    let refused = |bytes: &[u8]| codec.decode(bytes).unwrap_err().to_string();
    assert_eq!(
        refused(&[2, 2, 0, 2]),
        "a stored row cannot be read: its format is 2; this version of Sidestream knows 1"
    );
    assert_eq!(refused(&[1, 4, 0, 2]), "a stored row cannot be read: its layout 2 is unknown");
    assert_eq!(refused(&[1, 2, 0, 2, 0]), "a stored row cannot be read: bytes are left over");
    assert_eq!(refused(&[]), "a stored row cannot be read: it ends too early");
    // A count that the bytes cannot hold takes no memory.
    let codec = only(&schema(&[("a", Type::Array(Arc::new(Type::Int)))]));
    assert!(codec.decode(&[1, 2, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0]).is_err());
}

#[test]
fn a_row_that_is_not_of_the_layout_is_refused() {
    let codec = only(&schema(&[("a", Type::Int)]));
    assert!(codec.encode(&[Value::Bigint(1)], None, &mut Vec::new()).is_err());
    assert!(codec.encode(&[], None, &mut Vec::new()).is_err());
}

fn schema_and_row() -> impl Strategy<Value = (Schema, Row)> {
    any_schema(any_type(2)).prop_flat_map(|schema| (Just(schema.clone()), row_of(&schema)))
}

proptest! {
    #[test]
    fn rows_read_back_as_written((schema, row) in schema_and_row(), time in any::<Option<i64>>()) {
        let codec = only(&schema);
        let time = time.map(EventTime);
        let bytes = encoded(&codec, &row, time);
        let read = codec.decode(&bytes).unwrap();
        prop_assert_eq!(encoded(&codec, &read.0, read.1), bytes);
        // By their text, since NaN is not equal to itself.
        prop_assert_eq!(format!("{:?}", read), format!("{:?}", (row, time)));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(
        (schema, row) in schema_and_row(), bytes: Vec<u8>, at: prop::sample::Index, with: u8,
    ) {
        let codec = only(&schema);
        let _ = codec.decode(&[&[1, 2], bytes.as_slice()].concat());
        let mut bytes = encoded(&codec, &row, None);
        let at = at.index(bytes.len());
        prop_assert!(codec.decode(&bytes[..at]).is_err());
        bytes[at] = with;
        let _ = codec.decode(&bytes);
    }
}
