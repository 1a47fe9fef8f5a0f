//! From a statement to running fragments: provider, scan, fragmenter, exchange, explain.
