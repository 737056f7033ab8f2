//! `/v1/tables` and `/v1/tables/{table}/{key}`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::answer::{ColumnAnswer, RowAnswer, RowsAnswer, TableAnswer, TablesAnswer};
use super::forward::{Hop, is_forwarded};
use super::parameters::{Parameters, Segments, instant, limit};
use super::problem::{Code, Problem};
use super::rows::{position, problem, table_row};
use super::{Service, blocking, key};
use crate::row::Row;
use crate::runtime::View;
use crate::runtime::view::{FoundRow, Owner, WindowRange};
use crate::schema::Column;
use crate::topology::plan::TablePlan;

/// The tables that can be queried, and how to write their keys.
#[utoipa::path(get, path = "/v1/tables", tag = "tables", responses(
    (status = 200, body = TablesAnswer),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
pub async fn list(State(service): State<Service>) -> Json<TablesAnswer> {
    let tables = service.view.plan.tables.iter().filter(|table| table.queryable).map(table_answer).collect();
    Json(TablesAnswer { tables })
}

fn table_answer(table: &TablePlan) -> TableAnswer {
    let column = |column: &Column| ColumnAnswer {
        name: column.name.to_string(),
        kind: column.ty.to_string(),
        nullable: column.nullable,
    };
    TableAnswer {
        name: table.name.to_string(),
        windowed: table.windowed,
        key: key::columns(table).into_iter().map(column).collect(),
        columns: table.schema.columns().iter().map(column).collect(),
        path: key::example_path(table),
    }
}

/// `from`, `to` and paging over the windows of a key.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowParameters {
    from: Option<String>,
    to: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// The row of a key, from whichever instance owns it. Of a windowed table: its windows, in order.
#[utoipa::path(get, path = "/v1/tables/{table}/{key}", tag = "tables",
    params(
        ("table" = String, Path, description = "A table, see /v1/tables", example = "spend_per_account"),
        ("key" = String, Path, description = "The plain value of a key of one column, a JSON object of several; \
            percent-encoded. Without `window_start`.", example = "acct-7"),
        ("from" = Option<String>, Query, description = "Windowed tables: the first `window_start`, inclusive. RFC 3339 \
            or milliseconds since the epoch.", example = "2026-01-31T12:00:00Z"),
        ("to" = Option<String>, Query, description = "Windowed tables: `window_start` lies before it."),
        ("limit" = Option<u32>, Query, description = "Windowed tables: at most so many windows, 1 to 1000.", example = 100),
        ("cursor" = Option<String>, Query, description = "Windowed tables: `cursor` of the previous page."),
    ),
    responses(
        (status = 200, description = "`RowAnswer`; of a windowed table `RowsAnswer`", content(
            (RowAnswer = "application/json"), (RowsAnswer = "application/json"))),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed_key, malformed_parameter"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthorized"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "unknown_table, key_not_found"),
        (status = 503, body = Problem, content_type = "application/problem+json", headers(("Retry-After" = u32)),
            description = "starting, restoring, rebalancing, owner_unreachable, overloaded: try again"),
    ))]
pub async fn row(
    State(service): State<Service>,
    Segments((table, text)): Segments<(String, String)>,
    Parameters(parameters): Parameters<RowParameters>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let view = &service.view;
    let plan = view.table(&table).map_err(|error| problem(&error, &view.plan))?;
    let request = RowRequest::read(plan, &text, &parameters)?;
    if is_forwarded(&headers) {
        return answer_here(&service, table, request).await;
    }
    let located = view.locate(plan, &request.key).map_err(|error| problem(&error, &view.plan))?;
    match (located.partition, located.owner) {
        (Some(_), Owner::Local) => answer_here(&service, table, request).await,
        (Some(_), Owner::Remote(endpoint)) => {
            let answer = service.peers.ask(&endpoint, path_and_query(&uri), &hop(view)).await?;
            Ok(answer.pass_on())
        }
        (Some(partition), Owner::Unknown) => Err(Problem::new(
            Code::Rebalancing,
            format!("no instance is known to own partition {partition} of table `{table}` now"),
        )),
        (None, _) => ask_everybody(&service, table, request, &uri).await,
    }
}

/// Where the key does not tell its partition: here, then the others, until one has it.
async fn ask_everybody(service: &Service, table: String, request: RowRequest, uri: &Uri) -> Result<Response, Problem> {
    let mut absent = match answer_here(service, table, request).await {
        Err(problem) if problem.code == Code::KeyNotFound => problem.into_response(),
        other => return other,
    };
    for endpoint in service.view.peers() {
        let answer = service.peers.ask(&endpoint, path_and_query(uri), &hop(&service.view)).await?;
        let found = answer.status != StatusCode::NOT_FOUND;
        absent = answer.pass_on();
        if found {
            break;
        }
    }
    Ok(absent)
}

async fn answer_here(service: &Service, table: String, request: RowRequest) -> Result<Response, Problem> {
    let view = service.view.clone();
    blocking(move || read(&view, &table, &request)).await?
}

/// A key and the windows asked for.
#[derive(Debug)]
struct RowRequest {
    text: String,
    key: Row,
    windows: WindowRange,
    after: Option<Vec<u8>>,
    limit: usize,
}

impl RowRequest {
    fn read(table: &TablePlan, text: &str, parameters: &RowParameters) -> Result<Self, Problem> {
        let RowParameters { from, to, limit: limit_text, cursor } = parameters;
        if !table.windowed {
            let given = [("from", from), ("to", to), ("limit", limit_text), ("cursor", cursor)];
            if let Some((name, _)) = given.iter().find(|(_, value)| value.is_some()) {
                let detail = format!("{name}: table `{}` has no windows; a key has one row", table.name);
                return Err(Problem::new(Code::MalformedParameter, detail));
            }
        }
        Ok(Self {
            text: text.to_owned(),
            key: key::parse(table, text)?,
            windows: windows(from.as_deref(), to.as_deref())?,
            after: cursor.as_deref().map(key::parse_cursor).transpose()?,
            limit: limit(limit_text.as_deref())?,
        })
    }
}

/// The range of `from` and `to`.
pub fn windows(from: Option<&str>, to: Option<&str>) -> Result<WindowRange, Problem> {
    let from = from.map(|text| instant("from", text)).transpose()?.map(|time| time.0);
    let to = to.map(|text| instant("to", text)).transpose()?.map(|time| time.0);
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return Err(Problem::new(Code::MalformedParameter, "to: it must lie after `from`"));
    }
    Ok(WindowRange { from, to })
}

fn read(view: &View, table: &str, request: &RowRequest) -> Result<Response, Problem> {
    let plan = view.table(table).map_err(|error| problem(&error, &view.plan))?;
    let mut found = view.get(plan, &request.key, request.windows).map_err(|error| problem(&error, &view.plan))?;
    if let Some(after) = &request.after {
        found.retain(|row| row.encoded_key > *after);
    }
    if found.is_empty() {
        let range = if plan.windowed { " in the windows asked for" } else { "" };
        let detail = format!("table `{table}` has no row for `{}`{range}", request.text);
        return Err(Problem::new(Code::KeyNotFound, detail));
    }
    if plan.windowed { Ok(windows_answer(view, plan, found, request.limit)) } else { row_answer(view, plan, &found) }
}

fn row_answer(view: &View, table: &TablePlan, found: &[FoundRow]) -> Result<Response, Problem> {
    let Some(row) = found.first() else {
        return Err(Problem::new(Code::KeyNotFound, format!("table `{}` has no such row", table.name)));
    };
    let written = table_row(table, row);
    let (position, lag) = position([row]);
    let answer = RowAnswer {
        table: table.name.to_string(),
        key: written.key,
        row: written.row,
        position,
        lag,
        served_by: view.identity().instance_id,
    };
    Ok(Json(answer).into_response())
}

fn windows_answer(view: &View, table: &TablePlan, mut found: Vec<FoundRow>, limit: usize) -> Response {
    let more = found.len() > limit;
    found.truncate(limit);
    let rows = found.iter().map(|row| table_row(table, row)).collect();
    let (position, lag) = position(&found);
    let cursor = found.last().filter(|_| more).map(|row| key::cursor(&row.encoded_key));
    let served_by = vec![view.identity().instance_id];
    Json(RowsAnswer { table: table.name.to_string(), rows, cursor, position, lag, served_by }).into_response()
}

/// This instance, as the one that passes a request on.
pub fn hop(view: &View) -> Hop {
    Hop { by: view.identity().instance_id, partitions: None }
}

fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}
