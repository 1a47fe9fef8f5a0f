//! COPY's text to columns, per core: `cargo bench --workspace --bench copy`.

#![allow(clippy::unwrap_used, reason = "all of this is test code")]

use coordinator::ingest::copy::{CopyOptions, CopyParser};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::PgType;
use engine::types::TimeContext;
use std::fmt::Write;
use std::hint::black_box;

const ROWS: usize = 10_000;
const METRICS: usize = 10;

/// `time,hostname` and ten metrics.
fn csv() -> String {
    let mut text = String::new();
    for row in 0..ROWS {
        let (minute, second) = (row / 600 % 60, row / 100 % 6 * 10);
        write!(text, "2016-01-01 {:02}:{minute:02}:{second:02}.000000,host_{}", row / 36_000, row % 100).unwrap();
        for metric in 0..METRICS {
            write!(text, ",{}", (row * 31 + metric * 17) % 101).unwrap();
        }
        text.push('\n');
    }
    text
}

fn columns() -> Vec<(String, PgType)> {
    let mut columns = vec![("time".to_owned(), PgType::Timestamptz), ("hostname".to_owned(), PgType::Text)];
    columns.extend((0..METRICS).map(|number| (format!("metric_{number}"), PgType::Float8)));
    columns
}

fn parse(criterion: &mut Criterion) {
    let text = csv();
    let options = CopyOptions::csv();
    let context = TimeContext::UTC;
    let mut group = criterion.benchmark_group("copy");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("csv to columns", |bencher| {
        bencher.iter(|| {
            let mut parser = CopyParser::new(options.clone(), &columns(), context, "cpu").unwrap();
            let full = parser.push(text.as_bytes()).unwrap();
            black_box((full, parser.finish().unwrap()))
        });
    });
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
