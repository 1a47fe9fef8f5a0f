//! Looking at files without running on them: `verify` a data directory, `dump-segment` a segment.

use crate::args::{DumpSegment, Verify};
use anyhow::{Context, bail};
use std::io::Write;
use std::path::{Path, PathBuf};
use storage::{RealVfs, Vfs};

/// Checks whatever the directory is: a node's, a coordinator's, or one of `embedded`, which has both below it.
///
/// # Errors
/// When something is wrong; it was printed, a line each.
pub fn verify(args: &Verify) -> anyhow::Result<()> {
    let vfs = RealVfs;
    let found = data_directories(&vfs, &args.data_dir)?;
    if found.is_empty() {
        bail!("{} holds no data of seriatim", args.data_dir.display());
    }
    let mut out = std::io::stdout().lock();
    let mut problems_count = 0;
    for (dir, kind) in found {
        let problems = match kind {
            Kind::Node => node_problems(&vfs, &dir),
            Kind::Coordinator => {
                coordinator::txn::verify(&vfs, &dir).err().map(|e| e.to_string()).into_iter().collect()
            }
        };
        let verdict = if problems.is_empty() { "whole" } else { "NOT WHOLE" };
        writeln!(out, "{}: {verdict}", dir.display())?;
        for problem in &problems {
            writeln!(out, "  {problem}")?;
        }
        problems_count += problems.len();
    }
    match problems_count {
        0 => Ok(()),
        1 => bail!("1 problem found"),
        count => bail!("{count} problems found"),
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Node,
    Coordinator,
}

fn data_directories(vfs: &dyn Vfs, dir: &Path) -> anyhow::Result<Vec<(PathBuf, Kind)>> {
    let mut dirs = vec![dir.to_owned()];
    let below = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in below {
        let path = entry?.path();
        if path.is_dir() {
            dirs.push(path);
        }
    }
    dirs.sort();
    let mut found = Vec::new();
    for dir in dirs {
        if vfs.exists(&dir.join(storage::manifest::FILE))? {
            found.push((dir, Kind::Node));
        } else if vfs.exists(&dir.join(coordinator::txn::CATALOG))? {
            found.push((dir, Kind::Coordinator));
        }
    }
    Ok(found)
}

fn node_problems(vfs: &dyn Vfs, dir: &Path) -> Vec<String> {
    // Files may come and go under a running node.
    match vfs.lock(&dir.join("LOCK")) {
        Ok(_lock) => storage::verify(vfs, dir).into_iter().map(|problem| problem.message).collect(),
        Err(error) => vec![format!("in use, or not to be locked: stop the node first ({error})")],
    }
}

/// # Errors
/// When the file cannot be read or is no segment.
pub fn dump_segment(args: &DumpSegment) -> anyhow::Result<()> {
    let text = storage::dump_segment(&RealVfs, &args.file)?;
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}
