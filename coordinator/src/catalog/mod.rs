//! What the cluster knows durably: databases, roles, nodes, tables, chunks.
