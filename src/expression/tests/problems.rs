//! Mistakes: where they are, what is said, and that several are said at once.

use super::*;

pub fn listed(text: &str, problems: &[Problem]) -> String {
    let shown = problems.iter().map(|problem| {
        let help = problem.help.as_ref().map_or(String::new(), |help| format!(" [{help}]"));
        format!("`{}` {}{help}", text.get(problem.span.clone()).unwrap_or("(bad span)"), problem.message)
    });
    shown.collect::<Vec<_>>().join("; ")
}

/// With columns `amount country at account name`.
#[track_caller]
fn refused(text: &str, expect: &str) {
    let columns = "amount DOUBLE, country STRING, at TIMESTAMP, account STRING, name STRING, n BIGINT";
    let mut scope = Scope { pseudo_columns: true, ..Scope::default() };
    scope.push_schema(Some("transactions"), &Schema::new(parse_columns(columns).unwrap()), 0);
    let problems = compile(text, &scope).expect_err(text);
    assert_eq!(listed(text, &problems), expect, "{text}");
}

#[test]
fn unknown_names_are_answered_with_the_nearest() {
    refused("amuont > 5", "`amuont` unknown column `amuont` [did you mean amount?]");
    refused("Amount > 5", "`Amount` unknown column `Amount` [did you mean amount?]");
    refused("transactions.amout", "`amout` `transactions` has no column `amout` [did you mean transactions.amount?]");
    refused("transaction.amount", "`transaction` unknown input or column `transaction` [did you mean transactions?]");
    refused("_ofset", "`_ofset` unknown column `_ofset` [did you mean _offset?]");
    refused("LOWR(name)", "`LOWR` unknown function `LOWR` [did you mean LOWER?]");
    refused("IF(amount > 1, 1, 2)", "`IF` unknown function `IF` [write CASE WHEN condition THEN a ELSE b END]");
    refused("IFNULL(amount, 0)", "`IFNULL` unknown function `IFNULL` [write COALESCE(a, b)]");
}

#[test]
fn several_mistakes_are_said_at_once() {
    refused(
        "amuont > 5 AND contry = 'BR' AND LOWR(name) = 'x'",
        "`amuont` unknown column `amuont` [did you mean amount?]; `contry` unknown column `contry` [did you mean \
         country?]; `LOWR` unknown function `LOWR` [did you mean LOWER?]",
    );
}

#[test]
fn habits_of_other_languages_are_recognised() {
    refused("country == 'BR'", "`==` `==` is not SQL [compare with a single `=`]");
    refused("amount > 1 && n > 1", "`&&` `&&` is not part of the language [write AND]");
    refused(
        "n > 1 || amount > 1",
        "`1 || amount` `||` needs a text: these are an INT and a DOUBLE [convert one side: CAST(... AS STRING); conditions are joined with OR]",
    );
    refused(
        "country = \"BR\"",
        "`\"BR\"` unknown column `BR` [double quotes hold a column's name; a text stands in single quotes: 'BR']",
    );
    refused(
        "amount > (SELECT MAX(amount) FROM t)",
        "`SELECT` subqueries are not part of the language [write a step of its own, and join with it]",
    );
    refused(
        "SUM(amount) OVER (PARTITION BY account)",
        "`OVER` window functions (OVER) are not part of the language [use an `over:` step: {by: ..., range: 1h, aggregate: {...}}]",
    );
    refused(
        "SUM(amount) > 5",
        "`SUM` SUM is an aggregate: it stands under `aggregate:` [write aggregate: {name: ...} with group_by or over, and use that name here]",
    );
    refused("name + 'x'", "`name + 'x'` `+` does not go with a STRING and a STRING [texts are joined with `||`]");
    refused(
        "amount > 5;",
        "`;` `;` is not expected here: the expression before it is complete [leave the semicolon out]",
    );
    refused(
        "amount > 5 WHERE n > 1",
        "`WHERE` `WHERE` is not expected here: the expression before it is complete [WHERE is a key of the step in YAML, not part of an expression]",
    );
    refused("name LIKE amount", "`amount` expected a STRING, found a DOUBLE [convert it: CAST(... AS STRING)]");
    refused("$1 = n", "`$1` there are no parameters in expressions [${NAME} is replaced in YAML]");
}

#[test]
fn syntax_errors_have_their_place() {
    refused("", "`` an expression is missing here");
    refused(
        "amount >",
        "`` expected an expression, found the end [something is missing at the end; YAML cuts an unquoted text at `, ` inside braces and at ` #`]",
    );
    refused(
        "(amount",
        "`` expected ), found the end [something is missing at the end; YAML cuts an unquoted text at `, ` inside braces and at ` #`]",
    );
    refused(
        "amount)",
        "`)` `)` is not expected here: the expression before it is complete [there is one `)` too many]",
    );
    refused(
        "amount n",
        "`n` `n` is not expected here: the expression before it is complete [an operator or a comma may be missing before it]",
    );
    refused("name = 'x", "`'x` unterminated string literal [close it with the quote it began with]");
    refused(
        "CASE WHEN n > 1 THEN 2",
        "`WHEN` `WHEN` is not expected here: the expression before it is complete [CASE needs its END: CASE WHEN a THEN b END]",
    );
    refused("amount\n  > \n 'é' + amuont", "`amuont` unknown column `amuont` [did you mean amount?]");
}

#[test]
fn arguments_that_do_not_fit_are_answered_with_the_signature() {
    refused("LOWER(amount)", "`LOWER(amount)` LOWER does not take (DOUBLE) [there is LOWER(text STRING) -> STRING]");
    refused("ROUND()", "`ROUND` ROUND does not take () [there is ROUND(x NUMBER [, digits BIGINT]) -> NUMBER]");
    refused(
        "NOW()",
        "`NOW` NOW() is not allowed here: the value must be the same when the record is read again [use the record's time: _timestamp, or a column]",
    );
}

#[test]
fn pseudo_columns_are_refused_where_there_is_no_record() {
    let problems = compile("_offset > 1", &Scope::default()).unwrap_err();
    assert_eq!(
        listed("_offset > 1", &problems),
        "`_offset` `_offset` is not known here: rows behind a stateful step or a table stem from no one record [select it as a column before]"
    );
}

#[test]
fn deep_and_long_expressions_are_refused_without_harm() {
    let scope = Scope::default();
    let deep = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
    let long = format!("1{}", " + 1".repeat(900));
    let longer = format!("1{}", " + 1".repeat(5000));
    let casts = format!("1{}", "::INT".repeat(900));
    for text in [deep, long, longer, casts] {
        assert!(compile(&text, &scope).is_err());
    }
    let chain = format!("1{}", " + 1".repeat(200));
    assert_eq!(compile(&chain, &scope).unwrap().as_literal(), Some(&Value::Int(201)));
    let chain = format!("TRUE{}", " AND TRUE".repeat(900));
    assert_eq!(compile(&chain, &scope).unwrap().as_literal(), Some(&Value::Boolean(true)));
    let list = format!("1 IN ({})", (0..9000).map(|number| number.to_string()).collect::<Vec<_>>().join(", "));
    assert_eq!(compile(&list, &scope).unwrap().as_literal(), Some(&Value::Boolean(true)));
}

#[test]
fn a_predicate_must_be_a_condition() {
    let (scope, _) = super::scope();
    assert!(compile_predicate("i > 5", &scope).is_ok());
    let problems = compile_predicate("i + 5", &scope).unwrap_err();
    assert_eq!(listed("i + 5", &problems), "`i + 5` expected a condition (BOOLEAN), found an INT [compare it: x <> 0]");
}

#[test]
fn what_an_expression_reads_is_known() {
    let (scope, _) = super::scope();
    let expression = compile("i + b > 3 AND _headers['a'] = s AND NOW() > at", &scope).unwrap();
    assert_eq!(expression.slots.iter().copied().collect::<Vec<_>>(), [0, 1, 4, 12]);
    assert_eq!(expression.pseudo, PseudoColumns { key: false, headers: true, record: true });
    assert!(expression.volatile);
    assert_eq!(compile("e.b", &scope).unwrap().as_column(), Some(1));
    assert_eq!(compile("1 + 1", &scope).unwrap().as_literal(), Some(&Value::Int(2)));
}
