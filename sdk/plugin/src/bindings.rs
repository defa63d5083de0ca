//! What wit-bindgen makes of the packages under `wit/`. Hidden from plugin authors: only this crate names it.
#![allow(missing_docs, unsafe_code, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "step-validating",
    pub_export_macro: true,
    default_bindings_module: "windlass_plugin::bindings",
    generate_all,
});
