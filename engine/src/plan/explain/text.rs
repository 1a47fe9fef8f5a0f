//! The text that psql shows.

use super::ExplainOptions;
use super::tree::{Explained, PlanNode, Value};
use std::time::Duration;

/// Names shown of a list; VERBOSE shows all.
const NAMES_MAX: usize = 24;

impl Explained {
    pub fn lines(&self, options: &ExplainOptions) -> Vec<String> {
        let mut lines = Vec::new();
        push(&self.root, 0, options, &mut lines);
        if options.summary {
            lines.push(format!("Planning Time: {}", time(self.planning)));
            lines.extend(self.execution.map(|execution| format!("Execution Time: {}", time(execution))));
        }
        lines
    }
}

/// Adds a node, `->  Title  (cost…)` below its parent, its properties, and its children.
fn push(node: &PlanNode, depth: usize, options: &ExplainOptions, lines: &mut Vec<String>) {
    let (indent, arrow, inset) = match depth {
        0 => (String::new(), "", "  "),
        depth => (" ".repeat(depth * 6 - 4), "->  ", "      "),
    };
    let mut line = format!("{indent}{arrow}{}", node.title);
    if options.costs {
        let estimate = &node.estimate;
        line.push_str(&format!("  (cost=0.00..{:.2} rows={} width={})", estimate.cost, estimate.rows, estimate.width));
    }
    if let Some(actual) = &node.actual {
        let time = actual.time.map_or_else(String::new, |time| format!("time=0.000..{} ", millis(time)));
        line.push_str(&format!(" (actual {time}rows={} loops=1)", actual.rows));
    }
    lines.push(line);
    let properties = node.properties.iter();
    lines.extend(properties.map(|(name, value)| format!("{indent}{inset}{name}: {}", shown(value, options.verbose))));
    node.children.iter().for_each(|child| push(child, depth + 1, options, lines));
}

fn shown(value: &Value, verbose: bool) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Names(names) if names.len() > NAMES_MAX && !verbose => {
            format!("{}, and {} more", names[..NAMES_MAX].join(", "), names.len() - NAMES_MAX)
        }
        Value::List(texts) | Value::Names(texts) => texts.join(", "),
        Value::Count(count) => count.to_string(),
        Value::Of(count, all) => format!("{count} of {all}"),
        Value::Bytes(count) => bytes(*count),
        Value::Time(duration) => time(*duration),
        Value::Parts(parts) => {
            let parts = parts.iter().map(|(name, value)| format!("{name} {}", shown(value, verbose)));
            parts.collect::<Vec<_>>().join(", ")
        }
    }
}

fn millis(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

fn time(time: Duration) -> String {
    format!("{} ms", millis(time))
}

/// In the largest unit of which there is one, and with one decimal while that says something.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    // What would be rounded to 1024 belongs to the next unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit > 0 && value < 9.95 {
        true => format!("{value:.1} {}", UNITS[unit]),
        false => format!("{value:.0} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::Title;
    use super::*;

    #[test]
    fn bytes_are_told_in_units_a_human_knows() {
        let told = [0, 1023, 1024, 1536, 10_000, 1_048_575, 5 << 20, 3 << 40, 5 << 50].map(bytes);
        let expected =
            ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 KiB", "9.8 KiB", "1.0 MiB", "5.0 MiB", "3.0 TiB", "5120 TiB"];
        assert_eq!(told, expected);
    }

    #[test]
    fn lines_are_indented_as_postgres_does() {
        let mut scan = PlanNode::new(Title::new("Seq Scan").on("t"));
        scan.tell("Chunks", Value::Names((0..30).map(|n| format!("c{n}")).collect()));
        scan.ran(3, Some(Duration::from_micros(1500)));
        let mut root = PlanNode::new(Title::new("Aggregate"));
        root.tell("Skipped", Value::counts(&[("at once", 0), ("later", 2), ("last", 1)]).unwrap());
        root.tell("Read", Value::Of(2, 3));
        assert_eq!(Value::counts(&[("never", 0)]), None);
        let root = root.over(PlanNode::new(Title::custom("AsyncAppend")).over(scan));
        let explained = Explained { root, planning: Duration::from_millis(2), execution: None };
        let options = ExplainOptions { costs: false, ..ExplainOptions::new(true, false) };
        let names = (0..24).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ");
        let chunks = format!("              Chunks: {names}, and 6 more");
        let expected = [
            "Aggregate",
            "  Skipped: later 2, last 1",
            "  Read: 2 of 3",
            "  ->  Custom Scan (AsyncAppend)",
            "        ->  Seq Scan on t (actual time=0.000..1.500 rows=3 loops=1)",
            &chunks,
            "Planning Time: 2.000 ms",
        ];
        assert_eq!(explained.lines(&options), expected);
        let brief = ExplainOptions { summary: false, costs: true, ..options };
        let first = "Aggregate  (cost=0.00..0.00 rows=0 width=0)";
        assert_eq!(explained.lines(&brief).first().map(String::as_str), Some(first));
        assert_eq!(explained.lines(&brief).len(), 6);
    }
}
