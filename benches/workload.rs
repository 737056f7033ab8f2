//! What is measured: four topologies over one input.

use crate::floor::Program;

/// The filter of the pipe: nine of ten transactions pass.
pub const MINIMUM_AMOUNT: f64 = 100.0;

/// What a program reads and writes.
#[derive(Clone, Debug)]
pub struct Topics {
    pub input: String,
    pub output: String,
    /// Of the floor program; the product names its own.
    pub changelog: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Filter and project.
    Pipe,
    /// Count, sum and maximum per account.
    Keyed,
    /// Count per account and 10 s.
    Tumbling,
    /// Every transaction with its account.
    Join,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    ExactlyOnce,
    AtLeastOnce,
}

impl Guarantee {
    /// As the topology language spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly_once",
            Self::AtLeastOnce => "at_least_once",
        }
    }
}

impl Workload {
    pub const ALL: [Self; 4] = [Self::Pipe, Self::Keyed, Self::Tumbling, Self::Join];

    pub fn name(self) -> &'static str {
        match self {
            Self::Pipe => "pipe",
            Self::Keyed => "keyed",
            Self::Tumbling => "tumbling",
            Self::Join => "join",
        }
    }

    /// The floor program that it is compared with: the pipe's own, the keyed one for everything with state.
    pub fn floor(self) -> Program {
        match self {
            Self::Pipe => Program::Pipe,
            Self::Keyed | Self::Tumbling | Self::Join => Program::Keyed,
        }
    }

    pub fn topology(self, application: &str, guarantee: Guarantee, topics: &Topics, accounts: &str) -> String {
        let Topics { input, output, .. } = topics;
        let step = match self {
            Self::Pipe => format!("    where: amount >= {MINIMUM_AMOUNT}\n    select: id, amount, merchant"),
            Self::Keyed => "    group_by: account
    aggregate: {n: COUNT(*), total: SUM(amount), largest: MAX(amount)}
    ttl: none"
                .to_owned(),
            Self::Tumbling => "    window: {type: tumbling, size: 10s}
    group_by: account
    aggregate: {n: COUNT(*)}
    retention: 1m"
                .to_owned(),
            Self::Join => r#"    join: [{with: accounts, "on": transactions.account = accounts.account}]
    select: id, amount, home, tier"#
                .to_owned(),
        };
        let tables = if self == Self::Join {
            format!(
                "tables:
  accounts:
    topic: {accounts}
    key: {{name: account, type: STRING}}
    format: json
    columns: {{home: STRING, tier: STRING}}
"
            )
        } else {
            String::new()
        };
        format!(
            "version: 1
name: {application}
guarantee: {}
streams:
  transactions:
    topic: {input}
    key: {{name: account, type: STRING}}
    format: json
    columns:
      id: STRING
      amount: DOUBLE
      merchant: STRING
      country: STRING
      currency: STRING
      lat: DOUBLE
      lon: DOUBLE
      device: STRING
      terminal: STRING
      at: TIMESTAMP
    timestamp: at
{tables}steps:
  result:
    from: transactions
{step}
    to: {output}
",
            guarantee.name()
        )
    }
}
