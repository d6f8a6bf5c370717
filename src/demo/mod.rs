//! The main job end to end on throw-away parts.

pub mod postgres;

/// Runs the demo; whether both sides ended equal.
pub async fn run(_keep: bool) -> Result<bool, Box<dyn std::error::Error>> {
    Err("the demo is not built yet".into())
}
