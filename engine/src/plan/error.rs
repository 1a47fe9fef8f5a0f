//! Our errors through DataFusion's, and back out unchanged.

use crate::semantics::to_error;
use datafusion::error::DataFusionError;
use proto::Error;

/// Hides one of our errors in DataFusion's type.
pub(crate) fn hide(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The error a client sees: ours if one of ours is at the root, else the translation of DataFusion's.
pub(crate) fn reveal(error: DataFusionError) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = source {
        if let Some(ours) = current.downcast_ref::<Error>() {
            return ours.clone();
        }
        source = match current.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::Shared(inner)) => Some(inner.as_ref()),
            _ => current.source(),
        };
    }
    to_error(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::SqlState;
    use std::sync::Arc;

    #[test]
    fn our_error_survives_every_wrapping() {
        let ours = Error::new(SqlState::DISK_FULL, "no space");
        let wrapped = DataFusionError::Shared(Arc::new(hide(ours.clone()).context("while scanning")));
        assert_eq!(reveal(DataFusionError::Context("join".into(), Box::new(wrapped))), ours);
    }
}
