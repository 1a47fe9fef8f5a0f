//! Catalog queries: a small row-at-a-time executor over the system relations.
