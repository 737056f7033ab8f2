//! `/openapi.json`: the interface in OpenAPI's terms, from the same types and paths that serve it.

use axum::Json;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{answer, info, problem, scan, status, tables};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sidestream",
        description = "The state of a running topology, read while it changes. Any instance answers for any key.",
    ),
    paths(
        status::healthz, status::readyz, status::metrics, info::info, info::lag, info::topology, tables::list, scan::scan,
        tables::row,
    ),
    components(schemas(problem::Problem, problem::Code, answer::RowAnswer, answer::RowsAnswer)),
    modifiers(&BearerToken),
    security(("bearer" = [])),
    tags(
        (name = "tables", description = "Rows of tables: committed state."),
        (name = "instance", description = "What this instance is and does."),
        (name = "probes", description = "For load balancers, kubelets and scrapers; no token needed."),
    ),
)]
struct Interface;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("Needed where the setting `http_token` is set."))
            .build();
        openapi.components.get_or_insert_default().add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The document.
pub async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Interface::openapi())
}
