//! What wasmtime makes of the packages under `wit/`: one trait an interface, implemented in [`crate::calls`].
//!
//! Every call is async on this side: a guest that waits holds no thread.
#![allow(missing_docs, clippy::all, clippy::pedantic)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "step",
    imports: { default: async | trappable },
    exports: { default: async },
    with: {
        "windlass:base/secrets.secret": crate::calls::base::Secret,
        "windlass:machine/session.session": crate::calls::machine::Session,
        "windlass:machine/session.command": crate::calls::command::Command,
        "windlass:machine/session.process": crate::calls::machine::Process,
        "windlass:packages/packages.package": crate::calls::packages::Package,
        "windlass:lock/locks.lock": crate::calls::lock::Lock,
        "windlass:tasks/query.filter": crate::calls::tasks::Filter,
        "windlass:tasks/deploy.deployment": crate::calls::tasks::Deployment,
        "windlass:http/client.request": crate::calls::http::Request,
        "windlass:step/inputs.inputs": crate::calls::inputs::Inputs,
    },
});
