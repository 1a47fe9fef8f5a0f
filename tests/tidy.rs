//! Keeps README's map true: reads the sources as text and compares them with the rules of the house. Every rule is a
//! function below `RULES`; its failures say where, and why the rule exists.
//!
//! It is not a linter: what clippy or rustfmt can say is left to them.

#![allow(clippy::unwrap_used, reason = "all of this is test code")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

struct Rule {
    name: &'static str,
    why: &'static str,
    check: fn(&Tree) -> Vec<String>,
}

const RULES: &[Rule] = &[
    Rule {
        name: "edges between crates",
        why: "the map in README is the architecture: an edge that is not on it makes two crates one",
        check: crate_edges,
    },
    Rule {
        name: "tools at home",
        why: "a protocol or a clock that one place knows can be replaced or simulated; the whole cluster must run in one \
              test process on simulated disk, network and clock",
        check: tools_at_home,
    },
    Rule {
        name: "honest tests",
        why: "a test that is skipped, unfinished or waits for time to pass says nothing",
        check: honest_tests,
    },
    Rule {
        name: "crates introduce themselves",
        why: "a newcomer starts at lib.rs: what it is, what it is not, its invariants",
        check: crates_introduce_themselves,
    },
    Rule {
        name: "modules introduce themselves",
        why: "a file without a first sentence has no clear job",
        check: modules_introduce_themselves,
    },
    Rule { name: "the top level", why: "it is fixed: a newcomer finds everything by ten names", check: top_level },
    Rule {
        name: "no machine in the repository",
        why: "paths of a developer's machine and registry hosts mean nothing to others",
        check: no_machine,
    },
];

#[test]
fn the_house_is_tidy() {
    let tree = Tree::read(Path::new(env!("CARGO_MANIFEST_DIR")));
    long_files(&tree);
    let mut failures = Vec::new();
    for rule in RULES {
        let found = (rule.check)(&tree);
        if !found.is_empty() {
            failures.push(format!("{}: {}\n  {}", rule.name, rule.why, found.join("\n  ")));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
}

// ---------------------------------------------------------------------------------------------------------------------
// What each crate may depend on

/// Our own crates each crate may name in its `Cargo.toml`. The root package is the only one that sees everything.
const EDGES: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("storage", &["proto"]),
    ("engine", &["proto"]),
    ("node", &["proto", "storage", "engine"]),
    ("coordinator", &["proto", "storage", "engine"]),
    ("bench", &[]),
];

/// Crates of others that would carry a layer where it does not belong.
const STRANGERS: &[(&str, &[&str])] = &[
    ("storage", &["datafusion", "datafusion-proto", "tokio", "tonic", "prost", "pgwire"]),
    ("engine", &["tonic", "prost", "pgwire", "parquet"]),
    ("node", &["tonic", "prost", "pgwire"]),
    ("coordinator", &["tonic", "prost", "parquet"]),
    ("proto", &["datafusion", "datafusion-proto", "pgwire", "parquet"]),
    ("bench", &["arrow", "datafusion", "pgwire", "tonic"]),
];

fn crate_edges(tree: &Tree) -> Vec<String> {
    let ours = EDGES.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>();
    let mut found = Vec::new();
    for (name, allowed) in EDGES {
        let strangers = STRANGERS.iter().find(|(of, _)| of == name).map_or(&[][..], |(_, strangers)| strangers);
        for dependency in tree.dependencies(name) {
            let dependency = dependency.as_str();
            let forbidden_edge = ours.contains(dependency) && !allowed.contains(&dependency);
            if forbidden_edge || strangers.contains(&dependency) || dependency == "seriatim" {
                found.push(format!("{name} must not depend on {dependency}"));
            }
        }
    }
    found
}

// ---------------------------------------------------------------------------------------------------------------------
// What is used where

struct Home {
    words: &'static [&'static str],
    /// Path prefixes in which the words may stand.
    homes: &'static [&'static str],
}

const HOMES: &[Home] = &[
    Home { words: &["SystemTime::now", "Instant::now", "Utc::now", "Local::now"], homes: &["proto/src/env.rs"] },
    Home { words: &["rand::", "thread_rng", "Uuid::new_v4"], homes: &["proto/src/env.rs"] },
    Home {
        words: &["std::fs", "File::open", "File::create", "OpenOptions", "tokio::fs"],
        homes: &["storage/src/vfs", "coordinator/bin/", "engine/src/plan/spill.rs"],
    },
    Home { words: &["tonic::", "prost::"], homes: &["proto/src/wire/"] },
    Home { words: &["pgwire::"], homes: &["coordinator/src/pg/"] },
    // Who has one can ask a node for everything, which nodes must not.
    Home { words: &["GrpcNode"], homes: &["proto/src/wire/", "coordinator/bin/"] },
];

/// Tests and `bench` are outside: they look at the system from the world's side.
fn tools_at_home(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for file in tree.rust().filter(|file| !file.is_test() && !file.is_under("bench/")) {
        for (number, line) in file.product_lines() {
            for home in HOMES.iter().filter(|home| !home.homes.iter().any(|prefix| file.is_under(prefix))) {
                for word in home.words.iter().filter(|word| stands_in(line, word)) {
                    found.push(format!("{}:{number}: `{word}` belongs into {}", file.path, home.homes.join(" or ")));
                }
            }
        }
    }
    found
}

// ---------------------------------------------------------------------------------------------------------------------
// What never stands anywhere

/// Written in two halves, so that this file does not find itself.
const UNDONE: &[(&str, &str)] = &[("todo", "!("), ("unimplemented", "!("), ("#[ign", "ore"), ("dbg", "!(")];
const WAITING: (&str, &str) = ("sle", "ep(");
/// A test of a server that hangs must not take all others with it.
const UNWATCHED: &str = "#[tokio::test";

fn honest_tests(tree: &Tree) -> Vec<String> {
    let undone = UNDONE.iter().map(|(a, b)| format!("{a}{b}")).collect::<Vec<_>>();
    let waiting = format!("{}{}", WAITING.0, WAITING.1);
    let mut found = Vec::new();
    for file in tree.rust() {
        for (number, line) in file.code_lines() {
            let words = undone.iter().filter(|word| stands_in(line, word));
            found.extend(words.map(|word| format!("{}:{number}: `{word}`", file.path)));
        }
        let endless = |line: &&str| line.contains(UNWATCHED) && !line.contains("watched");
        let of_servers = file.code_lines().filter(|(_, line)| file.is_under("tests/it/") && endless(line));
        found.extend(of_servers.map(|(number, _)| format!("{}:{number}: name `crate::watched`", file.path)));
        // `AsyncDB` and `pg_` functions have methods of this name; a call has a path or a dot before it.
        for (number, line) in file.test_lines() {
            if [".", "::"].iter().any(|before| line.contains(&format!("{before}{waiting}"))) {
                found.push(format!("{}:{number}: a test waits; let it be told instead", file.path));
            }
        }
    }
    found
}

fn no_machine(tree: &Tree) -> Vec<String> {
    // In halves for the same reason.
    let words = [
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("crates", ".io"),
        ("pypi", ".org"),
        ("npmjs", ".org"),
        ("deb.debian", ".org"),
    ];
    let words = words.map(|(a, b)| format!("{a}{b}"));
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| file.path != "Cargo.lock") {
        for (number, line) in (1..).zip(file.text.lines()) {
            let hits = words.iter().filter(|word| stands_in(line, word));
            found.extend(hits.map(|word| format!("{}:{number}: `{word}`", file.path)));
        }
    }
    found
}

// ---------------------------------------------------------------------------------------------------------------------
// What must be there

fn crates_introduce_themselves(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (name, _) in EDGES.iter().filter(|(name, _)| *name != "bench") {
        let path = format!("{name}/src/lib.rs");
        match tree.file(&path) {
            None => found.push(format!("{path} is missing")),
            Some(file) if !file.introduction().contains("Invariants") => {
                found.push(format!("{path} does not open with `//!` and a list of \"Invariants\""));
            }
            Some(_) => (),
        }
    }
    found
}

fn modules_introduce_themselves(tree: &Tree) -> Vec<String> {
    let silent = tree.rust().filter(|file| file.introduction().is_empty());
    silent.map(|file| format!("{} does not open with `//!`", file.path)).collect()
}

const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "proto",
    "engine",
    "node",
    "coordinator",
    "storage",
    "tests",
    "bench",
];
/// Built, never committed.
const BESIDE: &[&str] = &["target"];

fn top_level(tree: &Tree) -> Vec<String> {
    let names = std::fs::read_dir(&tree.root).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let strangers =
        names.filter(|n| !n.starts_with('.') && !TOP_LEVEL.contains(&n.as_str()) && !BESIDE.contains(&n.as_str()));
    strangers.map(|name| format!("{name} has no place at the top level")).collect()
}

/// Where 500 lines are passed a file asks to be split by phase; it is said, not forbidden.
fn long_files(tree: &Tree) {
    for file in tree.rust() {
        let count = file.text.lines().count();
        if count > 500 {
            println!("{} has {count} lines", file.path);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The tree as text

struct Tree {
    root: PathBuf,
    files: Vec<File>,
}

struct File {
    /// From the root, with `/`.
    path: String,
    text: String,
}

impl Tree {
    fn read(root: &Path) -> Tree {
        let mut files = Vec::new();
        for name in TOP_LEVEL.iter().chain(&[".ci", ".github"]) {
            read_into(root, &root.join(name), &mut files);
        }
        assert!(files.len() > 30, "only {} files found under {}", files.len(), root.display());
        Tree { root: root.to_owned(), files }
    }

    fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Names in all dependency tables of a crate's manifest; those for its tests too.
    fn dependencies(&self, of: &str) -> BTreeSet<String> {
        let manifest = self.file(&format!("{of}/Cargo.toml")).unwrap_or_else(|| panic!("{of}/Cargo.toml is missing"));
        let mut inside = false;
        let mut names = BTreeSet::new();
        for line in manifest.text.lines().map(str::trim) {
            if line.starts_with('[') {
                inside = line.trim_matches(['[', ']']).ends_with("dependencies");
            } else if inside && !line.starts_with('#') {
                names.extend(line.split(['.', '=', ' ']).next().filter(|name| !name.is_empty()).map(str::to_owned));
            }
        }
        names
    }
}

fn read_into(root: &Path, path: &Path, files: &mut Vec<File>) {
    if path.is_dir() {
        let mut entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        entries.sort();
        entries.iter().filter(|path| !path.ends_with("target")).for_each(|path| read_into(root, path, files));
    } else if let Ok(text) = std::fs::read_to_string(path) {
        // What is not text has nothing to say here.
        let path = path.strip_prefix(root).expect("found under the root").to_string_lossy().replace('\\', "/");
        files.push(File { path, text });
    }
}

impl File {
    fn is_under(&self, prefix: &str) -> bool {
        self.path.starts_with(prefix)
    }

    /// A file that is compiled for tests and benches only.
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.is_under("tests/")
            || ["/tests/", "/benches/"].iter().any(|folder| self.path.contains(folder))
            || name == "tests.rs"
            || name.ends_with("_test.rs")
    }

    /// The `//!` lines at the top.
    fn introduction(&self) -> String {
        self.text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n")
    }

    /// Numbered lines without comments.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = (1..).zip(self.text.lines());
        lines.map(|(number, line)| (number, line.split_once("//").map_or(line, |(code, _)| code)))
    }

    /// The number of the line where the test module at the end of the file begins, as house style puts it.
    fn tests_start(&self) -> usize {
        let lines = self.text.lines().map(str::trim).collect::<Vec<_>>();
        let start = lines
            .windows(2)
            .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'));
        start.map_or(usize::MAX, |index| index + 1)
    }

    fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let start = self.tests_start();
        self.code_lines().take_while(move |(number, _)| *number < start)
    }

    fn test_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let start = if self.is_test() { 0 } else { self.tests_start() };
        self.code_lines().skip_while(move |(number, _)| *number < start)
    }
}

/// Whether `word` stands in `line`, and not as the end of a longer name (`serde::` is no `de::`).
fn stands_in(line: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| !word.starts_with(joins) || !line[..at].ends_with(joins))
}

#[test]
fn words_are_found_only_where_they_stand_alone() {
    assert!(stands_in("use rand::Rng;", "rand::"));
    assert!(!stands_in("use strand::Rng;", "rand::"));
    assert!(stands_in("x(std::fs::read)", "std::fs"));
}
