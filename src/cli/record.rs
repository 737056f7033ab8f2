//! Rows as people write them, to records as topics hold them, and back: for tests, generated input and what `dev` shows.

use serde_json::{Map, Value as Json};

use crate::format::json::{from_json, row_to_json};
use crate::format::{Decoder, Encoder, Format};
use crate::row::Row;
use crate::schema::Schema;
use crate::topology::plan::{Encoding, OperatorPlan, Reader, SinkRule, SourcePlan};
use crate::topology::{GeneratorPlan, Plan};
use crate::value::Value;

/// The source that reads a stream or table of the topology.
pub fn source_of<'a>(plan: &'a Plan, name: &str) -> Option<(&'a SourcePlan, &'a Reader)> {
    let sources = plan.sub_topologies.iter().flat_map(|part| &part.sources);
    sources
        .flat_map(|source| source.readers.iter().map(move |reader| (source, reader)))
        .find(|(_, reader)| &*reader.name == name && matches!(reader.encoding, Encoding::Declared { .. }))
}

/// Key and value of a record. `None` is Kafka's null.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// Writes the rows of one stream or table as its topic holds them.
#[derive(Debug)]
pub struct SourceWriter {
    schema: Schema,
    key_slots: Vec<usize>,
    value_slots: Vec<usize>,
    key_schema: Schema,
    value_format: Format,
    key: Encoder,
    value: Encoder,
}

impl SourceWriter {
    /// `None` for internal topics.
    pub fn new(reader: &Reader) -> Option<Self> {
        match reader.encoding {
            Encoding::Declared { key, value } => Some(Self::with(&reader.schema, &reader.key, key, value)),
            Encoding::Internal => None,
        }
    }

    /// For generated rows.
    pub fn of_generator(generator: &GeneratorPlan) -> Self {
        Self::with(&generator.schema, &generator.key, generator.key_format, generator.value_format)
    }

    fn with(schema: &Schema, key_slots: &[usize], key_format: Format, value_format: Format) -> Self {
        let value_slots: Vec<usize> = (0..schema.len()).filter(|slot| !key_slots.contains(slot)).collect();
        let columns = |slots: &[usize]| Schema::new(slots.iter().map(|slot| schema.columns()[*slot].clone()));
        let (key_schema, value_schema) = (columns(key_slots), columns(&value_slots));
        Self {
            schema: schema.clone(),
            key: Encoder::new(key_format, &key_schema),
            value: Encoder::new(value_format, &value_schema),
            value_format,
            key_schema,
            key_slots: key_slots.to_vec(),
            value_slots,
        }
    }

    /// All columns, key columns included.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// From a whole row. Values for JSON topics are written as they are given, so that a test can send what does not fit
    /// the columns.
    pub fn object(&mut self, row: &Map<String, Json>, key: Option<&Json>) -> Result<Bytes, String> {
        if let Some(unknown) = row.keys().find(|name| self.schema.position(name).is_none()) {
            let known: Vec<&str> = self.schema.columns().iter().map(|column| &*column.name).collect();
            return Err(format!("there is no column `{unknown}`; the columns are {}", known.join(", ")));
        }
        let key_of = match key {
            Some(key) => self.key_values(key)?,
            None => self.key_slots.iter().map(|slot| self.column_value(row, *slot)).collect::<Result<Row, String>>()?,
        };
        let value = if self.value_format == Format::Json {
            let fields = row.iter().filter(|(name, _)| self.key_schema.position(name).is_none());
            Json::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect()).to_string().into_bytes()
        } else {
            let values =
                self.value_slots.iter().map(|slot| self.column_value(row, *slot)).collect::<Result<Row, String>>()?;
            encode(&mut self.value, &values)?
        };
        Ok(Bytes { key: self.key_bytes(&key_of)?, value: Some(value) })
    }

    /// A record without a value.
    pub fn tombstone(&mut self, key: &Json) -> Result<Bytes, String> {
        let key = self.key_values(key)?;
        Ok(Bytes { key: self.key_bytes(&key)?, value: None })
    }

    /// From the values of all columns.
    pub fn row(&mut self, row: &[Value]) -> Result<Bytes, String> {
        let values = |slots: &[usize]| slots.iter().filter_map(|slot| row.get(*slot).cloned()).collect::<Row>();
        let (key, value) = (values(&self.key_slots), values(&self.value_slots));
        let value = encode(&mut self.value, &value)?;
        Ok(Bytes { key: self.key_bytes(&key)?, value: Some(value) })
    }

    fn column_value(&self, row: &Map<String, Json>, slot: usize) -> Result<Value, String> {
        let column = &self.schema.columns()[slot];
        let value = row.get(&*column.name).unwrap_or(&Json::Null);
        from_json(value, &column.ty).map_err(|reason| format!("column `{}`: {reason}", column.name))
    }

    /// The plain value of one key column, or an object of several.
    fn key_values(&self, key: &Json) -> Result<Row, String> {
        let columns = self.key_schema.columns();
        match (columns, key) {
            ([column], plain) if !plain.is_object() => {
                Ok(vec![from_json(plain, &column.ty).map_err(|reason| format!("key: {reason}"))?])
            }
            (columns, Json::Object(object)) => columns
                .iter()
                .map(|column| {
                    let value = object.get(&*column.name).unwrap_or(&Json::Null);
                    from_json(value, &column.ty).map_err(|reason| format!("key column `{}`: {reason}", column.name))
                })
                .collect(),
            _ => Err("write the key's plain value for one column, an object for several".to_owned()),
        }
    }

    fn key_bytes(&mut self, key: &[Value]) -> Result<Option<Vec<u8>>, String> {
        if key.iter().all(Value::is_null) {
            return Ok(None);
        }
        encode(&mut self.key, key).map(Some)
    }
}

fn encode(encoder: &mut Encoder, values: &[Value]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    encoder.encode(values, &mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Reads what a sink's rule has written.
#[derive(Debug)]
pub struct SinkReader {
    pub key_schema: Schema,
    pub value_schema: Schema,
    key: Decoder,
    value: Decoder,
}

impl SinkReader {
    pub fn new(rule: &SinkRule) -> Self {
        let all = |schema: &Schema| vec![true; schema.len()];
        Self {
            key: Decoder::new(rule.key_format, &rule.key_schema, &all(&rule.key_schema), 0),
            value: Decoder::new(rule.value_format, &rule.value_schema, &all(&rule.value_schema), 0),
            key_schema: rule.key_schema.clone(),
            value_schema: rule.value_schema.clone(),
        }
    }

    pub fn key(&mut self, bytes: &[u8]) -> Result<Row, String> {
        decode(&mut self.key, &self.key_schema, bytes)
    }

    pub fn value(&mut self, bytes: &[u8]) -> Result<Row, String> {
        decode(&mut self.value, &self.value_schema, bytes)
    }

    /// Key columns and value columns as one object.
    pub fn object(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Map<String, Json>, String> {
        let mut object = Map::new();
        if let Some(bytes) = key
            && !self.key_schema.is_empty()
        {
            object.extend(row_to_json(&self.key(bytes)?, &self.key_schema));
        }
        if let Some(bytes) = value {
            object.extend(row_to_json(&self.value(bytes)?, &self.value_schema));
        }
        Ok(object)
    }
}

fn decode(decoder: &mut Decoder, schema: &Schema, bytes: &[u8]) -> Result<Row, String> {
    let mut row = vec![Value::Null; schema.len()];
    decoder.decode(bytes, &mut row).map_err(|error| error.to_string())?;
    Ok(row)
}

/// The rules that write a topic of the user.
pub fn rules_of<'a>(plan: &'a Plan, topic: &str) -> Vec<&'a SinkRule> {
    let nodes = plan.sub_topologies.iter().flat_map(|part| &part.nodes);
    let sinks = nodes.filter_map(|node| match &node.operator {
        OperatorPlan::Sink(sink) => Some(sink),
        OperatorPlan::Filter(_)
        | OperatorPlan::Project(_)
        | OperatorPlan::StreamTableJoin(_)
        | OperatorPlan::Materialize(_)
        | OperatorPlan::Aggregate(_)
        | OperatorPlan::Over(_)
        | OperatorPlan::ToStream
        | OperatorPlan::Repartition(_) => None,
    });
    sinks.flat_map(|sink| &sink.rules).filter(|rule| rule.topic.as_str() == topic).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value as Json, json};

    use super::{Bytes, SourceWriter, source_of};
    use crate::topology::load_text;

    /// A writer for one stream with this key, format and columns.
    fn writer(declaration: &str) -> SourceWriter {
        let text = format!("version: 1\nname: t\nstreams:\n  s: {declaration}\nsteps:\n  out: {{from: s, to: o}}\n");
        let loaded = load_text("t.yaml", &text, None, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let (_, reader) = source_of(&loaded.plan, "s").unwrap();
        SourceWriter::new(reader).unwrap()
    }

    fn object(value: Json) -> Map<String, Json> {
        serde_json::from_value(value).unwrap()
    }

    fn bytes(key: Option<&[u8]>, value: Option<&str>) -> Bytes {
        Bytes { key: key.map(<[u8]>::to_vec), value: value.map(|text| text.as_bytes().to_vec()) }
    }

    #[test]
    fn key_columns_go_into_the_key_and_the_others_into_the_value() {
        let mut plain = writer("{topic: t, key: {name: id, type: BIGINT}, format: json, columns: {a: STRING}}");
        assert_eq!(
            plain.object(&object(json!({"id": 1, "a": "x"})), None).unwrap(),
            bytes(Some(&[0, 0, 0, 0, 0, 0, 0, 1]), Some(r#"{"a":"x"}"#))
        );
        assert_eq!(plain.tombstone(&json!(1)).unwrap(), bytes(Some(&[0, 0, 0, 0, 0, 0, 0, 1]), None));

        let mut several = writer(
            "{topic: t, key: {columns: {a: STRING, b: INT}, format: json}, format: string, columns: {v: STRING}}",
        );
        assert_eq!(
            several.object(&object(json!({"v": "text", "b": 2, "a": "x"})), None).unwrap(),
            bytes(Some(br#"{"a":"x","b":2}"#), Some("text"))
        );
    }

    #[test]
    fn a_value_for_a_json_topic_is_written_as_it_stands() {
        let mut writer =
            writer("{topic: t, key: {name: id, type: STRING}, format: json, columns: {n: BIGINT NOT NULL}}");
        let written = writer.object(&object(json!({"id": "x", "n": "many"})), None).unwrap();
        assert_eq!(written, bytes(Some(b"x"), Some(r#"{"n":"many"}"#)));
    }

    #[test]
    fn what_is_no_column_or_no_key_is_refused_by_name() {
        let mut writer = writer("{topic: t, key: {name: id, type: BIGINT}, format: json, columns: {n: BIGINT}}");
        let unknown = writer.object(&object(json!({"id": 1, "m": 1})), None).unwrap_err();
        assert!(unknown.contains("`m`") && unknown.contains("id, n"), "{unknown}");
        let key = writer.object(&object(json!({"id": "one"})), None).unwrap_err();
        assert!(key.contains("column `id`"), "{key}");
    }

    #[test]
    fn a_stream_without_a_key_has_records_without_one() {
        let mut writer = writer("{topic: t, format: json, columns: {n: BIGINT}}");
        assert_eq!(writer.object(&object(json!({"n": 1})), None).unwrap(), bytes(None, Some(r#"{"n":1}"#)));
    }
}
