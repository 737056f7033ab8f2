//! The language as a JSON Schema, for editors: `sidestream schema`.
//!
//! It says what this version runs. What only the planner can know (names, types, expressions) is text here.

use serde_json::{Value, json};

/// JSON Schema, draft 2020-12.
pub fn json_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sidestream topology",
        "type": "object",
        "required": ["version", "name"],
        "additionalProperties": false,
        "properties": {
            "version": {"const": 1, "description": "The language's version."},
            "name": {
                "type": "string",
                "pattern": "^[A-Za-z0-9._]+$",
                "description": "The application id: consumer group and prefix of internal topics."
            },
            "description": {"type": "string"},
            "guarantee": {"enum": ["exactly_once", "at_least_once"], "default": "exactly_once"},
            "time_zone": {"const": "UTC"},
            "streams": named(&json!({"$ref": "#/$defs/stream"}), "Topics read record by record."),
            "tables": named(&json!({"$ref": "#/$defs/table"}), "Topics of which the last value per key counts."),
            "steps": named(&json!({"$ref": "#/$defs/step"}), "What is done. The order of the keys means nothing."),
            "rename": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Old step names to new ones: state is kept."
            },
            "tests": {"type": "array", "items": {"$ref": "#/$defs/test"}},
            "dev": named(&json!({"$ref": "#/$defs/generator"}), "Made-up input for `sidestream dev`.")
        },
        "$defs": {
            "text": {
                "type": ["string", "number", "boolean"],
                "description": "An SQL expression."
            },
            "select": {
                "description": "An SQL select list, as text or as a list of its items.",
                "anyOf": [{"$ref": "#/$defs/text"}, {"type": "array", "items": {"$ref": "#/$defs/text"}}]
            },
            "expressions": {"type": "object", "additionalProperties": {"$ref": "#/$defs/text"}},
            "duration": {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d)|\\$\\{.*\\})$"},
            "topic": {"type": "string"},
            "format": {"enum": ["json", "kafka", "string", "bytes"]},
            "on_error": {"enum": ["dead_letter", "skip", "fail"], "default": "dead_letter"},
            "late": object(&["to"], json!({"to": {"$ref": "#/$defs/topic"}})),
            "columns": {
                "description": "Names and types, or one DDL text.",
                "anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}]
            },
            "key": {
                "description": "`{name, type}` for a plain value, `{columns, format: json}` for several.",
                "anyOf": [
                    object(&["name", "type"], json!({
                        "name": {"type": "string"}, "type": {"type": "string"}, "format": {"$ref": "#/$defs/format"}
                    })),
                    object(&["columns"], json!({
                        "columns": {"$ref": "#/$defs/columns"}, "format": {"$ref": "#/$defs/format"}
                    }))
                ]
            },
            "watermark": object(&[], json!({
                "delay": {"$ref": "#/$defs/duration"},
                "idle_timeout": {"$ref": "#/$defs/duration"},
                "max_ahead": {"anyOf": [{"$ref": "#/$defs/duration"}, {"const": "off"}]}
            })),
            "stream": stream(),
            "table": table(),
            "step": step(),
            "join": object(&["with", "on"], json!({
                "with": {"type": "string"},
                "as": {"type": "string"},
                "type": {"enum": ["inner", "left"], "default": "inner"},
                "on": {"$ref": "#/$defs/text"}
            })),
            "window": object(&["type", "size"], json!({
                "type": {"enum": ["tumbling"]},
                "size": {"$ref": "#/$defs/duration"},
                "grace": {"$ref": "#/$defs/duration"},
                "offset": {"$ref": "#/$defs/duration"}
            })),
            "over": object(&["aggregate"], json!({
                "by": {"$ref": "#/$defs/select"},
                "range": {"anyOf": [{"$ref": "#/$defs/duration"}, {"const": "unbounded"}]},
                "rows": {"anyOf": [{"type": "integer", "minimum": 1}, {"const": "unbounded"}]},
                "aggregate": {"$ref": "#/$defs/expressions"},
                "exclude_current": {"type": "boolean", "default": false},
                "grace": {"$ref": "#/$defs/duration"}
            })),
            "rule": object(&["topic"], json!({
                "topic": {"$ref": "#/$defs/topic"},
                "where": {"$ref": "#/$defs/text"},
                "otherwise": {"type": "boolean"},
                "key": {"$ref": "#/$defs/select"},
                "key_format": {"$ref": "#/$defs/format"},
                "value": {"$ref": "#/$defs/select"},
                "format": {"$ref": "#/$defs/format"},
                "headers": {"$ref": "#/$defs/expressions"}
            })),
            "test": test(),
            "generator": object(&["rate", "value"], json!({
                "rate": {"type": "number", "exclusiveMinimum": 0, "description": "Records per second."},
                "value": {"$ref": "#/$defs/expressions"}
            }))
        }
    })
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "required": required, "additionalProperties": false, "properties": properties})
}

fn named(of: &Value, description: &str) -> Value {
    json!({
        "type": "object",
        "description": description,
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "additionalProperties": of
    })
}

fn stream() -> Value {
    let mut stream = object(
        &["columns"],
        json!({
            "topic": {"$ref": "#/$defs/topic"},
            "topics": {"type": "array", "items": {"$ref": "#/$defs/topic"}, "minItems": 1},
            "key": {"$ref": "#/$defs/key"},
            "format": {"$ref": "#/$defs/format"},
            "columns": {"$ref": "#/$defs/columns"},
            "timestamp": {"$ref": "#/$defs/text"},
            "watermark": {"$ref": "#/$defs/watermark"},
            "late": {"$ref": "#/$defs/late"},
            "on_error": {"$ref": "#/$defs/on_error"},
            "start": {"type": "string", "description": "earliest, latest or a timestamp", "default": "earliest"}
        }),
    );
    stream["oneOf"] = json!([{"required": ["topic"]}, {"required": ["topics"]}]);
    stream
}

fn table() -> Value {
    object(
        &["topic", "columns"],
        json!({
            "topic": {"$ref": "#/$defs/topic"},
            "key": {"$ref": "#/$defs/key"},
            "format": {"$ref": "#/$defs/format"},
            "columns": {"$ref": "#/$defs/columns"},
            "timestamp": {"$ref": "#/$defs/text"},
            "watermark": {"$ref": "#/$defs/watermark"},
            "on_error": {"$ref": "#/$defs/on_error"},
            "bootstrap": {"type": "boolean", "default": true},
            "query": {"type": "boolean", "default": true}
        }),
    )
}

fn step() -> Value {
    let one_or_many = |item: &str| {
        let item = json!({"$ref": format!("#/$defs/{item}")});
        json!({"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]})
    };
    object(
        &["from"],
        json!({
            "from": {
                "description": "A name, `name AS alias`, or a list of inputs with the same columns.",
                "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
            },
            "join": one_or_many("join"),
            "where": {"$ref": "#/$defs/text"},
            "key_by": {
                "anyOf": [
                    {"$ref": "#/$defs/select"},
                    object(&["by"], json!({
                        "by": {"$ref": "#/$defs/select"}, "partitions": {"type": "integer", "minimum": 1}
                    }))
                ]
            },
            "over": one_or_many("over"),
            "window": {"$ref": "#/$defs/window"},
            "group_by": {"$ref": "#/$defs/select"},
            "aggregate": {"$ref": "#/$defs/expressions"},
            "having": {"$ref": "#/$defs/text"},
            "select": {"$ref": "#/$defs/select"},
            "emit": {"enum": ["each", "changes", "final"], "default": "changes"},
            "ttl": {
                "anyOf": [
                    {"const": "none"},
                    {"$ref": "#/$defs/duration"},
                    object(&["after"], json!({
                        "after": {"$ref": "#/$defs/duration"}, "downstream": {"enum": ["delete", "keep"]}
                    }))
                ]
            },
            "to": {
                "anyOf": [
                    {"$ref": "#/$defs/topic"},
                    {"$ref": "#/$defs/rule"},
                    {"type": "array", "minItems": 1, "items": {"anyOf": [{"$ref": "#/$defs/topic"}, {"$ref": "#/$defs/rule"}]}}
                ]
            },
            "as": {
                "anyOf": [
                    {"enum": ["table", "stream"]},
                    object(&["table"], json!({"table": object(&[], json!({"latest": {"$ref": "#/$defs/text"}}))}))
                ]
            },
            "late": {"$ref": "#/$defs/late"},
            "on_error": {"$ref": "#/$defs/on_error"},
            "retention": {"$ref": "#/$defs/duration"},
            "query": {"type": "boolean", "default": true},
            "keep_empty": {"type": "boolean", "default": false}
        }),
    )
}

fn test() -> Value {
    let rows = json!({"type": "array"});
    object(
        &["name", "given", "expect"],
        json!({
            "name": {"type": "string"},
            "given": {"type": "array", "items": object(&[], json!({
                "stream": {"type": "string"},
                "table": {"type": "string"},
                "key": {},
                "value": {"type": "object"},
                "delete": {"type": "boolean"},
                "repeat": {"type": "integer", "minimum": 0},
                "every": {"$ref": "#/$defs/duration"},
                "timestamp": {},
                "headers": {"type": "object"},
                "partition": {"type": "integer", "minimum": 0},
                "advance": {"$ref": "#/$defs/duration"}
            }))},
            "expect": {"type": "array", "items": object(&[], json!({
                "topic": {"$ref": "#/$defs/topic"},
                "count": {"type": "integer", "minimum": 0},
                "contains": rows,
                "exactly": rows,
                "tombstones": rows,
                "table": {"type": "string"},
                "rows": rows,
                "nothing": {"anyOf": [{"$ref": "#/$defs/topic"}, {"type": "array", "items": {"$ref": "#/$defs/topic"}}]}
            }))},
            "faults": {"type": "array", "items": object(&[], json!({
                "crash_after": {"type": "integer"},
                "rebalance_after": {"type": "integer"},
                "duplicate_fetch_at": {"type": "integer"}
            }))},
            "partitions": {"type": "integer", "minimum": 1}
        }),
    )
}
