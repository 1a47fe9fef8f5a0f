//! Transactions over nodes: the two-phase log, commit sequences, recovery.
