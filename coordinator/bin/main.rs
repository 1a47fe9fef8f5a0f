//! `seriatim`: the one binary. It reads arguments, builds the parts and joins them; it is the only place that sees node
//! and coordinator together.
//!
//! `args` what can be said on the command line · `machine` what the machine has · `serve` a data node, and what all
//! processes share · `cluster` processes with SQL · `demo` the tutorial before your eyes · `inspect` files at rest.

mod args;
mod cluster;
mod demo;
mod inspect;
mod machine;
mod serve;

use args::{Args, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match args::parse() {
        Ok(args) => args,
        Err(error) => return fail(&error),
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_new(&args.log).unwrap_or_default())
        .with_writer(std::io::stderr)
        .init();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a process that could not start goes to its terminal")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("seriatim: {error:#}");
    ExitCode::FAILURE
}

/// Planners recurse as deep as a statement nests. Only what is touched of a stack costs memory.
const STACK_BYTES: usize = 64 << 20;

fn run(args: Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Verify(verify) => return inspect::verify(verify),
        Command::DumpSegment(dump) => return inspect::dump_segment(dump),
        _ => {}
    }
    machine::allow_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("seriatim")
        .thread_stack_size(STACK_BYTES)
        .build()?;
    runtime.block_on(async {
        match args.command {
            Command::Demo(demo) => demo::run(demo).await,
            Command::Embedded(embedded) => cluster::embedded(embedded).await,
            Command::Coordinator(coordinator) => cluster::coordinator(coordinator).await,
            Command::Node(node) => serve::node(node).await,
            Command::Verify(_) | Command::DumpSegment(_) => Ok(()),
        }
    })
}
