//! SQL functions that DataFusion lacks or spells differently.
