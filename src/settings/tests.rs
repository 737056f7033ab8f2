use std::time::Duration;

use super::{Environment, InstanceId, PartialSettings, Settings, duration, size};

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
}

fn errors(flags: &PartialSettings, variables: &[(&str, &str)], file: Option<&str>) -> String {
    let errors = Settings::resolve(flags, &environment(variables), file).unwrap_err();
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let flags = PartialSettings::default().with("workers", Some("3".into()));
    let variables = environment(&[("SIDESTREAM_WORKERS", "2"), ("SIDESTREAM_BROKERS", "env:9092")]);
    let file = "workers: 1\nbrokers: file:9092\ncommit_interval: 20ms\n";
    let settings = Settings::resolve(&flags, &variables, Some(file)).unwrap();
    assert_eq!(settings.workers, 3);
    assert_eq!(settings.brokers, "env:9092");
    assert_eq!(settings.commit_interval, Duration::from_millis(20));
}

#[test]
fn an_unknown_key_is_an_error_with_its_place_and_a_suggestion() {
    let text = errors(&PartialSettings::default(), &[], Some("brokers: a:1\ncommit_intervall: 1s\n"));
    assert_eq!(text, "sidestream.yaml:2:1: there is no setting `commit_intervall`; did you mean `commit_interval`?");
}

#[test]
fn every_mistake_is_reported_at_once() {
    let flags = PartialSettings::default().with("workers", Some("none".into()));
    let text = errors(&flags, &[("SIDESTREAM_MEMORY", "lots")], Some("on_stop: maybe\n"));
    assert!(text.contains("--workers: `workers`: `none` is not a number between 1 and 1024"), "{text}");
    assert!(text.contains("SIDESTREAM_MEMORY: `memory`: `lots` is not a size"), "{text}");
    assert!(text.contains("sidestream.yaml:1:10: `on_stop`: `maybe` is neither leave nor stay"), "{text}");
}

#[test]
fn secrets_come_from_the_environment_or_a_file_and_are_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, "hunter2\n").unwrap();
    let file = format!(
        "http_token: ${{TOKEN}}\nregistry: http://user:pass@registry:8081\nkafka:\n  security.protocol: SASL_SSL\n  sasl.password: \
         ${{file:{}}}\n",
        path.display()
    );
    let variables = environment(&[("TOKEN", "t0ken"), ("SIDESTREAM_KAFKA_SASL_USERNAME", "alice")]);
    let settings = Settings::resolve(&PartialSettings::default(), &variables, Some(&file)).unwrap();
    assert_eq!(settings.http_token.as_ref().unwrap().expose(), "t0ken");
    assert_eq!(settings.kafka["sasl.password"].expose(), "hunter2");
    assert_eq!(settings.kafka["sasl.username"].expose(), "alice");
    let shown = format!("{settings:?} {:?} {:?}", settings.kafka, settings.http_token);
    for secret in ["hunter2", "t0ken", "user:pass"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("kafka.security.protocol=SASL_SSL"), "{shown}");
}

#[test]
fn properties_that_exactly_once_rests_on_are_refused_by_name() {
    for name in super::REFUSED {
        let flags = PartialSettings::default().with_kafka((*name).to_string(), "x".into());
        let text = errors(&flags, &[], None);
        assert!(text.contains(&format!("`kafka.{name}` cannot be set")), "{text}");
    }
}

#[test]
fn an_unset_variable_is_an_error_and_a_default_is_taken() {
    let text = errors(&PartialSettings::default(), &[], Some("brokers: ${BROKERS}\n"));
    assert!(text.contains("the environment variable `BROKERS` is not set"), "{text}");
    let settings =
        Settings::resolve(&PartialSettings::default(), &Environment::default(), Some("brokers: ${BROKERS:b:9092}\n"));
    assert_eq!(settings.unwrap().brokers, "b:9092");
}

#[test]
fn a_pod_of_a_stateful_set_is_a_static_member() {
    let of = |host: &str| {
        let variables = environment(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("HOSTNAME", host)]);
        Settings::resolve(&PartialSettings::default(), &variables, None).unwrap().instance_id
    };
    assert_eq!(of("scorer-0"), InstanceId::StatefulSet("scorer-0".into()));
    assert_eq!(of("scorer-12"), InstanceId::StatefulSet("scorer-12".into()));
    assert_eq!(of("scorer-7d4b9c-x2k9z"), InstanceId::Generated);
    assert_eq!(of("scorer-7d4b9c-24579"), InstanceId::Generated);
}

#[test]
fn durations_and_sizes_need_their_units() {
    assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
    assert!(duration("5").is_err());
    assert!(duration("1.5s").is_err());
    assert!(duration("99999999999999999999d").is_err());
    assert_eq!(size("256MB"), Ok(256_000_000));
    assert_eq!(size("1Gi"), Ok(1 << 30));
    assert_eq!(size("64 MiB"), Ok(64 << 20));
    assert!(size("many").is_err());
}
