//! Which librdkafka properties may be given.

/// Properties that Sidestream sets itself, because exactly-once rests on them.
pub const REFUSED: &[&str] = &[
    "group.id",
    "client.id",
    "group.instance.id",
    "transactional.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "isolation.level",
    "partition.assignment.strategy",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "partitioner",
];

/// The problem and what to do instead, if the property is refused.
pub fn check(name: &str) -> Result<(), (String, String)> {
    if REFUSED.contains(&name) {
        return Err((
            format!("`kafka.{name}` cannot be set: Sidestream sets it itself, because exactly-once depends on it"),
            "remove it".to_string(),
        ));
    }
    if matches!(name, "bootstrap.servers" | "metadata.broker.list") {
        return Err((format!("`kafka.{name}` cannot be set"), "use `brokers`".to_string()));
    }
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_') {
        return Err((
            format!("`{name}` is not the name of a Kafka client property"),
            "write it as librdkafka spells it, such as `security.protocol`".to_string(),
        ));
    }
    Ok(())
}

/// Whether its value must not be shown.
pub fn is_secret(name: &str) -> bool {
    ["password", "secret", "token", "ssl.key", "ssl_key", "jaas", "oauthbearer.config", "credentials"]
        .iter()
        .any(|part| name.contains(part))
}
