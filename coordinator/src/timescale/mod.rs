//! TimescaleDB's functions and views over our catalog.
