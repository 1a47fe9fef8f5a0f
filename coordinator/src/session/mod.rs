//! One client's conversation: statements, settings, transaction block.
