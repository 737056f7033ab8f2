//! `/v1/tables/{table}`: pages of a table's rows, gathered from every owner, in encoded key order.
//!
//! How a page is made
//! 1. The owners of all partitions are looked up; where one is unknown, the answer is 503 rather than incomplete.
//! 2. Each owner is asked for `limit` rows beyond the cursor, and told which partitions it must answer for.
//! 3. The answers are merged by encoded key and cut at `limit`; the last key becomes the cursor.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::answer::{RowsAnswer, TableRow};
use super::forward::{Hop, PARTITIONS, is_forwarded};
use super::parameters::{Parameters, Segments, limit};
use super::problem::{Code, Problem};
use super::rows::{position, problem, table_row};
use super::tables::{hop, windows};
use super::{Service, blocking, key};
use crate::ids::{Partition, SubTopologyId, TaskId};
use crate::runtime::View;
use crate::runtime::view::{Owner, ScanRequest};
use crate::topology::plan::TablePlan;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanParameters {
    prefix: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

/// What one instance contributes: rows with their encoded keys, so that the asking instance can merge.
#[derive(Debug, Serialize, Deserialize)]
struct Share {
    answer: RowsAnswer,
    /// One cursor per row.
    keys: Vec<String>,
}

/// Rows of a table, in the order of their encoded keys, from all instances. Of a windowed table: by window, then key.
#[utoipa::path(get, path = "/v1/tables/{table}", tag = "tables",
    params(
        ("table" = String, Path, description = "A table, see /v1/tables", example = "spend_per_account"),
        ("prefix" = Option<String>, Query, description = "The first key column, a STRING, begins with it.", example = "acct-"),
        ("limit" = Option<u32>, Query, description = "At most so many rows, 1 to 1000; default 100.", example = 100),
        ("cursor" = Option<String>, Query, description = "`cursor` of the previous page."),
        ("from" = Option<String>, Query, description = "Windowed tables: the first `window_start`, inclusive."),
        ("to" = Option<String>, Query, description = "Windowed tables: `window_start` lies before it."),
    ),
    responses(
        (status = 200, body = RowsAnswer),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed_parameter"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthorized"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "unknown_table"),
        (status = 503, body = Problem, content_type = "application/problem+json", headers(("Retry-After" = u32)),
            description = "starting, restoring, rebalancing, owner_unreachable, overloaded: try again"),
    ))]
pub async fn scan(
    State(service): State<Service>,
    Segments(table): Segments<String>,
    Parameters(parameters): Parameters<ScanParameters>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let view = &service.view;
    let plan = view.table(&table).map_err(|error| problem(&error, &view.plan))?;
    let request = scan_request(plan, &parameters)?;
    let sub_topology = sub_topology_of(view, plan)?;
    if is_forwarded(&headers) {
        check_ownership(view, sub_topology, &headers)?;
        return Ok(Json(share(&service, table, request).await?).into_response());
    }
    let owners = Owners::of(view, sub_topology, &table)?;
    let limit = request.limit;
    let mut shares = ask_owners(&service, &owners, &uri);
    let mut gathered = Vec::new();
    if owners.here || owners.remote.is_empty() {
        gathered.push(share(&service, table.clone(), request).await?);
    }
    while let Some(answered) = shares.join_next().await {
        gathered.push(answered.map_err(|error| Problem::new(Code::Internal, error.to_string()))??);
    }
    Ok(Json(merge(table, gathered, limit)).into_response())
}

fn scan_request(table: &TablePlan, parameters: &ScanParameters) -> Result<ScanRequest, Problem> {
    if !table.windowed && (parameters.from.is_some() || parameters.to.is_some()) {
        let detail = format!("from, to: table `{}` has no windows", table.name);
        return Err(Problem::new(Code::MalformedParameter, detail));
    }
    Ok(ScanRequest {
        prefix: parameters.prefix.clone().filter(|prefix| !prefix.is_empty()),
        windows: windows(parameters.from.as_deref(), parameters.to.as_deref())?,
        after: parameters.cursor.as_deref().map(key::parse_cursor).transpose()?,
        limit: limit(parameters.limit.as_deref())?,
    })
}

/// The part of the topology whose tasks hold the table.
fn sub_topology_of(view: &View, table: &TablePlan) -> Result<SubTopologyId, Problem> {
    let store = view.plan.stores.get(table.store.index());
    store
        .map(|store| store.sub_topology)
        .ok_or_else(|| Problem::new(Code::Internal, format!("the plan has no store for table `{}`", table.name)))
}

/// Who must be asked for a whole table.
#[derive(Debug)]
struct Owners {
    here: bool,
    remote: BTreeMap<String, Vec<Partition>>,
}

impl Owners {
    fn of(view: &View, sub_topology: SubTopologyId, table: &str) -> Result<Self, Problem> {
        let mut owners = Self { here: false, remote: BTreeMap::new() };
        for (partition, owner) in view.owners(sub_topology) {
            match owner {
                Owner::Local => owners.here = true,
                Owner::Remote(endpoint) => owners.remote.entry(endpoint).or_default().push(partition),
                Owner::Unknown => {
                    let detail = format!("no instance is known to own partition {partition} of table `{table}` now");
                    return Err(Problem::new(Code::Rebalancing, detail));
                }
            }
        }
        Ok(owners)
    }
}

fn ask_owners(service: &Service, owners: &Owners, uri: &Uri) -> JoinSet<Result<Share, Problem>> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let mut shares = JoinSet::new();
    for (endpoint, partitions) in &owners.remote {
        let partitions: Vec<String> = partitions.iter().map(ToString::to_string).collect();
        let hop = Hop { partitions: Some(partitions.join(",")), ..hop(&service.view) };
        let (peers, endpoint, path) = (service.peers.clone(), endpoint.clone(), path.clone());
        shares.spawn(async move { peers.ask(&endpoint, &path, &hop).await?.read::<Share>() });
    }
    shares
}

/// Refuses to answer for partitions that have moved away since the asking instance looked.
fn check_ownership(view: &View, sub_topology: SubTopologyId, headers: &HeaderMap) -> Result<(), Problem> {
    let listed = headers.get(PARTITIONS).and_then(|value| value.to_str().ok()).unwrap_or_default();
    for text in listed.split(',').filter(|text| !text.is_empty()) {
        let partition = text.parse().map(Partition).map_err(|_invalid| {
            Problem::new(Code::MalformedParameter, format!("{PARTITIONS}: `{text}` is not a partition"))
        })?;
        if view.owner(TaskId { sub_topology, partition }) != Owner::Local {
            let detail = format!("partition {partition} has moved to another instance");
            return Err(Problem::new(Code::Rebalancing, detail));
        }
    }
    Ok(())
}

/// This instance's rows.
async fn share(service: &Service, table: String, request: ScanRequest) -> Result<Share, Problem> {
    let view = service.view.clone();
    blocking(move || {
        let plan = view.table(&table).map_err(|error| problem(&error, &view.plan))?;
        let found = view.scan(plan, &request).map_err(|error| problem(&error, &view.plan))?;
        let rows = found.iter().map(|row| table_row(plan, row)).collect();
        let keys: Vec<String> = found.iter().map(|row| key::cursor(&row.encoded_key)).collect();
        let (position, lag) = position(&found);
        let cursor = keys.last().filter(|_| found.len() >= request.limit).cloned();
        let served_by = vec![view.identity().instance_id];
        Ok(Share { answer: RowsAnswer { table, rows, cursor, position, lag, served_by }, keys })
    })
    .await?
}

/// One page of all shares. Hexadecimal keys of whole bytes sort as the bytes do.
fn merge(table: String, shares: Vec<Share>, limit: usize) -> RowsAnswer {
    let mut merged = RowsAnswer {
        table,
        rows: Vec::new(),
        cursor: None,
        position: BTreeMap::new(),
        lag: Some(0),
        served_by: Vec::new(),
    };
    let mut more = false;
    let mut rows: BTreeMap<String, TableRow> = BTreeMap::new();
    let mut served_by = BTreeSet::new();
    for share in shares {
        more |= share.answer.cursor.is_some();
        rows.extend(share.keys.into_iter().zip(share.answer.rows));
        merged.position.extend(share.answer.position);
        merged.lag = merged.lag.zip(share.answer.lag).map(|(sum, lag)| sum + lag);
        served_by.extend(share.answer.served_by);
    }
    more |= rows.len() > limit;
    let page: Vec<(String, TableRow)> = rows.into_iter().take(limit).collect();
    merged.cursor = page.last().filter(|_| more).map(|(key, _)| key.clone());
    merged.rows = page.into_iter().map(|(_, row)| row).collect();
    merged.served_by = served_by.into_iter().collect();
    merged
}
