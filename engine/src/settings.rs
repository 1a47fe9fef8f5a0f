//! What a statement inherits from its session.

/// Which joins have their rows sent from node to node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shuffling {
    /// Those that would be worse off otherwise: both sides are large, and lie apart.
    #[default]
    Auto,
    /// All that can be, also those whose rows are together as they are.
    On,
    Off,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// IANA name or a fixed offset; timestamps are shown and text without an offset is read in it.
    pub time_zone: String,
    /// The transaction's `now()`, microseconds since 1970-01-01 UTC.
    pub now_us: i64,
    pub user: String,
    pub database: String,
    pub search_path: Vec<String>,
    /// `enable_partitionwise_aggregate`, the tutorial's switch for push-down. Off: nodes return bare rows.
    pub push_down: bool,
    /// `seriatim.shuffle`: whether data nodes may send each other rows of a join.
    pub shuffle: Shuffling,
    /// Parallel streams per process.
    pub partitions: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            time_zone: "UTC".to_owned(),
            now_us: 0,
            user: "postgres".to_owned(),
            database: "postgres".to_owned(),
            search_path: vec!["public".to_owned()],
            push_down: true,
            shuffle: Shuffling::default(),
            partitions: 2,
        }
    }
}
