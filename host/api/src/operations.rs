//! The one table of everything the API does. Routes and the OpenAPI document are made from it.

use std::{sync::LazyLock, time::Duration};

use axum::http::Method;

use crate::{
    handlers::{backup, catalog, packages, scheduling, server, tasks, tokens},
    operation::Operation,
};

/// For what waits for a machine: connecting, testing, looking.
const MACHINE: Duration = Duration::from_secs(120);
/// For what compiles or checks much.
const LONG: Duration = Duration::from_secs(180);

static TABLE: LazyLock<Vec<Operation>> = LazyLock::new(table);

/// Every operation.
pub fn all() -> &'static [Operation] {
    &TABLE
}

/// Lists that need no parameter, for links.
pub fn lists() -> impl Iterator<Item = &'static Operation> {
    all()
        .iter()
        .filter(|operation| operation.method == Method::GET && !operation.public && !operation.path.contains('{'))
}

#[rustfmt::skip]
fn table() -> Vec<Operation> {
    use Operation as Op;
    const GET: Method = Method::GET;
    const PUT: Method = Method::PUT;
    const POST: Method = Method::POST;
    const DELETE: Method = Method::DELETE;
    vec![
        Op::new(GET, "/health/live", "health_live", "Whether the process runs", server::live).public(),
        Op::new(GET, "/health/ready", "health_ready", "Whether the server takes requests", server::ready).public(),
        Op::new(GET, "/api/v1/", "server_info", "Version of the server, and links", server::info),
        Op::new(GET, "/api/v1/openapi.json", "openapi", "This document", server::document),

        Op::new(POST, "/api/v1/backup", "backup", "Make a backup of everything but the secret key, and download it", backup::backup).bounded_by_itself(),

        Op::new(GET, "/api/v1/tokens", "list_tokens", "Names of all tokens", tokens::tokens),
        Op::new(POST, "/api/v1/tokens", "create_token", "Make a token; it is shown this once", tokens::create),
        Op::new(DELETE, "/api/v1/tokens/{token}", "revoke_token", "Make a token void", tokens::revoke),

        Op::new(POST, "/api/v1/apply", "apply", "Bring environments, machines and projects to what files say", catalog::apply).within(LONG),
        Op::new(GET, "/api/v1/environments", "list_environments", "All environments", catalog::environments),
        Op::new(GET, "/api/v1/machines", "list_machines", "All machines", catalog::machines),
        Op::new(GET, "/api/v1/machines/{machine}", "get_machine", "One machine", catalog::machine),
        Op::new(PUT, "/api/v1/machines/{machine}", "put_machine", "Create or change a machine", catalog::put_machine),
        Op::new(POST, "/api/v1/machines/{machine}/trust", "trust_machine", "Look at a machine's host key, or pin it", catalog::trust).within(MACHINE),
        Op::new(POST, "/api/v1/machines/{machine}/check", "check_machine", "Reach a machine and tell what is known of it", catalog::check).within(MACHINE),
        Op::new(GET, "/api/v1/projects", "list_projects", "All projects", catalog::projects),
        Op::new(GET, "/api/v1/projects/{project}", "get_project", "One project with its process", catalog::project),
        Op::new(GET, "/api/v1/projects/{project}/releases", "list_releases", "Releases of a project, newest first", catalog::releases),
        Op::new(POST, "/api/v1/projects/{project}/releases", "create_release", "Create a release", catalog::create_release).idempotent().within(LONG),
        Op::new(GET, "/api/v1/projects/{project}/releases/{version}", "get_release", "One release, or the latest", catalog::release),

        Op::new(GET, "/api/v1/packages", "list_packages", "Every version of every package", packages::packages),
        Op::new(GET, "/api/v1/packages/{package}", "list_package_versions", "Every version of one package", packages::versions),
        Op::new(PUT, "/api/v1/packages/{package}", "push_package", "Upload a package; X-Content-SHA256 is checked when sent", packages::push).bounded_by_itself(),
        Op::new(GET, "/api/v1/plugins", "list_plugins", "Installed plugins", packages::plugins),
        Op::new(POST, "/api/v1/plugins", "install_plugin", "Install a plugin", packages::install).within(LONG),
        Op::new(GET, "/api/v1/plugins/{plugin}", "get_plugin", "One plugin with its manifest", packages::plugin),

        Op::new(POST, "/api/v1/deployments", "deploy", "Queue the deployment of a release", tasks::deploy).idempotent(),
        Op::new(POST, "/api/v1/plan", "plan", "What a deployment would do, played forward from the server as it is", scheduling::plan).within(LONG),
        Op::new(GET, "/api/v1/locks", "list_locks", "Every resource in use: who holds it, and who waits", scheduling::locks),
        Op::new(GET, "/api/v1/locks/broken", "list_broken_locks", "Locks that were broken: when, by whom and why", scheduling::broken_locks),
        Op::new(POST, "/api/v1/locks/break", "break_lock", "Take a lock away from those who hold it", scheduling::break_lock),
        Op::new(GET, "/api/v1/interruptions", "list_interruptions", "What people are asked", scheduling::questions),
        Op::new(POST, "/api/v1/interruptions/{question}/answer", "answer_interruption", "Answer a question", scheduling::answer),
        Op::new(POST, "/api/v1/scripts/run", "run_script", "Queue the run of a script", tasks::run_script).idempotent(),
        Op::new(GET, "/api/v1/tasks", "list_tasks", "Tasks that match, newest first", tasks::tasks),
        Op::new(GET, "/api/v1/tasks/{task}", "get_task", "A task with its tree", tasks::task),
        Op::new(POST, "/api/v1/tasks/{task}/cancel", "cancel_task", "Ask a task to stop", tasks::cancel),
        Op::new(GET, "/api/v1/tasks/{task}/why", "why_task", "Why a task waits", scheduling::why),
        Op::new(GET, "/api/v1/runs/{run}/replay", "replay_run", "Execute a run again against its journal, touching nothing", tasks::replay).within(LONG),
        Op::new(POST, "/api/v1/tasks/{task}/top", "move_task_to_top", "Make a queued task the next", scheduling::move_to_top),
        Op::new(GET, "/api/v1/tasks/{task}/log", "read_log", "Lines of a node's log, as JSON or plain text", tasks::log),
        Op::new(GET, "/api/v1/tasks/{task}/events", "follow_task", "Follow a task's events up to its end", tasks::task_events).bounded_by_itself(),
        Op::new(GET, "/api/v1/events", "follow_all", "Follow the events of all tasks", tasks::all_events).bounded_by_itself(),
    ]
}
