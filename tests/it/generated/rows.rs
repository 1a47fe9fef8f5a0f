//! The tables the queries read, as statements that make them: hypertable `t`, whose rows are partly sealed, partly in the
//! delta, partly removed and rewritten, over four slices of time and both nodes; and `d`, a table beside it.
//!
//! Invariants
//! - No two rows of `t` have the same time, and none of `d` the same name: an order that ends in both is total.
//! - Floats are multiples of a quarter and small: their sums are exact in whatever order they are made.

use super::statement::{HOSTS, moment, one_of, quarters};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

const ROWS: usize = 3000;
const DAY_MICROS: i64 = 86_400_000_000;

#[derive(Debug, Clone)]
pub enum Step {
    /// For any server.
    Common(String),
    /// Only where there are hypertables.
    Timescale(String),
}

pub const COMPRESS_ALL: &str = "SELECT compress_chunk(c) FROM show_chunks('t') c";

pub fn steps(rng: &mut StdRng) -> Vec<Step> {
    let mut rows = rows(rng);
    rows.shuffle(rng);
    let common = |text: &str| Step::Common(text.to_owned());
    let timescale = |text: &str| Step::Timescale(text.to_owned());
    let insert = |rows: &[String]| Step::Common(format!("INSERT INTO t VALUES {}", rows.join(", ")));
    let mut steps = vec![
        common("CREATE TABLE t (time timestamptz NOT NULL, device int, host text, v float8, n int8, b bool, w float8)"),
        timescale(
            "SELECT create_distributed_hypertable('t', 'time', 'device', chunk_time_interval => interval '6 hours')",
        ),
        timescale("ALTER TABLE t SET (timescaledb.compress, timescaledb.compress_segmentby = 'device')"),
        common("CREATE TABLE d (id int, name text, factor int8, since timestamptz)"),
        common(
            "INSERT INTO d SELECT id, 'name ' || id, id * id - 10, '2024-01-01 00:00+00'::timestamptz + id * interval '2 hours' FROM generate_series(0, 7) AS id",
        ),
        common(
            "INSERT INTO d VALUES (8, 'eight', NULL, NULL), (20, 'twenty', 400, '2024-01-01 12:00+00'), (NULL, 'none', NULL, '2024-01-01 06:00+00'), (NULL, 'nobody', 7, NULL)",
        ),
    ];
    let (first, later) = rows.split_at(ROWS * 6 / 10);
    let (second, last) = later.split_at(ROWS * 2 / 10);
    steps.extend(first.chunks(600).map(insert));
    steps.push(timescale(COMPRESS_ALL));
    steps.push(insert(second));
    // Two segments in the older half.
    steps.push(timescale(
        "SELECT compress_chunk(c) FROM show_chunks('t', older_than => '2024-01-01 12:00+00'::timestamptz) c",
    ));
    steps.push(common("DELETE FROM t WHERE n % 11 = 4"));
    steps.push(common("UPDATE t SET v = v + 0.5, host = 'upd' WHERE device = 3 AND n % 5 = 0"));
    steps.push(insert(last));
    steps.push(common("UPDATE t SET b = NOT b, n = n + 1 WHERE n % 13 = 2"));
    steps.push(common("UPDATE t SET w = NULL, v = 0.25 - v WHERE time >= '2024-01-01 17:00+00' AND device IN (1, 2)"));
    steps.push(common(
        "DELETE FROM t WHERE time >= '2024-01-01 10:00+00' AND time < '2024-01-01 11:00+00' AND device = 5",
    ));
    steps
}

fn rows(rng: &mut StdRng) -> Vec<String> {
    let width = DAY_MICROS / ROWS as i64;
    let mut rows = Vec::new();
    for row in 0..ROWS as i64 {
        let time = moment(row * width + rng.random_range(0..width));
        let nulls = rng.random_range(0..12);
        let or_null = |column: i32, value: String| if nulls == column { "NULL".to_owned() } else { value };
        // Some devices are rare, one has the latest rows only.
        let device = if row > ROWS as i64 * 9 / 10 { rng.random_range(0..11) } else { rng.random_range(0..9) };
        let device = or_null(0, device.to_string());
        let host = or_null(1, format!("'{}'", one_of(rng, &HOSTS[..8])));
        let v = or_null(2, quarters(rng.random_range(-80..80)));
        let n = if rng.random_range(0..50) == 0 { 1_i64 << 40 } else { rng.random_range(-1000..1000) };
        let n = or_null(3, n.to_string());
        let b = or_null(4, rng.random_bool(0.5).to_string());
        let w = match rng.random_range(0..30) {
            0 => "'NaN'".to_owned(),
            1 => "'Infinity'".to_owned(),
            2 => "'-Infinity'".to_owned(),
            _ => or_null(5, quarters(rng.random_range(-20..20))),
        };
        rows.push(format!("('{time}', {device}, {host}, {v}, {n}, {b}, {w})"));
    }
    rows
}
