//! The flags of settings, made from the one list that the environment and the file share.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::output::Failure;
use crate::settings::{Environment, KEYS, PartialSettings, SettingError, Settings};

/// Where settings are looked for unless `--settings` says otherwise.
const DEFAULT_FILE: &str = "sidestream.yaml";

/// What was given on the command line.
#[derive(Clone, Debug, Default)]
pub struct SettingsFlags {
    given: PartialSettings,
    /// `--settings`
    file: Option<PathBuf>,
}

impl SettingsFlags {
    /// Flag > environment > file > default. All mistakes in one failure.
    pub fn resolve(&self) -> Result<Settings, Failure> {
        let (path, text) = self.read_file()?;
        Settings::resolve(&self.given, &Environment::of_process(), text.as_deref())
            .map_err(|errors| mistakes(&path, &errors))
    }

    /// A file that is asked for must be there; the default one may be.
    fn read_file(&self) -> Result<(PathBuf, Option<String>), Failure> {
        let path = self.file.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        match fs::read_to_string(&path) {
            Ok(text) => Ok((path, Some(text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.file.is_none() => Ok((path, None)),
            Err(error) => Err(Failure::new(format!("cannot read {}: {error}", path.display()))
                .help("check the path after --settings, and the rights on the file")),
        }
    }
}

fn mistakes(path: &Path, errors: &[SettingError]) -> Failure {
    let lines: Vec<String> =
        errors.iter().map(|error| error.to_string().replace(DEFAULT_FILE, &path.display().to_string())).collect();
    Failure::new(lines.join("\nerror: "))
}

impl Args for SettingsFlags {
    fn augment_args(mut command: Command) -> Command {
        command = command.next_help_heading("Settings (flag > environment > sidestream.yaml)").arg(
            Arg::new("settings")
                .long("settings")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The file with settings [default: sidestream.yaml, where there is one]"),
        );
        for key in KEYS {
            let Some(flag) = key.flag else { continue };
            let mut doc = key.doc.to_owned();
            if let Some(first) = doc.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            let help = format!("{doc} [env: {}] [default: {}]", key.environment, key.default);
            let argument = Arg::new(key.name).long(flag).value_name(key.value_name).help(help);
            // A switch may stand alone: `--create-topics`.
            let argument = if key.value_name == "true|false" {
                argument.num_args(0..=1).require_equals(true).default_missing_value("true")
            } else {
                argument
            };
            command = command.arg(argument);
        }
        command
            .arg(
                Arg::new("kafka")
                    .long("kafka")
                    .value_name("NAME=VALUE")
                    .action(ArgAction::Append)
                    .value_parser(property)
                    .help("A librdkafka property, such as security.protocol=SASL_SSL; may be repeated"),
            )
            .next_help_heading(None)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingsFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("settings").cloned();
        let mut given = PartialSettings::default();
        for key in KEYS.iter().filter(|key| key.flag.is_some()) {
            given = given.with(key.name, matches.get_one::<String>(key.name).cloned());
        }
        for (name, value) in matches.get_many::<(String, String)>("kafka").into_iter().flatten() {
            given = given.with_kafka(name.clone(), value.clone());
        }
        self.given = given;
        Ok(())
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE, such as security.protocol=SASL_SSL".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::SettingsFlags;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        settings: SettingsFlags,
    }

    fn parse(arguments: &[&str]) -> Result<SettingsFlags, clap::Error> {
        Line::try_parse_from(std::iter::once(&"sidestream").chain(arguments)).map(|line| line.settings)
    }

    #[test]
    fn flags_become_settings() {
        let flags = parse(&["--brokers", "kafka:9092", "--workers=3", "--create-topics", "--kafka", "linger.ms=5"]);
        let settings = flags.unwrap().resolve().unwrap();
        assert_eq!(settings.brokers, "kafka:9092");
        assert_eq!(settings.workers, 3);
        assert!(settings.create_topics);
        assert_eq!(settings.kafka["linger.ms"].expose(), "5");
    }

    #[test]
    fn a_flag_that_does_not_exist_is_a_usage_error_with_a_suggestion() {
        let error = parse(&["--broker", "kafka:9092"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--brokers"), "{error}");
        assert_eq!(parse(&["--kafka", "linger.ms"]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn every_mistake_in_the_settings_is_named_at_once() {
        let failure = parse(&["--workers", "many", "--http", "nowhere"]).unwrap().resolve().unwrap_err();
        assert!(failure.message.contains("--workers") && failure.message.contains("--http"), "{failure}");
    }

    #[test]
    fn a_settings_file_that_is_asked_for_must_be_there() {
        let failure = parse(&["--settings", "/nowhere/sidestream.yaml"]).unwrap().resolve().unwrap_err();
        assert!(failure.message.contains("/nowhere/sidestream.yaml"), "{failure}");
        assert!(failure.help.is_some());
    }
}
