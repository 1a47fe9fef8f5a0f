//! `FORMAT JSON`, in the shape of PostgreSQL's: an array of one object with `Plan` and `Plans` in it. Times are in
//! milliseconds, sizes in bytes.

use super::ExplainOptions;
use super::tree::{Explained, PlanNode, Title, Value};
use std::time::Duration;

impl Explained {
    pub fn json(&self, options: &ExplainOptions) -> String {
        let mut fields = vec![("Plan", plan(&self.root, None, options))];
        if options.summary {
            fields.push(("Planning Time", millis(self.planning)));
            fields.extend(self.execution.map(|execution| ("Execution Time", millis(execution))));
        }
        let mut text = String::new();
        Json::Array(vec![object(fields)]).write(0, &mut text);
        text
    }
}

enum Json {
    /// Already in its notation.
    Plain(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

fn plan(node: &PlanNode, parent: Option<&'static str>, options: &ExplainOptions) -> Json {
    let Title { name, detail, relation } = &node.title;
    let mut fields = vec![("Node Type", text(name))];
    fields.extend(parent.map(|relationship| ("Parent Relationship", text(relationship))));
    fields.extend(detail.as_ref().map(|(what, detail)| (*what, text(detail))));
    fields.extend(relation.as_ref().map(|relation| ("Relation Name", text(relation))));
    if options.costs {
        let estimate = &node.estimate;
        fields.push(("Startup Cost", Json::Plain("0.00".to_owned())));
        fields.push(("Total Cost", Json::Plain(format!("{:.2}", estimate.cost))));
        fields.push(("Plan Rows", Json::Plain(estimate.rows.to_string())));
        fields.push(("Plan Width", Json::Plain(estimate.width.to_string())));
    }
    if let Some(actual) = &node.actual {
        if let Some(time) = actual.time {
            fields.push(("Actual Startup Time", Json::Plain("0.000".to_owned())));
            fields.push(("Actual Total Time", millis(time)));
        }
        fields.push(("Actual Rows", Json::Plain(actual.rows.to_string())));
        fields.push(("Actual Loops", Json::Plain("1".to_owned())));
    }
    for (at, (name, first)) in node.properties.iter().enumerate() {
        let mut same = node.properties.iter().filter(|(other, _)| other == name);
        if node.properties[..at].iter().any(|(other, _)| other == name) {
            continue;
        }
        // An object has each name once.
        let value = match same.clone().count() {
            1 => value(first),
            _ => Json::Array(same.by_ref().map(|(_, each)| value(each)).collect()),
        };
        fields.push((name, value));
    }
    if !node.children.is_empty() {
        let relationship = |at: usize| match (node.children.len(), at) {
            (1 | 2, 0) => "Outer",
            (2, _) => "Inner",
            _ => "Member",
        };
        let children = node.children.iter().enumerate();
        let children = children.map(|(at, child)| plan(child, Some(relationship(at)), options));
        fields.push(("Plans", Json::Array(children.collect())));
    }
    object(fields)
}

fn value(of: &Value) -> Json {
    match of {
        Value::Text(shown) => text(shown),
        Value::List(texts) | Value::Names(texts) => Json::Array(texts.iter().map(|each| text(each)).collect()),
        Value::Count(count) | Value::Bytes(count) => Json::Plain(count.to_string()),
        Value::Of(count, all) => {
            object(vec![("count", Json::Plain(count.to_string())), ("of", Json::Plain(all.to_string()))])
        }
        Value::Time(time) => millis(*time),
        Value::Parts(parts) => object(parts.iter().map(|(name, part)| (*name, value(part))).collect()),
    }
}

fn object(fields: Vec<(&str, Json)>) -> Json {
    Json::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn text(shown: &str) -> Json {
    Json::Plain(quoted(shown))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn millis(time: Duration) -> Json {
    Json::Plain(format!("{:.3}", time.as_secs_f64() * 1e3))
}

impl Json {
    fn write(&self, depth: usize, out: &mut String) {
        let (open, close, items) = match self {
            Json::Plain(text) => return out.push_str(text),
            Json::Array(items) if items.iter().all(|item| matches!(item, Json::Plain(_))) => {
                let items = items.iter().map(|item| if let Json::Plain(text) = item { text.as_str() } else { "" });
                return out.push_str(&format!("[{}]", items.collect::<Vec<_>>().join(", ")));
            }
            Json::Array(items) => ('[', ']', items.iter().map(|item| (None, item)).collect::<Vec<_>>()),
            Json::Object(fields) => ('{', '}', fields.iter().map(|(name, value)| (Some(name), value)).collect()),
        };
        out.push(open);
        for (at, (name, item)) in items.iter().enumerate() {
            out.push_str(if at == 0 { "\n" } else { ",\n" });
            out.push_str(&"  ".repeat(depth + 1));
            if let Some(name) = name {
                out.push_str(&format!("{}: ", quoted(name)));
            }
            item.write(depth + 1, out);
        }
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
        out.push(close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_shape_that_programs_know_from_postgres() {
        let mut scan = PlanNode::new(Title::new("Seq Scan").on("t"));
        scan.tell_text("Filter", "(host = '\"x\"')");
        scan.tell("Runtime Filter", Value::Count(1));
        scan.tell("Runtime Filter", Value::Count(2));
        scan.tell("Bytes", Value::Parts(vec![("read", Value::Bytes(2048))]));
        scan.ran(3, Some(Duration::from_micros(1500)));
        let root = PlanNode::new(Title::new("HashAggregate").with("Partial Mode", "final")).over(scan);
        let explained =
            Explained { root, planning: Duration::from_millis(2), execution: Some(Duration::from_millis(5)) };
        let options = ExplainOptions { costs: false, ..ExplainOptions::new(true, false) };
        let found: serde_json::Value = serde_json::from_str(&explained.json(&options)).unwrap();
        let expected = serde_json::json!([{
            "Plan": {
                "Node Type": "HashAggregate",
                "Partial Mode": "final",
                "Plans": [{
                    "Node Type": "Seq Scan",
                    "Parent Relationship": "Outer",
                    "Relation Name": "t",
                    "Actual Startup Time": 0.0,
                    "Actual Total Time": 1.5,
                    "Actual Rows": 3,
                    "Actual Loops": 1,
                    "Filter": "(host = '\"x\"')",
                    "Runtime Filter": [1, 2],
                    "Bytes": { "read": 2048 },
                }],
            },
            "Planning Time": 2.0,
            "Execution Time": 5.0,
        }]);
        assert_eq!(found, expected);
    }
}
