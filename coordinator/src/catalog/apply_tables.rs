//! `CatalogState::apply` for tables, views, their rights and chunks.

use super::change::{CatalogChange, ColumnAlteration, CommentTarget};
use super::errors;
use super::objects::ViewDef;
use super::state::{CatalogState, Relation};
use engine::{ChunkDef, ColumnDef, Compression, Hypertable, KeyDef, KeyKind, TableDef};
use proto::{ChunkId, ColumnId, Error, Result, SqlState, TableId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// PostgreSQL's limit.
const COLUMNS_MAX: usize = 1600;

impl CatalogState {
    pub(super) fn apply_to_relations(&mut self, change: &CatalogChange) -> Result<()> {
        use CatalogChange as C;
        match change {
            C::CreateTable(table) => self.create_table(table),
            C::DropTable(id) => {
                let table = self.existing_table(*id)?;
                self.check_no_dependents(*id, &format!("table {}", table.name))?;
                self.forget_table(*id);
                Ok(())
            }
            C::Truncate(id) => {
                self.existing_table(*id)?;
                self.discard_chunks(*id);
                Ok(())
            }
            C::AddColumn { table, column } => self.add_column(*table, column),
            C::DropColumn { table, column } => self.drop_column(*table, *column),
            C::RenameColumn { table, column, name } => {
                let of_table = self.existing_table(*table)?;
                if of_table.column(name).is_some() {
                    return Err(errors::column_exists(name, &of_table.name));
                }
                self.edit_column(*table, *column)?.name.clone_from(name);
                Ok(())
            }
            C::AlterColumn { table, column, alteration } => self.alter_column(*table, *column, alteration),
            C::AddKey { table, key } => self.add_key(*table, key),
            C::DropKey { table, key } => {
                let of_table = self.existing_table(*table)?;
                if of_table.key(key).is_none() {
                    return Err(errors::changed_meanwhile(&format!("table \"{}\"", of_table.name)));
                }
                self.edit_table(*table)?.keys.retain(|other| other.name != *key);
                Ok(())
            }
            C::MakeHypertable { table, hypertable } => self.make_hypertable(*table, hypertable),
            C::SetSlicing { table, slicing } => {
                self.edit_hypertable(*table)?.slicing = *slicing;
                Ok(())
            }
            C::SetPartitions { table, partitions } => {
                let space = self.edit_hypertable(*table)?.space.as_mut();
                let space = space.ok_or_else(|| errors::changed_meanwhile("the hypertable"))?;
                space.partitions = *partitions;
                Ok(())
            }
            C::SetDataNodes { table, nodes } => {
                nodes.iter().try_for_each(|node| self.node(node).map(drop))?;
                self.edit_hypertable(*table)?.data_nodes.clone_from(nodes);
                Ok(())
            }
            C::SetCompression { table, compression } => self.set_compression(*table, compression),
            C::CreateView(view) => self.create_view(view),
            C::ReplaceView(view) => self.replace_view(view),
            C::DropView(id) => {
                let view = self.views.get(id).ok_or_else(|| errors::no_relation(*id))?;
                self.check_no_dependents(*id, &format!("view {}", view.name))?;
                self.forget_view(*id);
                Ok(())
            }
            C::RenameRelation { relation, name } => self.move_relation(*relation, None, Some(name)),
            C::SetSchema { relation, schema } => self.move_relation(*relation, Some(schema), None),
            C::SetOwner { relation, owner } => {
                self.role(owner)?;
                match self.views.contains_key(relation) {
                    true => self.edit_view(*relation)?.owner.clone_from(owner),
                    false => self.edit_table(*relation)?.owner.clone_from(owner),
                }
                Ok(())
            }
            C::Grant { relation, grantee, privilege } => {
                self.relation_by_id(*relation).ok_or_else(|| errors::no_relation(*relation))?;
                self.check_grantee(grantee)?;
                let grants = Arc::make_mut(&mut self.grants).entry(*relation).or_default();
                Arc::make_mut(grants).0.insert((grantee.clone(), *privilege));
                Ok(())
            }
            C::Revoke { relation, grantee, privilege } => {
                self.relation_by_id(*relation).ok_or_else(|| errors::no_relation(*relation))?;
                let grants = Arc::make_mut(&mut self.grants).entry(*relation).or_default();
                Arc::make_mut(grants).0.remove(&(grantee.clone(), *privilege));
                Ok(())
            }
            C::SetComment { target, text } => self.set_comment(target, text),
            C::AddChunk(chunk) => self.add_chunk(chunk),
            C::DropChunk { table, chunk } => self.drop_chunk(*table, *chunk),
            C::MarkChunk { table, chunk, compressed } => self.mark_chunk(*table, *chunk, *compressed),
            _ => unreachable!("apply takes every other change"),
        }
    }

    pub(super) fn existing_table(&self, id: TableId) -> Result<&Arc<TableDef>> {
        self.tables.get(&id).ok_or_else(|| errors::no_relation(id))
    }

    pub(super) fn edit_table(&mut self, id: TableId) -> Result<&mut TableDef> {
        let table = Arc::make_mut(&mut self.tables).get_mut(&id);
        table.map(Arc::make_mut).ok_or_else(|| errors::no_relation(id))
    }

    fn edit_view(&mut self, id: TableId) -> Result<&mut ViewDef> {
        let view = Arc::make_mut(&mut self.views).get_mut(&id);
        view.map(Arc::make_mut).ok_or_else(|| errors::no_relation(id))
    }

    fn edit_hypertable(&mut self, id: TableId) -> Result<&mut Hypertable> {
        let table = self.edit_table(id)?;
        let text = format!("table \"{}\" is not a hypertable", table.name);
        table.hypertable.as_mut().ok_or_else(|| Error::new(SqlState::HYPERTABLE_NOT_EXIST, text))
    }

    fn edit_column(&mut self, table: TableId, column: ColumnId) -> Result<&mut ColumnDef> {
        let columns = &mut self.edit_table(table)?.columns;
        let column = columns.iter_mut().find(|other| other.id == column);
        column.ok_or_else(|| errors::changed_meanwhile("the table"))
    }

    fn add_relation(&mut self, database: &str, schema: &str, name: &str, id: TableId) -> Result<()> {
        let of_database = self.database(database)?;
        let of_schema = of_database.schemas.get(schema).ok_or_else(|| errors::no_schema(schema))?;
        if of_schema.relations.contains_key(name) || self.has_key(database, schema, name) {
            return Err(errors::relation_exists(name));
        }
        let schemas = &mut self.edit_database(database)?.schemas;
        schemas.get_mut(schema).expect("found above").relations.insert(name.to_owned(), id);
        Ok(())
    }

    /// Indexes share the name space of relations.
    pub fn has_key(&self, database: &str, schema: &str, name: &str) -> bool {
        let mut tables = self.tables.values().filter(|table| table.database == database && table.schema == schema);
        tables.any(|table| table.key(name).is_some())
    }

    fn remove_relation(&mut self, database: &str, schema: &str, name: &str) {
        let Ok(database) = self.edit_database(database) else { return };
        if let Some(schema) = database.schemas.get_mut(schema) {
            schema.relations.remove(name);
        }
    }

    fn create_table(&mut self, table: &TableDef) -> Result<()> {
        check_columns(&table.columns)?;
        assert!(self.relation_by_id(table.id).is_none(), "oid {} was given twice", table.id);
        self.role(&table.owner)?;
        let mut names = BTreeSet::from([&table.name]);
        for key in &table.keys {
            self.check_key(table, key)?;
            if !names.insert(&key.name) {
                return Err(errors::relation_exists(&key.name));
            }
        }
        self.add_relation(&table.database, &table.schema, &table.name, table.id)?;
        Arc::make_mut(&mut self.tables).insert(table.id, Arc::new(table.clone()));
        self.oid_taken(table.keys.iter().map(|key| key.oid).fold(table.id.0, u32::max));
        if let Some(hypertable) = &table.hypertable {
            self.next_hypertable = self.next_hypertable.max(hypertable.id + 1);
        }
        Ok(())
    }

    /// Whether the table may have this key: its name is free, its columns are there.
    fn check_key(&self, table: &TableDef, key: &KeyDef) -> Result<()> {
        let schema = self.database(&table.database)?.schemas.get(&table.schema);
        let taken = schema.is_some_and(|schema| schema.relations.contains_key(&key.name));
        if taken || self.has_key(&table.database, &table.schema, &key.name) {
            return Err(errors::relation_exists(&key.name));
        }
        if key.columns.iter().any(|column| table.column_by_id(*column).is_none()) {
            return Err(errors::changed_meanwhile(&format!("table \"{}\"", table.name)));
        }
        table.hypertable.as_ref().map_or(Ok(()), |hypertable| check_partitioned(table, key, hypertable))
    }

    fn add_key(&mut self, id: TableId, key: &KeyDef) -> Result<()> {
        let table = self.existing_table(id)?;
        self.check_key(table, key)?;
        if key.kind == KeyKind::Primary && table.primary_key().is_some() {
            return Err(errors::several_primary_keys(&table.name));
        }
        if !self.chunks(id).is_empty() {
            let what = format!("a unique key for table \"{}\", which has rows,", table.name);
            return Err(Error::unsupported(what).hint("Add the key to an empty table and copy the rows into it."));
        }
        let table = self.edit_table(id)?;
        if key.kind == KeyKind::Primary {
            let of_key = table.columns.iter_mut().filter(|column| key.columns.contains(&column.id));
            of_key.for_each(|column| column.nullable = false);
        }
        table.keys.push(key.clone());
        self.oid_taken(key.oid);
        Ok(())
    }

    fn check_no_dependents(&self, id: TableId, what: &str) -> Result<()> {
        let dependents = self.views.values().filter(|view| view.reads.contains_key(&id));
        let detail = dependents.map(|view| format!("view {} depends on {what}", view.name)).collect::<Vec<_>>();
        if detail.is_empty() {
            return Ok(());
        }
        let error = errors::still_needed(what, detail.join("\n"));
        Err(error.hint("Use DROP ... CASCADE to drop the dependent objects too."))
    }

    pub(super) fn forget_table(&mut self, id: TableId) {
        self.discard_chunks(id);
        Arc::make_mut(&mut self.grants).remove(&id);
        self.forget_jobs(id);
        if let Some(table) = Arc::make_mut(&mut self.tables).remove(&id) {
            self.remove_relation(&table.database, &table.schema, &table.name);
        }
    }

    pub(super) fn forget_view(&mut self, id: TableId) {
        Arc::make_mut(&mut self.grants).remove(&id);
        if let Some(view) = Arc::make_mut(&mut self.views).remove(&id) {
            self.remove_relation(&view.database, &view.schema, &view.name);
        }
    }

    fn discard_chunks(&mut self, id: TableId) {
        let Some(chunks) = Arc::make_mut(&mut self.chunks).remove(&id) else { return };
        chunks.iter().for_each(|chunk| self.add_garbage(chunk.id, &chunk.nodes));
    }

    fn add_column(&mut self, id: TableId, column: &ColumnDef) -> Result<()> {
        let table = self.existing_table(id)?;
        if table.column(&column.name).is_some() {
            return Err(errors::column_exists(&column.name, &table.name));
        }
        if column.id < table.next_column {
            return Err(errors::changed_meanwhile(&format!("table \"{}\"", table.name)));
        }
        if table.columns.len() == COLUMNS_MAX {
            return Err(too_many_columns());
        }
        let table = self.edit_table(id)?;
        table.next_column = ColumnId(column.id.0 + 1);
        table.columns.push(column.clone());
        Ok(())
    }

    fn drop_column(&mut self, id: TableId, column: ColumnId) -> Result<()> {
        let table = self.existing_table(id)?;
        let of_table = table.column_by_id(column).ok_or_else(|| errors::changed_meanwhile("the table"))?;
        if let Some(hypertable) = &table.hypertable {
            let space = hypertable.space.as_ref().map(|space| space.column);
            if hypertable.time_column == column || space == Some(column) {
                let text = format!("cannot drop column named in partition key: \"{}\"", of_table.name);
                return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, text));
            }
            if hypertable.compression.iter().flat_map(Compression::columns).any(|other| other == column) {
                let text = "cannot drop orderby or segmentby column from a hypertable with compression enabled";
                return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, text));
            }
        }
        let table = self.edit_table(id)?;
        table.columns.retain(|other| other.id != column);
        table.keys.retain(|key| !key.columns.contains(&column));
        Ok(())
    }

    fn alter_column(&mut self, table: TableId, column: ColumnId, alteration: &ColumnAlteration) -> Result<()> {
        let column = self.edit_column(table, column)?;
        column.nullable = alteration.nullable.unwrap_or(column.nullable);
        if let Some(default) = &alteration.default {
            column.default.clone_from(default);
        }
        if let Some(ty) = &alteration.ty {
            column.ty = ty.clone();
        }
        Ok(())
    }

    fn make_hypertable(&mut self, id: TableId, hypertable: &Hypertable) -> Result<()> {
        let table = self.existing_table(id)?;
        let gains_dimension =
            |before: &Hypertable| before.id == hypertable.id && before.space.is_none() && hypertable.space.is_some();
        if table.hypertable.as_ref().is_some_and(|before| !gains_dimension(before)) {
            let text = format!("table \"{}\" is already a hypertable", table.name);
            return Err(Error::new(SqlState::HYPERTABLE_EXISTS, text));
        }
        if !self.chunks(id).is_empty() {
            return Err(errors::changed_meanwhile(&format!("table \"{}\"", table.name)));
        }
        let space = hypertable.space.as_ref().map(|space| space.column);
        let dimensions = space.into_iter().chain([hypertable.time_column]);
        if dimensions.into_iter().any(|column| table.column_by_id(column).is_none()) {
            return Err(errors::changed_meanwhile(&format!("table \"{}\"", table.name)));
        }
        table.keys.iter().try_for_each(|key| check_partitioned(table, key, hypertable))?;
        hypertable.data_nodes.iter().try_for_each(|node| self.node(node).map(drop))?;
        self.edit_table(id)?.hypertable = Some(hypertable.clone());
        self.edit_column(id, hypertable.time_column)?.nullable = false;
        self.next_hypertable = self.next_hypertable.max(hypertable.id + 1);
        Ok(())
    }

    fn create_view(&mut self, view: &ViewDef) -> Result<()> {
        assert!(self.relation_by_id(view.id).is_none(), "oid {} was given twice", view.id);
        self.role(&view.owner)?;
        self.check_dependencies(view)?;
        self.add_relation(&view.database, &view.schema, &view.name, view.id)?;
        Arc::make_mut(&mut self.views).insert(view.id, Arc::new(view.clone()));
        self.oid_taken(view.id.0);
        Ok(())
    }

    fn replace_view(&mut self, view: &ViewDef) -> Result<()> {
        let earlier = self.views.get(&view.id).ok_or_else(|| errors::no_relation(view.id))?;
        let key = |view: &ViewDef| (view.database.clone(), view.schema.clone(), view.name.clone());
        if key(earlier) != key(view) {
            return Err(errors::changed_meanwhile(&format!("view \"{}\"", view.name)));
        }
        self.check_dependencies(view)?;
        *self.edit_view(view.id)? = view.clone();
        Ok(())
    }

    fn check_dependencies(&self, view: &ViewDef) -> Result<()> {
        let gone = view.reads.keys().find(|id| self.relation_by_id(**id).is_none());
        gone.map_or(Ok(()), |id| Err(errors::no_relation(*id)))
    }

    fn move_relation(&mut self, id: TableId, schema: Option<&String>, name: Option<&String>) -> Result<()> {
        let (database, old_schema, old_name) = match self.relation_by_id(id).ok_or_else(|| errors::no_relation(id))? {
            Relation::Table(table) => (table.database.clone(), table.schema.clone(), table.name.clone()),
            Relation::View(view) => (view.database.clone(), view.schema.clone(), view.name.clone()),
        };
        let (schema, name) = (schema.unwrap_or(&old_schema), name.unwrap_or(&old_name));
        self.add_relation(&database, schema, name, id)?;
        self.remove_relation(&database, &old_schema, &old_name);
        match self.views.contains_key(&id) {
            true => {
                let view = self.edit_view(id)?;
                (view.schema, view.name) = (schema.clone(), name.clone());
            }
            false => {
                let table = self.edit_table(id)?;
                (table.schema, table.name) = (schema.clone(), name.clone());
            }
        }
        Ok(())
    }

    fn set_comment(&mut self, target: &CommentTarget, text: &Option<String>) -> Result<()> {
        let comment = match target {
            CommentTarget::Database(name) => &mut self.edit_database(name)?.comment,
            CommentTarget::Schema { database, name } => {
                let schema = self.edit_database(database)?.schemas.get_mut(name);
                &mut schema.ok_or_else(|| errors::no_schema(name))?.comment
            }
            CommentTarget::Role(name) => &mut self.edit_role(name)?.comment,
            CommentTarget::Relation(id) if self.views.contains_key(id) => &mut self.edit_view(*id)?.comment,
            CommentTarget::Relation(id) => &mut self.edit_table(*id)?.comment,
            CommentTarget::Column { table, column } => &mut self.edit_column(*table, *column)?.comment,
        };
        comment.clone_from(text);
        Ok(())
    }

    fn add_chunk(&mut self, chunk: &Arc<ChunkDef>) -> Result<()> {
        self.existing_table(chunk.table)?;
        if let Some(conflict) = self.chunks(chunk.table).conflict(chunk) {
            return Err(errors::changed_meanwhile("the table's partitioning").detail(conflict));
        }
        let chunks = Arc::make_mut(&mut self.chunks).entry(chunk.table).or_default();
        Arc::make_mut(chunks).insert(Arc::clone(chunk));
        self.next_chunk = self.next_chunk.max(chunk.id.0 + 1);
        Ok(())
    }

    fn drop_chunk(&mut self, table: TableId, id: ChunkId) -> Result<()> {
        let chunks = Arc::make_mut(&mut self.chunks).get_mut(&table);
        let chunk = chunks.and_then(|chunks| Arc::make_mut(chunks).remove(id));
        let chunk = chunk.ok_or_else(|| errors::changed_meanwhile(&format!("chunk {id}")))?;
        self.add_garbage(chunk.id, &chunk.nodes);
        Ok(())
    }

    fn mark_chunk(&mut self, table: TableId, id: ChunkId, compressed: bool) -> Result<()> {
        let known = self.chunks(table).get(id).map(|chunk| ChunkDef { compressed, ..ChunkDef::clone(chunk) });
        let marked = known.ok_or_else(|| errors::changed_meanwhile(&format!("chunk {id}")))?;
        let chunks = Arc::make_mut(&mut self.chunks).get_mut(&table).expect("the table has this chunk");
        let chunks = Arc::make_mut(chunks);
        chunks.remove(id);
        chunks.insert(Arc::new(marked));
        Ok(())
    }

    fn set_compression(&mut self, id: TableId, compression: &Option<Compression>) -> Result<()> {
        let table = self.existing_table(id)?;
        let gone = |column: &ColumnId| table.column_by_id(*column).is_none();
        if compression.iter().flat_map(Compression::columns).any(|column| gone(&column)) {
            return Err(errors::changed_meanwhile(&format!("table \"{}\"", table.name)));
        }
        if compression.is_none() && self.chunks(id).iter().any(|chunk| chunk.compressed) {
            let text = "cannot disable compression on hypertable with compressed chunks";
            return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, text));
        }
        self.edit_hypertable(id)?.compression.clone_from(compression);
        Ok(())
    }
}

/// Equal keys must meet in one chunk to be found equal.
fn check_partitioned(table: &TableDef, key: &KeyDef, hypertable: &Hypertable) -> Result<()> {
    let mut dimensions = hypertable.dimensions().collect::<Vec<_>>();
    dimensions.reverse();
    let Some(missing) = dimensions.into_iter().find(|column| !key.columns.contains(column)) else { return Ok(()) };
    let column = table.column_by_id(missing).map_or("?", |column| &column.name);
    let text = format!("cannot create a unique index without the column \"{column}\" (used in partitioning)");
    Err(Error::new(SqlState::BAD_HYPERTABLE_INDEX, text))
}

fn too_many_columns() -> Error {
    Error::new(SqlState::new("54011"), format!("tables can have at most {COLUMNS_MAX} columns"))
}

fn check_columns(columns: &[ColumnDef]) -> Result<()> {
    if columns.len() > COLUMNS_MAX {
        return Err(too_many_columns());
    }
    let mut names = BTreeSet::new();
    match columns.iter().find(|column| !names.insert(&column.name)) {
        None => Ok(()),
        Some(twice) => {
            let text = format!("column \"{}\" specified more than once", twice.name);
            Err(Error::new(SqlState::DUPLICATE_COLUMN, text))
        }
    }
}
