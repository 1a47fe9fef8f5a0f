//! The coordinator's part while a statement runs: it has the nodes publish, then tells whoever reads where.

use crate::plan::collected::{CollectedExec, Seen};
use crate::plan::context::Scope;
use crate::plan::error::hide;
use crate::plan::exchange::{RemoteExec, request};
use crate::plan::late::Settled;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result};
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use futures::future::try_join_all;
use proto::{Error, FragmentMessage, FragmentStream, NodeAddress, NodeName, Shuffle, ShuffledInput, Source};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers the exchanges of this process; those of others have another epoch.
static EXCHANGES: AtomicU64 = AtomicU64::new(1);

/// What a fragment reads of others.
#[derive(Debug, Clone)]
pub(in crate::plan) struct LateInput {
    /// Of the leaf that reads it.
    pub number: u32,
    /// A [`RemoteExec`] whose fragment publishes.
    pub producer: Arc<dyn ExecutionPlan>,
    /// Each has as many partitions as the leaf, in this order.
    pub readers: Vec<NodeName>,
    pub width: usize,
    /// The leaf stands for DataFusion's exchange, too.
    pub exchanges: bool,
    /// A [`CollectedExec`] over the same rows: if it finds few, they are not shuffled.
    pub few: Option<Arc<dyn ExecutionPlan>>,
}

impl LateInput {
    pub fn producer(&self) -> &RemoteExec {
        self.producer.downcast_ref().expect("rows are published by what nodes run")
    }

    pub fn few(&self) -> Option<&CollectedExec> {
        self.few.as_ref().map(|few| few.downcast_ref().expect("rows that may be few are collected"))
    }

    /// Whether its rows turned out to be few.
    pub fn is_few(&self) -> bool {
        self.few().is_some_and(|few| matches!(few.collected.known(), Some(Seen::All(_))))
    }
}

/// An exchange at work. Dropping it ends what publishes.
pub(in crate::plan) struct Started {
    input: LateInput,
    exchange: u64,
    sources: Vec<NodeAddress>,
    _publishing: Vec<SpawnedTask<()>>,
    /// What the publishing fragments themselves read.
    _below: Arc<Settled>,
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}

impl Started {
    /// What one of the readers is told; nothing for a node that is none.
    pub fn for_node(&self, node: &NodeName) -> ShuffledInput {
        let LateInput { number: input, width, ref readers, .. } = self.input;
        let Some(own) = readers.iter().position(|reader| reader == node) else {
            return ShuffledInput { input, exchange: self.exchange, partitions: Vec::new(), sources: Vec::new() };
        };
        let partitions = (own * width..(own + 1) * width).map(|partition| {
            u32::try_from(partition).expect("partitions of all nodes together are fewer than four billion")
        });
        let sources = self.sources.iter().map(|source| match source.identity.name == *node {
            true => Source::Here,
            false => Source::Peer(source.clone()),
        });
        let (partitions, sources) = (partitions.collect(), sources.collect());
        ShuffledInput { input, exchange: self.exchange, partitions, sources }
    }
}

/// Has the nodes of `input`'s fragment publish. On return everything can be fetched; nothing is computed before.
///
/// # Errors
/// When one of them does not take its fragment.
pub(in crate::plan) async fn start(input: &LateInput, settled: Arc<Settled>, scope: &Scope) -> Result<Started> {
    let Settled::Sent { bytes, parts, inputs, .. } = settled.as_ref() else {
        unreachable!("what the coordinator runs itself is not published");
    };
    let remote = input.producer();
    let names = parts.iter().map(|part| part.node.clone()).collect::<Vec<_>>();
    let sources = scope.context.nodes.addresses(&names);
    let sources = sources.ok_or_else(|| hide(Error::internal("nodes that do not find each other were to shuffle")))?;
    let exchange = EXCHANGES.fetch_add(1, Ordering::Relaxed);
    let publishing = parts.iter().enumerate().map(|(at, part)| async move {
        let failed = |error: Error| hide(error.on_node(&part.node));
        let inputs = inputs.iter().map(|input| input.for_node(&part.node)).collect();
        let shuffle = Shuffle { publishes: Some(exchange), inputs };
        let request = request(bytes.clone(), remote.fragment.values.clone(), part.scans.clone(), shuffle, scope);
        let node = scope.context.nodes.node(&part.node).map_err(failed)?;
        let messages = node.execute(request).await.map_err(failed)?;
        Ok::<_, DataFusionError>(SpawnedTask::spawn(ended(messages, remote.clone(), at)))
    });
    let _publishing = try_join_all(publishing).await?;
    Ok(Started { input: input.clone(), exchange, sources, _publishing, _below: settled })
}

/// Waits until all was fetched. What goes wrong, those who fetch are told as well, and better.
async fn ended(mut messages: FragmentStream, remote: RemoteExec, part: usize) {
    while let Some(message) = messages.next().await {
        match message {
            // Whoever waits for these rows is another node.
            Ok(FragmentMessage::Metrics(metrics, traffic)) => remote.answered(part, &metrics, 0, traffic),
            Ok(FragmentMessage::Batch(_)) => {}
            Err(error) => tracing::debug!(%error, "a fragment that publishes has failed"),
        }
    }
}
