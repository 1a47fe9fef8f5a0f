//! Between the wire's messages and our types.

use super::v1;
use crate::{
    ChunkId, ChunkLayout, ChunkStats, ChunkWrite, ClusterId, ColumnId, CommitSeq, Error, FetchRequest, FragmentRequest,
    NodeAddress, NodeIdentity, NodeName, NodeStatus, PeerIdentity, QueryId, Result, ScanChunks, Shuffle, ShuffledInput,
    Source, SqlState, TableId, TxnId, TxnOutcome, UniqueKey, WriteKind,
};

fn missing(what: &str) -> Error {
    Error::new(SqlState::PROTOCOL_VIOLATION, format!("message without {what}"))
}

pub(super) fn cluster_from(bytes: &[u8]) -> Result<ClusterId> {
    bytes.try_into().map(ClusterId).map_err(|_| missing("a 16-byte cluster id"))
}

pub(super) fn txn_to(txn: TxnId) -> v1::TxnId {
    v1::TxnId { cluster: txn.cluster.0.to_vec().into(), epoch: txn.epoch, number: txn.number }
}

pub(super) fn txn_from(txn: Option<v1::TxnId>) -> Result<TxnId> {
    let txn = txn.ok_or_else(|| missing("a transaction id"))?;
    Ok(TxnId { cluster: cluster_from(&txn.cluster)?, epoch: txn.epoch, number: txn.number })
}

pub(super) fn status_to(status: NodeStatus) -> v1::NodeStatus {
    let (cluster, name) = match status.identity {
        Some(identity) => (identity.cluster.0.to_vec(), identity.name.0),
        None => (Vec::new(), String::new()),
    };
    v1::NodeStatus {
        protocol: status.protocol,
        build: status.build,
        cluster: cluster.into(),
        name,
        incarnation: status.incarnation,
        in_doubt: status.in_doubt.into_iter().map(txn_to).collect(),
        commit_seq_max: status.commit_seq_max.0,
        epoch_max: status.epoch_max,
    }
}

pub(super) fn status_from(status: v1::NodeStatus) -> Result<NodeStatus> {
    let identity = match status.cluster.is_empty() {
        true => None,
        false => Some(NodeIdentity { cluster: cluster_from(&status.cluster)?, name: NodeName(status.name) }),
    };
    Ok(NodeStatus {
        protocol: status.protocol,
        build: status.build,
        identity,
        incarnation: status.incarnation,
        in_doubt: status.in_doubt.into_iter().map(|txn| txn_from(Some(txn))).collect::<Result<_>>()?,
        commit_seq_max: CommitSeq(status.commit_seq_max),
        epoch_max: status.epoch_max,
    })
}

pub(super) fn attach_to(identity: NodeIdentity) -> v1::AttachRequest {
    v1::AttachRequest { cluster: identity.cluster.0.to_vec().into(), name: identity.name.0 }
}

pub(super) fn attach_from(request: v1::AttachRequest) -> Result<NodeIdentity> {
    Ok(NodeIdentity { cluster: cluster_from(&request.cluster)?, name: NodeName(request.name) })
}

pub(super) fn write_to(write: ChunkWrite) -> v1::ChunkWrite {
    let layout = layout_to(write.layout);
    let delete = write.kind == WriteKind::Delete;
    v1::ChunkWrite { chunk: write.chunk.0, layout: Some(layout), body: write.body, delete }
}

pub(super) fn write_from(write: v1::ChunkWrite) -> Result<ChunkWrite> {
    let layout = layout_from(write.layout)?;
    let kind = if write.delete { WriteKind::Delete } else { WriteKind::Insert };
    Ok(ChunkWrite { chunk: ChunkId(write.chunk), layout, kind, body: write.body })
}

pub(super) fn layout_to(layout: ChunkLayout) -> v1::ChunkLayout {
    v1::ChunkLayout {
        table: layout.table.0,
        sort: layout.sort.iter().map(|id| id.0).collect(),
        time: layout.time.map(|id| id.0),
        keys: layout.keys.into_iter().map(key_to).collect(),
    }
}

pub(super) fn layout_from(layout: Option<v1::ChunkLayout>) -> Result<ChunkLayout> {
    let layout = layout.ok_or_else(|| missing("a chunk layout"))?;
    Ok(ChunkLayout {
        table: TableId(layout.table),
        sort: layout.sort.into_iter().map(ColumnId).collect(),
        time: layout.time.map(ColumnId),
        keys: layout.keys.into_iter().map(key_from).collect(),
    })
}

fn key_to(key: UniqueKey) -> v1::UniqueKey {
    v1::UniqueKey { name: key.name, columns: key.columns.into_iter().map(|id| id.0).collect() }
}

fn key_from(key: v1::UniqueKey) -> UniqueKey {
    UniqueKey { name: key.name, columns: key.columns.into_iter().map(ColumnId).collect() }
}

pub(super) fn peer_to(peer: PeerIdentity) -> v1::PeerIdentity {
    v1::PeerIdentity {
        protocol: peer.protocol,
        cluster: peer.cluster.map(|cluster| cluster.0.to_vec().into()).unwrap_or_default(),
        member: peer.member,
        incarnation: peer.incarnation,
        voters: peer.voters,
    }
}

pub(super) fn peer_from(peer: v1::PeerIdentity) -> Result<PeerIdentity> {
    let cluster = (!peer.cluster.is_empty()).then(|| cluster_from(&peer.cluster)).transpose()?;
    Ok(PeerIdentity {
        protocol: peer.protocol,
        cluster,
        member: peer.member,
        incarnation: peer.incarnation,
        voters: peer.voters,
    })
}

pub(super) fn outcome_to(outcome: TxnOutcome) -> v1::OutcomeReply {
    let (outcome, seq) = match outcome {
        TxnOutcome::Unknown => (0, 0),
        TxnOutcome::Staged => (1, 0),
        TxnOutcome::Prepared => (2, 0),
        TxnOutcome::Committed(seq) => (3, seq.0),
    };
    v1::OutcomeReply { outcome, seq }
}

pub(super) fn outcome_from(reply: v1::OutcomeReply) -> Result<TxnOutcome> {
    match reply.outcome {
        0 => Ok(TxnOutcome::Unknown),
        1 => Ok(TxnOutcome::Staged),
        2 => Ok(TxnOutcome::Prepared),
        3 => Ok(TxnOutcome::Committed(CommitSeq(reply.seq))),
        other => Err(missing(&format!("a known outcome (got {other})"))),
    }
}

pub(super) fn fragment_to(fragment: FragmentRequest) -> v1::FragmentRequest {
    v1::FragmentRequest {
        query: fragment.query.0,
        plan: fragment.plan,
        values: fragment.values,
        scans: fragment.scans.into_iter().map(scan_to).collect(),
        snapshot: fragment.snapshot.0,
        txn: fragment.txn.map(txn_to),
        time_zone: fragment.time_zone,
        partitions: fragment.partitions,
        now_us: fragment.now_us,
        publishes: fragment.shuffle.publishes,
        inputs: fragment.shuffle.inputs.into_iter().map(input_to).collect(),
    }
}

fn scan_to(scan: ScanChunks) -> v1::ScanChunks {
    let predicates = match &scan.predicates[..] {
        [] => Vec::new(),
        some => serde_json::to_vec(some).expect("numbers and strings always encode"),
    };
    v1::ScanChunks { scan: scan.scan, chunks: chunks_to(scan.chunks), predicates: predicates.into() }
}

fn scan_from(scan: v1::ScanChunks) -> Result<ScanChunks> {
    let predicates = match &scan.predicates[..] {
        [] => Vec::new(),
        json => serde_json::from_slice(json).map_err(|error| missing(&format!("predicates ({error})")))?,
    };
    Ok(ScanChunks { scan: scan.scan, chunks: chunks_from(scan.chunks), predicates })
}

pub(super) fn fragment_from(fragment: v1::FragmentRequest) -> Result<FragmentRequest> {
    Ok(FragmentRequest {
        query: QueryId(fragment.query),
        plan: fragment.plan,
        values: fragment.values,
        scans: fragment.scans.into_iter().map(scan_from).collect::<Result<_>>()?,
        snapshot: CommitSeq(fragment.snapshot),
        txn: fragment.txn.map(|txn| txn_from(Some(txn))).transpose()?,
        time_zone: fragment.time_zone,
        partitions: fragment.partitions,
        now_us: fragment.now_us,
        shuffle: Shuffle {
            publishes: fragment.publishes,
            inputs: fragment.inputs.into_iter().map(input_from).collect::<Result<_>>()?,
        },
    })
}

fn input_to(input: ShuffledInput) -> v1::ShuffledInput {
    let ShuffledInput { input, exchange, partitions, sources } = input;
    v1::ShuffledInput { input, exchange, partitions, sources: sources.into_iter().map(source_to).collect() }
}

fn input_from(input: v1::ShuffledInput) -> Result<ShuffledInput> {
    let v1::ShuffledInput { input, exchange, partitions, sources } = input;
    let sources = sources.into_iter().map(source_from).collect::<Result<_>>()?;
    Ok(ShuffledInput { input, exchange, partitions, sources })
}

fn source_to(source: Source) -> v1::Source {
    match source {
        Source::Here => v1::Source::default(),
        Source::Peer(NodeAddress { identity, address }) => {
            v1::Source { cluster: identity.cluster.0.to_vec().into(), name: identity.name.0, address }
        }
    }
}

fn source_from(source: v1::Source) -> Result<Source> {
    if source.name.is_empty() {
        return Ok(Source::Here);
    }
    let identity = NodeIdentity { cluster: cluster_from(&source.cluster)?, name: NodeName(source.name) };
    Ok(Source::Peer(NodeAddress { identity, address: source.address }))
}

pub(super) fn fetch_to(request: FetchRequest) -> v1::FetchRequest {
    let FetchRequest { from, snapshot, exchange, partition } = request;
    let cluster = from.cluster.0.to_vec().into();
    v1::FetchRequest { cluster, name: from.name.0, snapshot: snapshot.0, exchange, partition }
}

pub(super) fn fetch_from(request: v1::FetchRequest) -> Result<FetchRequest> {
    let v1::FetchRequest { cluster, name, snapshot, exchange, partition } = request;
    let from = NodeIdentity { cluster: cluster_from(&cluster)?, name: NodeName(name) };
    Ok(FetchRequest { from, snapshot: CommitSeq(snapshot), exchange, partition })
}

pub(super) fn chunks_to(chunks: Vec<ChunkId>) -> Vec<u32> {
    chunks.into_iter().map(|chunk| chunk.0).collect()
}

pub(super) fn chunks_from(chunks: Vec<u32>) -> Vec<ChunkId> {
    chunks.into_iter().map(ChunkId).collect()
}

pub(super) fn stats_to(stats: ChunkStats) -> v1::ChunkStats {
    v1::ChunkStats {
        chunk: stats.chunk.0,
        rows: stats.rows,
        disk_bytes: stats.disk_bytes,
        delta_bytes: stats.delta_bytes,
        segments: stats.segments,
        raw_bytes: stats.raw_bytes,
    }
}

pub(super) fn stats_from(stats: v1::ChunkStats) -> ChunkStats {
    ChunkStats {
        chunk: ChunkId(stats.chunk),
        rows: stats.rows,
        disk_bytes: stats.disk_bytes,
        delta_bytes: stats.delta_bytes,
        segments: stats.segments,
        raw_bytes: stats.raw_bytes,
    }
}
