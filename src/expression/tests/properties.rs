//! Random expressions against a second evaluator: it has a tree and types of its own, computes in `i128` and `Option`, and
//! knows nothing of nodes, folding, borrowed values or short cuts. It answers a value, NULL or an error.

use proptest::prelude::*;

use super::*;

/// Columns `x`, `y` BIGINT and `p`, `q` BOOLEAN and `s` STRING.
#[derive(Clone, Debug)]
struct Input {
    x: Option<i64>,
    y: Option<i64>,
    p: Option<bool>,
    q: Option<bool>,
    s: Option<String>,
}

#[derive(Clone, Debug)]
enum Number {
    X,
    Y,
    Literal(i64),
    Null,
    Binary(char, Box<Number>, Box<Number>),
    Negated(Box<Number>),
    Case(Box<Condition>, Box<Number>, Option<Box<Number>>),
    Coalesce(Box<Number>, Box<Number>),
    NullIf(Box<Number>, Box<Number>),
    Length(Box<Text>),
}

#[derive(Clone, Debug)]
enum Condition {
    P,
    Q,
    Literal(Option<bool>),
    Compare(&'static str, Box<Number>, Box<Number>),
    CompareText(&'static str, Box<Text>, Box<Text>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
    IsNull(Box<Number>),
    Is(&'static str, Box<Condition>),
    Between(Box<Number>, Box<Number>, Box<Number>),
    In(Box<Number>, Vec<Number>),
    Distinct(Box<Number>, Box<Number>),
    StartsWith(Box<Text>, &'static str),
}

#[derive(Clone, Debug)]
enum Text {
    S,
    Literal(&'static str),
    Null,
    Concat(Box<Text>, Box<Text>),
    OfNumber(Box<Number>),
    Upper(Box<Text>),
}

type Naive<T> = Result<Option<T>, &'static str>;

fn in_range(number: i128) -> Naive<i128> {
    if i64::try_from(number).is_ok() { Ok(Some(number)) } else { Err("BIGINT out of range") }
}

impl Number {
    fn sql(&self) -> String {
        match self {
            Self::X => "x".to_owned(),
            Self::Y => "y".to_owned(),
            // As BIGINT, so that all arithmetic is of one width.
            Self::Literal(number) => format!("CAST({number} AS BIGINT)"),
            Self::Null => "CAST(NULL AS BIGINT)".to_owned(),
            Self::Binary(op, a, b) => format!("({} {op} {})", a.sql(), b.sql()),
            Self::Negated(a) => format!("(- {})", a.sql()),
            Self::Case(condition, a, None) => format!("CASE WHEN {} THEN {} END", condition.sql(), a.sql()),
            Self::Case(condition, a, Some(b)) => {
                format!("CASE WHEN {} THEN {} ELSE {} END", condition.sql(), a.sql(), b.sql())
            }
            Self::Coalesce(a, b) => format!("COALESCE({}, {})", a.sql(), b.sql()),
            Self::NullIf(a, b) => format!("NULLIF({}, {})", a.sql(), b.sql()),
            Self::Length(a) => format!("CAST(LENGTH({}) AS BIGINT)", a.sql()),
        }
    }

    fn value(&self, input: &Input) -> Naive<i128> {
        match self {
            Self::X => Ok(input.x.map(i128::from)),
            Self::Y => Ok(input.y.map(i128::from)),
            Self::Literal(number) => Ok(Some(i128::from(*number))),
            Self::Null => Ok(None),
            Self::Binary(op, a, b) => {
                // Both sides are computed, also beside a NULL.
                let (a, b) = (a.value(input)?, b.value(input)?);
                let Some((a, b)) = a.zip(b) else { return Ok(None) };
                match op {
                    '+' => in_range(a + b),
                    '-' => in_range(a - b),
                    '*' => in_range(a * b),
                    _ if b == 0 => Err("division by zero"),
                    '/' => in_range(a / b),
                    _ => in_range(a % b),
                }
            }
            Self::Negated(a) => match a.value(input)? {
                Some(a) => in_range(-a),
                None => Ok(None),
            },
            Self::Case(condition, a, b) => match (condition.value(input)?, b) {
                (Some(true), _) => a.value(input),
                (_, Some(b)) => b.value(input),
                (_, None) => Ok(None),
            },
            Self::Coalesce(a, b) => match a.value(input)? {
                Some(a) => Ok(Some(a)),
                None => b.value(input),
            },
            Self::NullIf(a, b) => {
                let (a, b) = (a.value(input)?, b.value(input)?);
                Ok(a.filter(|a| b != Some(*a)))
            }
            Self::Length(a) => Ok(a.value(input)?.map(|text| text.chars().count() as i128)),
        }
    }
}

fn holds<T: Ord>(op: &str, a: &T, b: &T) -> bool {
    match op {
        "=" => a == b,
        "<>" => a != b,
        "<" => a < b,
        "<=" => a <= b,
        ">" => a > b,
        _ => a >= b,
    }
}

fn both<T>(a: Naive<T>, b: impl FnOnce() -> Naive<T>, then: impl FnOnce(T, T) -> bool) -> Naive<bool> {
    let Some(a) = a? else { return Ok(None) };
    let Some(b) = b()? else { return Ok(None) };
    Ok(Some(then(a, b)))
}

impl Condition {
    fn sql(&self) -> String {
        match self {
            Self::P => "p".to_owned(),
            Self::Q => "q".to_owned(),
            Self::Literal(Some(value)) => value.to_string(),
            Self::Literal(None) => "CAST(NULL AS BOOLEAN)".to_owned(),
            Self::Compare(op, a, b) => format!("({} {op} {})", a.sql(), b.sql()),
            Self::CompareText(op, a, b) => format!("({} {op} {})", a.sql(), b.sql()),
            Self::And(a, b) => format!("({} AND {})", a.sql(), b.sql()),
            Self::Or(a, b) => format!("({} OR {})", a.sql(), b.sql()),
            Self::Not(a) => format!("(NOT {})", a.sql()),
            Self::IsNull(a) => format!("({} IS NULL)", a.sql()),
            Self::Is(what, a) => format!("({} IS {what})", a.sql()),
            Self::Between(a, low, high) => format!("({} BETWEEN {} AND {})", a.sql(), low.sql(), high.sql()),
            Self::In(a, list) => {
                let list: Vec<String> = list.iter().map(Number::sql).collect();
                format!("({} IN ({}))", a.sql(), list.join(", "))
            }
            Self::Distinct(a, b) => format!("({} IS DISTINCT FROM {})", a.sql(), b.sql()),
            Self::StartsWith(a, start) => format!("({} LIKE '{start}%')", a.sql()),
        }
    }

    fn value(&self, input: &Input) -> Naive<bool> {
        match self {
            Self::P => Ok(input.p),
            Self::Q => Ok(input.q),
            Self::Literal(value) => Ok(*value),
            Self::Compare(op, a, b) => {
                let (a, b) = (a.value(input)?, b.value(input)?);
                Ok(a.zip(b).map(|(a, b)| holds(op, &a, &b)))
            }
            Self::CompareText(op, a, b) => {
                let (a, b) = (a.value(input)?, b.value(input)?);
                Ok(a.zip(b).map(|(a, b)| holds(op, &a, &b)))
            }
            Self::And(a, b) => match a.value(input)? {
                Some(false) => Ok(Some(false)),
                a => match b.value(input)? {
                    Some(false) => Ok(Some(false)),
                    b => Ok(a.zip(b).map(|_| true)),
                },
            },
            Self::Or(a, b) => match a.value(input)? {
                Some(true) => Ok(Some(true)),
                a => match b.value(input)? {
                    Some(true) => Ok(Some(true)),
                    b => Ok(a.zip(b).map(|_| false)),
                },
            },
            Self::Not(a) => Ok(a.value(input)?.map(|value| !value)),
            Self::IsNull(a) => Ok(Some(a.value(input)?.is_none())),
            Self::Is(what, a) => {
                let value = a.value(input)?;
                Ok(Some(match *what {
                    "TRUE" => value == Some(true),
                    "NOT TRUE" => value != Some(true),
                    "FALSE" => value == Some(false),
                    "NOT FALSE" => value != Some(false),
                    "UNKNOWN" => value.is_none(),
                    _ => value.is_some(),
                }))
            }
            Self::Between(a, low, high) => {
                let from = Self::Compare(">=", a.clone(), low.clone());
                let to = Self::Compare("<=", a.clone(), high.clone());
                Self::And(Box::new(from), Box::new(to)).value(input)
            }
            Self::In(a, list) => {
                let Some(a) = a.value(input)? else { return Ok(None) };
                let mut unknown = false;
                for candidate in list {
                    match candidate.value(input)? {
                        None => unknown = true,
                        Some(candidate) if candidate == a => return Ok(Some(true)),
                        Some(_) => {}
                    }
                }
                Ok(if unknown { None } else { Some(false) })
            }
            Self::Distinct(a, b) => Ok(Some(a.value(input)? != b.value(input)?)),
            Self::StartsWith(a, start) => {
                both(a.value(input), || Ok(Some((*start).to_owned())), |a, b| a.starts_with(&b))
            }
        }
    }
}

impl Text {
    fn sql(&self) -> String {
        match self {
            Self::S => "s".to_owned(),
            Self::Literal(text) => format!("'{text}'"),
            Self::Null => "CAST(NULL AS STRING)".to_owned(),
            Self::Concat(a, b) => format!("({} || {})", a.sql(), b.sql()),
            Self::OfNumber(a) => format!("CAST({} AS STRING)", a.sql()),
            Self::Upper(a) => format!("UPPER({})", a.sql()),
        }
    }

    fn value(&self, input: &Input) -> Naive<String> {
        match self {
            Self::S => Ok(input.s.clone()),
            Self::Literal(text) => Ok(Some((*text).to_owned())),
            Self::Null => Ok(None),
            Self::Concat(a, b) => {
                let (a, b) = (a.value(input)?, b.value(input)?);
                Ok(a.zip(b).map(|(a, b)| a + &b))
            }
            Self::OfNumber(a) => Ok(a.value(input)?.map(|number| number.to_string())),
            Self::Upper(a) => Ok(a.value(input)?.map(|text| text.to_uppercase())),
        }
    }
}

fn operator() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">="])
}

fn text_literal() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "b", "ab", "A", "1"])
}

fn integer() -> impl Strategy<Value = i64> {
    prop_oneof![6 => -4i64..5, 1 => Just(i64::MAX), 1 => Just(i64::MIN + 1), 1 => any::<i64>().prop_map(|n| n / 2)]
}

#[derive(Clone, Debug)]
enum Any {
    Number(Number),
    Condition(Condition),
    Text(Text),
}

fn expression() -> impl Strategy<Value = Any> {
    let leaf = prop_oneof![
        Just(Any::Number(Number::X)),
        Just(Any::Number(Number::Y)),
        integer().prop_map(|number| Any::Number(Number::Literal(number))),
        Just(Any::Number(Number::Null)),
        Just(Any::Condition(Condition::P)),
        Just(Any::Condition(Condition::Q)),
        any::<Option<bool>>().prop_map(|value| Any::Condition(Condition::Literal(value))),
        Just(Any::Text(Text::S)),
        Just(Any::Text(Text::Null)),
        text_literal().prop_map(|text| Any::Text(Text::Literal(text))),
    ];
    // Each combination takes the parts of the types that it needs from four sub-expressions.
    leaf.prop_recursive(5, 40, 4, |inner| {
        (prop::collection::vec(inner, 4), 0usize..24, operator(), text_literal()).prop_map(|(parts, form, op, text)| {
            let mut numbers: Vec<Number> = Vec::new();
            let mut conditions: Vec<Condition> = Vec::new();
            let mut texts: Vec<Text> = Vec::new();
            for part in parts {
                match part {
                    Any::Number(number) => numbers.push(number),
                    Any::Condition(condition) => conditions.push(condition),
                    Any::Text(text) => texts.push(text),
                }
            }
            let mut number = || Box::new(numbers.pop().unwrap_or(Number::X));
            let mut condition = || Box::new(conditions.pop().unwrap_or(Condition::P));
            let mut string = || Box::new(texts.pop().unwrap_or(Text::S));
            match form {
                0 => Any::Number(Number::Binary('+', number(), number())),
                1 => Any::Number(Number::Binary('-', number(), number())),
                2 => Any::Number(Number::Binary('*', number(), number())),
                3 => Any::Number(Number::Binary('/', number(), number())),
                4 => Any::Number(Number::Binary('%', number(), number())),
                5 => Any::Number(Number::Negated(number())),
                6 => Any::Number(Number::Case(condition(), number(), None)),
                7 => Any::Number(Number::Case(condition(), number(), Some(number()))),
                8 => Any::Number(Number::Coalesce(number(), number())),
                9 => Any::Number(Number::NullIf(number(), number())),
                10 => Any::Number(Number::Length(string())),
                11 => Any::Condition(Condition::Compare(op, number(), number())),
                12 => Any::Condition(Condition::CompareText(op, string(), string())),
                13 => Any::Condition(Condition::And(condition(), condition())),
                14 => Any::Condition(Condition::Or(condition(), condition())),
                15 => Any::Condition(Condition::Not(condition())),
                16 => Any::Condition(Condition::IsNull(number())),
                17 => {
                    let tests = ["TRUE", "NOT TRUE", "FALSE", "NOT FALSE", "UNKNOWN", "NOT UNKNOWN"];
                    Any::Condition(Condition::Is(tests[op.len() + text.len()], condition()))
                }
                18 => Any::Condition(Condition::Between(number(), number(), number())),
                19 => Any::Condition(Condition::In(number(), vec![*number(), *number()])),
                20 => Any::Condition(Condition::Distinct(number(), number())),
                21 => Any::Condition(Condition::StartsWith(string(), text)),
                22 => Any::Text(Text::Concat(string(), Box::new(Text::Upper(string())))),
                _ => Any::Text(Text::OfNumber(number())),
            }
        })
    })
}

fn input() -> impl Strategy<Value = Input> {
    let text = prop::option::of(prop::sample::select(vec!["", "a", "b", "ab", "héllo"]).prop_map(str::to_owned));
    (prop::option::of(integer()), prop::option::of(integer()), any::<Option<bool>>(), any::<Option<bool>>(), text)
        .prop_map(|(x, y, p, q, s)| Input { x, y, p, q, s })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_expressions_agree_with_a_naive_evaluator(expression in expression(), input in input()) {
        let (sql, expected) = match &expression {
            Any::Number(number) => {
                let value = number.value(&input);
                (number.sql(), value.map(|value| value.map(|value| Value::Bigint(i64::try_from(value).unwrap()))))
            }
            Any::Condition(condition) => {
                (condition.sql(), condition.value(&input).map(|value| value.map(Value::Boolean)))
            }
            Any::Text(text) => (text.sql(), text.value(&input).map(|value| value.map(Value::string))),
        };
        let expected = expected.map(|value| value.unwrap_or(Value::Null)).map_err(str::to_owned);
        let mut scope = Scope::default();
        let columns = parse_columns("x BIGINT, y BIGINT, p BOOLEAN, q BOOLEAN, s STRING").unwrap();
        scope.push_schema(None, &Schema::new(columns), 0);
        let row = [
            input.x.map_or(Value::Null, Value::Bigint),
            input.y.map_or(Value::Null, Value::Bigint),
            input.p.map_or(Value::Null, Value::Boolean),
            input.q.map_or(Value::Null, Value::Boolean),
            input.s.as_ref().map_or(Value::Null, Value::string),
        ];
        let compiled = compile(&sql, &scope);
        prop_assert!(compiled.is_ok(), "{sql}: {compiled:?}");
        let actual = compiled.unwrap().eval(&Env { row: &row, origin: &origin() }).map_err(|error| error.to_string());
        prop_assert_eq!(actual, expected, "{}", sql);
    }
}
