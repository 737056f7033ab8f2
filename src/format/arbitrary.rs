//! Types and values of them for property tests, with a taste for the values at which encodings go wrong.

use std::sync::Arc;

use compact_str::CompactString;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::schema::{Column, Schema, Type};
use crate::value::{Decimal, Interval, Value};

/// Any type; `depth` levels of nesting at most.
pub(crate) fn any_type(depth: u32) -> BoxedStrategy<Type> {
    let leaf = prop_oneof![4 => key_leaf(), 1 => Just(Type::Json)];
    nested(leaf.boxed(), depth, true)
}

/// Any type that a key can have.
pub(crate) fn any_key_type(depth: u32) -> BoxedStrategy<Type> {
    nested(key_leaf(), depth, false)
}

/// A schema of up to six nullable columns `c0`, `c1`, ...
pub(crate) fn any_schema(ty: BoxedStrategy<Type>) -> BoxedStrategy<Schema> {
    vec(ty, 0..6).prop_map(|types| Schema::new(columns(types))).boxed()
}

/// A row of the schema, with NULLs.
pub(crate) fn row_of(schema: &Schema) -> BoxedStrategy<Vec<Value>> {
    schema.columns().iter().map(|column| value_of(&column.ty)).collect::<Vec<_>>().boxed()
}

pub(crate) fn value_of(ty: &Type) -> BoxedStrategy<Value> {
    if *ty == Type::Null {
        return Just(Value::Null).boxed();
    }
    prop_oneof![1 => Just(Value::Null), 6 => not_null(ty)].boxed()
}

fn key_leaf() -> BoxedStrategy<Type> {
    let decimal = (1_u8..=38).prop_flat_map(|precision| {
        (Just(precision), 0..=precision).prop_map(|(precision, scale)| Type::Decimal { precision, scale })
    });
    prop_oneof![
        Just(Type::Boolean),
        Just(Type::Int),
        Just(Type::Bigint),
        Just(Type::Double),
        decimal,
        Just(Type::String),
        Just(Type::Bytes),
        Just(Type::Date),
        Just(Type::Timestamp),
        Just(Type::Interval),
    ]
    .boxed()
}

fn nested(leaf: BoxedStrategy<Type>, depth: u32, with_maps: bool) -> BoxedStrategy<Type> {
    leaf.prop_recursive(depth, 8, 3, move |inner| {
        let array = inner.clone().prop_map(|ty| Type::Array(Arc::new(ty)));
        let fields = vec(inner.clone(), 0..4).prop_map(|types| Type::Struct(columns(types).collect()));
        if with_maps {
            prop_oneof![array, fields, inner.prop_map(|ty| Type::Map(Arc::new(ty)))].boxed()
        } else {
            prop_oneof![array, fields].boxed()
        }
    })
    .boxed()
}

fn columns(types: Vec<Type>) -> impl Iterator<Item = Column> {
    types.into_iter().enumerate().map(|(index, ty)| Column::new(format!("c{index}"), ty, true))
}

fn not_null(ty: &Type) -> BoxedStrategy<Value> {
    match ty {
        Type::Null => Just(Value::Null).boxed(),
        Type::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        Type::Int => prop_oneof![any::<i32>(), -2..2, Just(i32::MIN), Just(i32::MAX)].prop_map(Value::Int).boxed(),
        Type::Bigint => bigint().prop_map(Value::Bigint).boxed(),
        Type::Double => {
            let special = [0.0, -0.0, 1.0, -1.0, 0.1, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, -5e-324];
            prop_oneof![any::<f64>(), -100.0..100.0, proptest::sample::select(special.to_vec())]
                .prop_map(Value::Double)
                .boxed()
        }
        Type::Decimal { precision, scale } => {
            let (limit, scale) = (10_i128.pow(u32::from(*precision)) - 1, *scale);
            prop_oneof![-limit..=limit, (-3_i128).max(-limit)..=3_i128.min(limit), Just(limit), Just(-limit)]
                .prop_map(move |unscaled| Value::Decimal(Decimal::new(unscaled, scale)))
                .boxed()
        }
        Type::String => prop_oneof![".{0,40}", "[a-b\\x00]{0,5}", "[\\x00-\\x1f\"\\\\/\u{e9}\u{20ac}\u{10348}]{0,12}"]
            .prop_map(Value::string)
            .boxed(),
        Type::Bytes => {
            let near_escapes = vec(proptest::sample::select(vec![0_u8, 1, 2, 0xfe, 0xff]), 0..6);
            prop_oneof![vec(any::<u8>(), 0..40), near_escapes].prop_map(Value::bytes).boxed()
        }
        Type::Date => prop_oneof![any::<i32>(), -1000..30_000].prop_map(Value::Date).boxed(),
        Type::Timestamp => bigint().prop_map(Value::Timestamp).boxed(),
        Type::Interval => {
            let part = || prop_oneof![-70_i32..70, -1_000_000_000..1_000_000_000];
            let micros = prop_oneof![-3_i64..3, -400_000_000_000_i64..400_000_000_000, any::<i64>()];
            (part(), part(), micros)
                .prop_map(|(months, days, micros)| Value::Interval(Interval { months, days, micros }))
                .boxed()
        }
        Type::Array(element) => vec(value_of(element), 0..4).prop_map(|values| Value::Array(values.into())).boxed(),
        Type::Map(value) => btree_map(".{0,5}".prop_map(CompactString::from), value_of(value), 0..4)
            .prop_map(|entries| Value::Map(Arc::new(entries)))
            .boxed(),
        Type::Struct(fields) => {
            let values: Vec<_> = fields.iter().map(|field| value_of(&field.ty)).collect();
            values.prop_map(|values| Value::Struct(values.into())).boxed()
        }
        Type::Json => json().prop_map(|tree| Value::Json(Arc::new(tree))).boxed(),
    }
}

fn bigint() -> BoxedStrategy<i64> {
    prop_oneof![any::<i64>(), -2_i64..2, Just(i64::MIN), Just(i64::MAX), 1_500_000_000_000_i64..2_000_000_000_000_000]
        .boxed()
}

/// Not null at the top: that would be NULL.
fn json() -> BoxedStrategy<serde_json::Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        (-1e9..1e9_f64).prop_map(serde_json::Value::from),
        ".{0,10}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            btree_map(".{0,5}", inner, 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
    .boxed()
}
