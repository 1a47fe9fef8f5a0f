//! Making a table a hypertable, and changing how its next chunks are cut.

use super::host::Host;
use super::signature::{Bound, void};
use super::value::{default_width, width};
use crate::catalog::{CatalogChange, ColumnAlteration};
use crate::pg::backend::Notice;
use crate::pgcatalog::{Row, Value};
use engine::{ColumnDef, Hypertable, PgType, SpaceDimension, TableDef};
use proto::{Error, NodeName, Result, SLOTS_COUNT, SqlState, TimeSlicing};

const INTERNAL_SCHEMA: &str = "_timescaledb_internal";

/// `create_distributed_hypertable`, and `create_hypertable`, which distributes over all nodes as well unless told
/// `distributed => false`, in which case the chunks live on one node.
pub fn create(host: &mut Host<'_>, args: &Bound<'_>, distributed: bool) -> Result<Vec<Row>> {
    let table = host.table(args.text("relation"))?;
    host.check_owner(&table)?;
    if let Some(hypertable) = &table.hypertable {
        return already(host, args, &table, hypertable);
    }
    refuse_unserved(args)?;
    if !host.is_empty(&table) {
        return Err(match args.bool("migrate_data", false) {
            true => Error::new(SqlState::FEATURE_NOT_SUPPORTED, "cannot migrate data for distributed hypertable"),
            false => Error::new(SqlState::FEATURE_NOT_SUPPORTED, format!("table \"{}\" is not empty", table.name))
                .hint("You can migrate data by specifying 'migrate_data => true' when calling this function."),
        });
    }
    let dimension = Dimension::of(args)?;
    let time = column(&table, &dimension.column)?.clone();
    check_time_type(host, &time)?;
    let slicing = match &dimension.interval {
        Some(interval) => Some(interval.parse::<i64>().map_err(|_| Error::internal("a width is a number"))?),
        None => width(args.argument("chunk_time_interval"), &time.ty)?,
    };
    let slicing = TimeSlicing::new(slicing.unwrap_or(default_width(&time.ty))).expect("widths are positive");
    let nodes = assigned_nodes(host, args, distributed)?;
    let partitions = args.int("number_partitions")?;
    let space = match args.text("partitioning_column") {
        Some(name) => Some(space_dimension(host, &table, name, partitions, nodes.len())?),
        None => None,
    };
    if time.nullable {
        let message = format!("adding not-null constraint to column \"{}\"", time.name);
        host.notice(Notice::notice(message).detail("Dimensions cannot have NULL values."));
        let alteration = ColumnAlteration { nullable: Some(false), ..ColumnAlteration::default() };
        host.change(CatalogChange::AlterColumn { table: table.id, column: time.id, alteration })?;
    }
    let id = host.session.cluster().new_hypertable_id();
    let prefix = if distributed { "_dist_hyper" } else { "_hyper" };
    let hypertable = Hypertable {
        id,
        time_column: time.id,
        slicing,
        space,
        distributed,
        replication_factor: 1,
        data_nodes: nodes,
        chunk_schema: args.text("associated_schema_name").unwrap_or(INTERNAL_SCHEMA).to_owned(),
        chunk_prefix: args.text("associated_table_prefix").map_or_else(|| format!("{prefix}_{id}"), str::to_owned),
        default_indexes: args.bool("create_default_indexes", true),
        compression: None,
    };
    host.change(CatalogChange::MakeHypertable { table: table.id, hypertable })?;
    Ok(vec![created(&table, id, true)])
}

fn created(table: &TableDef, id: u32, created: bool) -> Row {
    vec![Value::Int(i64::from(id)), Value::text(&table.schema), Value::text(&table.name), Value::Bool(created)]
}

fn already(host: &mut Host<'_>, args: &Bound<'_>, table: &TableDef, hypertable: &Hypertable) -> Result<Vec<Row>> {
    let message = format!("table \"{}\" is already a hypertable", table.name);
    if !args.bool("if_not_exists", false) {
        return Err(Error::new(SqlState::HYPERTABLE_EXISTS, message));
    }
    host.notice(Notice::notice(format!("{message}, skipping")));
    Ok(vec![created(table, hypertable.id, false)])
}

fn refuse_unserved(args: &Bound<'_>) -> Result<()> {
    for name in ["partitioning_func", "time_partitioning_func", "chunk_target_size"] {
        if !args.value(name).is_null() {
            return Err(Error::unsupported(format!("argument {name}")));
        }
    }
    match args.int("replication_factor")? {
        None | Some(1) => Ok(()),
        Some(factor) if factor < 1 => Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "invalid replication factor")
            .hint("A hypertable's replication factor must be between 1 and 32767.")),
        Some(_) => Err(Error::unsupported("a replication factor above 1")),
    }
}

/// The time dimension: a column name, or what `by_range` made of one.
struct Dimension {
    column: String,
    interval: Option<String>,
}

impl Dimension {
    fn of(args: &Bound<'_>) -> Result<Dimension> {
        let text = args.text("time_column_name").unwrap_or_default();
        match text.strip_prefix(RANGE) {
            Some(rest) => {
                let (column, interval) = rest.split_once(SEPARATOR).unwrap_or((rest, ""));
                let interval = (!interval.is_empty()).then(|| interval.to_owned());
                Ok(Dimension { column: column.to_owned(), interval })
            }
            None if text.starts_with(HASH) => Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "cannot partition using a closed dimension on primary column",
            )
            .hint("Use range partitioning on the primary column.")),
            None => Ok(Dimension { column: text.to_owned(), interval: None }),
        }
    }
}

const RANGE: &str = "range//";
const HASH: &str = "hash//";
const SEPARATOR: &str = "//";

/// `by_range('time', INTERVAL '1 day')` as the text that `create_hypertable` reads back.
pub fn by_range(args: &Bound<'_>) -> Result<Vec<Row>> {
    let column = args.text("column_name").unwrap_or_default();
    let interval = width(args.argument("partition_interval"), &PgType::Timestamptz)?;
    let interval = interval.map(|width| width.to_string()).unwrap_or_default();
    Ok(vec![vec![Value::text(format!("{RANGE}{column}{SEPARATOR}{interval}"))]])
}

pub fn by_hash(args: &Bound<'_>) -> Result<Vec<Row>> {
    let column = args.text("column_name").unwrap_or_default();
    let partitions = args.int("number_partitions")?.unwrap_or_default();
    Ok(vec![vec![Value::text(format!("{HASH}{column}{SEPARATOR}{partitions}"))]])
}

fn column<'a>(table: &'a TableDef, name: &str) -> Result<&'a ColumnDef> {
    table
        .column(name)
        .ok_or_else(|| Error::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist")))
}

fn check_time_type(host: &mut Host<'_>, time: &ColumnDef) -> Result<()> {
    match time.ty {
        PgType::Timestamptz | PgType::Date | PgType::Int2 | PgType::Int4 | PgType::Int8 => Ok(()),
        PgType::Timestamp => {
            let message =
                format!("column type \"{}\" used for \"{}\" does not follow best practices", time.ty, time.name);
            host.notice(Notice::warning(SqlState::new("01000"), message).hint("Use datatype TIMESTAMPTZ instead."));
            Ok(())
        }
        _ => Err(Error::new(SqlState::new("42P16"), format!("invalid type for dimension \"{}\"", time.name))
            .hint("Use an integer, timestamp, or date type.")),
    }
}

fn assigned_nodes(host: &mut Host<'_>, args: &Bound<'_>, distributed: bool) -> Result<Vec<NodeName>> {
    let no_nodes = |detail: &str, hint: &str| {
        Error::new(SqlState::INSUFFICIENT_DATA_NODES, "no data nodes can be assigned to the hypertable")
            .detail(detail)
            .hint(hint)
    };
    let all = host.node_names();
    if all.is_empty() {
        return Err(no_nodes(
            "No data nodes where available to assign to the hypertable.",
            "Add data nodes to the database.",
        ));
    }
    let usable = host.usable_nodes();
    let chosen = match args.names("data_nodes") {
        Some(names) => {
            let names = names.into_iter().map(NodeName).collect::<Vec<_>>();
            if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
                return Err(Error::new(SqlState::UNDEFINED_OBJECT, format!("server \"{unknown}\" does not exist")));
            }
            if let Some(denied) = names.iter().find(|name| !usable.contains(name)) {
                let message = format!("permission denied for foreign server {denied}");
                return Err(Error::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
            }
            names
        }
        None => usable,
    };
    if chosen.is_empty() {
        return Err(no_nodes(
            "Data nodes exist, but none have USAGE privilege.",
            "Grant USAGE on data nodes to attach them to the hypertable.",
        ));
    }
    if args.names("data_nodes").is_none() && chosen.len() < all.len() {
        let message = format!(
            "{} of {} data nodes not used by this hypertable due to lack of permissions",
            all.len() - chosen.len(),
            all.len()
        );
        host.notice(Notice::notice(message).hint("Grant USAGE on data nodes to attach them to a hypertable."));
    }
    if !distributed {
        return Ok(chosen.into_iter().take(1).collect());
    }
    if chosen.len() == 1 {
        host.notice(
            Notice::warning(SqlState::new("01000"), "only one data node was assigned to the hypertable")
                .detail("A distributed hypertable should have at least two data nodes for best performance."),
        );
    }
    Ok(chosen)
}

fn space_dimension(
    host: &mut Host<'_>,
    table: &TableDef,
    name: &str,
    partitions: Option<i64>,
    nodes: usize,
) -> Result<SpaceDimension> {
    let column = column(table, name)?.id;
    let partitions = checked_partitions(partitions.unwrap_or(nodes as i64))?;
    if usize::from(partitions) < nodes {
        warn_few_partitions(host, name);
    }
    Ok(SpaceDimension { column, partitions })
}

fn checked_partitions(partitions: i64) -> Result<u16> {
    match u16::try_from(partitions) {
        Ok(count) if count >= 1 && usize::from(count) <= SLOTS_COUNT => Ok(count),
        _ => Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid number of partitions: must be between 1 and {SLOTS_COUNT}"),
        )),
    }
}

fn warn_few_partitions(host: &mut Host<'_>, column: &str) {
    let message = format!("insufficient number of partitions for dimension \"{column}\"");
    host.notice(
        Notice::warning(SqlState::new("01000"), message)
            .detail("There are not enough partitions to make use of all data nodes.")
            .hint(format!(
                "Increase the number of partitions in dimension \"{column}\" to match or exceed the number of attached data nodes."
            )),
    );
}

/// `add_dimension`: a hash dimension on an empty hypertable that has none.
pub fn add_dimension(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let (table, mut hypertable) = host.hypertable(args.text("hypertable"))?;
    host.check_owner(&table)?;
    let text = args.text("column_name").unwrap_or_default();
    let (name, partitions) = match text.strip_prefix(HASH).and_then(|rest| rest.split_once(SEPARATOR)) {
        Some((name, partitions)) => (name.to_owned(), partitions.parse().ok()),
        None => (text.to_owned(), args.int("number_partitions")?),
    };
    let id = column(&table, &name)?.id;
    if hypertable.space.as_ref().is_some_and(|space| space.column == id) || hypertable.time_column == id {
        let message = format!("column \"{name}\" is already a dimension");
        if !args.bool("if_not_exists", false) {
            return Err(Error::new(SqlState::DUPLICATE_DIMENSION, message));
        }
        host.notice(Notice::notice(format!("{message}, skipping")));
        return Ok(vec![dimension_row(&table, &hypertable, &name, false)]);
    }
    if !args.value("chunk_time_interval").is_null() || text.starts_with(RANGE) || hypertable.space.is_some() {
        return Err(Error::unsupported("a second time or a second space dimension"));
    }
    let Some(partitions) = partitions else {
        return Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "cannot specify neither the number of partitions nor an interval",
        ));
    };
    if !host.is_empty(&table) {
        return Err(Error::unsupported("adding a dimension to a hypertable that has chunks"));
    }
    hypertable.space = Some(space_dimension(host, &table, &name, Some(partitions), hypertable.data_nodes.len())?);
    let row = dimension_row(&table, &hypertable, &name, true);
    host.change(CatalogChange::MakeHypertable { table: table.id, hypertable })?;
    Ok(vec![row])
}

/// Dimensions have no ids of their own here: the hypertable's id and the place among its dimensions make one.
fn dimension_row(table: &TableDef, hypertable: &Hypertable, column: &str, created: bool) -> Row {
    let id = i64::from(hypertable.id) * 2;
    vec![
        Value::Int(id),
        Value::text(&table.schema),
        Value::text(&table.name),
        Value::text(column),
        Value::Bool(created),
    ]
}

pub fn set_chunk_time_interval(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let (table, hypertable) = host.hypertable(args.text("hypertable"))?;
    host.check_owner(&table)?;
    let time = table.column_by_id(hypertable.time_column).expect("a hypertable keeps its time column");
    if let Some(name) = args.text("dimension_name").filter(|name| *name != time.name) {
        return Err(no_dimension(name, &table));
    }
    let width = width(args.argument("chunk_time_interval"), &time.ty)?.ok_or_else(|| {
        Error::new(SqlState::INVALID_PARAMETER_VALUE, "invalid interval: an explicit interval must be specified")
    })?;
    let slicing = TimeSlicing::new(width).expect("widths are positive");
    host.change(CatalogChange::SetSlicing { table: table.id, slicing })?;
    Ok(vec![void()])
}

pub fn set_number_partitions(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let (table, hypertable) = host.hypertable(args.text("hypertable"))?;
    host.check_owner(&table)?;
    let nodes = hypertable.data_nodes.len();
    let partitions = checked_partitions(args.int("number_partitions")?.unwrap_or_default())?;
    let Some(space) = &hypertable.space else {
        return Err(Error::new(
            SqlState::UNDEFINED_OBJECT,
            format!("hypertable \"{}\" does not have a matching dimension", table.name),
        ));
    };
    let name = table.column_by_id(space.column).map(|column| column.name.clone()).unwrap_or_default();
    if let Some(other) = args.text("dimension_name").filter(|given| *given != name) {
        return Err(no_dimension(other, &table));
    }
    if usize::from(partitions) < nodes {
        warn_few_partitions(host, &name);
    }
    host.change(CatalogChange::SetPartitions { table: table.id, partitions })?;
    Ok(vec![void()])
}

pub fn set_replication_factor(host: &mut Host<'_>, args: &Bound<'_>) -> Result<Vec<Row>> {
    let (table, hypertable) = host.hypertable(args.text("hypertable"))?;
    host.check_owner(&table)?;
    if !hypertable.distributed {
        let message = format!("hypertable \"{}\" is not distributed", table.name);
        return Err(Error::new(SqlState::HYPERTABLE_NOT_DISTRIBUTED, message));
    }
    refuse_unserved_factor(args)?;
    Ok(vec![void()])
}

fn refuse_unserved_factor(args: &Bound<'_>) -> Result<()> {
    match args.int("replication_factor")? {
        Some(1) => Ok(()),
        Some(factor) if factor > 1 => Err(Error::unsupported("a replication factor above 1")),
        _ => Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "invalid replication factor")),
    }
}

fn no_dimension(name: &str, table: &TableDef) -> Error {
    Error::new(
        SqlState::UNDEFINED_OBJECT,
        format!("hypertable \"{}\" does not have a dimension \"{name}\"", table.name),
    )
}
