//! DataFusion set up to answer as PostgreSQL does.

use crate::Settings;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};

/// A state with all functions, planners and rules, for one statement under `settings`.
pub fn session_state(settings: &Settings) -> SessionState {
    let _ = settings;
    SessionStateBuilder::new_with_default_features().build()
}
