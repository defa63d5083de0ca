//! What each operation does: ask the engine, shape the answer.

pub mod backup;
pub mod catalog;
pub mod packages;
pub mod scheduling;
pub mod server;
pub mod tasks;
pub mod tokens;

use windlass_model::views::Items;

use crate::input::Json;

/// A list that is whole.
fn whole<T>(items: Vec<T>) -> Json<Items<T>> {
    Json(Items { items, next: None })
}
