//! What goes into the file: goes through the relations, chooses names, compares with the tables that are
//! there. Takes facts, a choice and a document, gives the new text and the report. No IO.

use super::catalog::{Details, Relation};
use super::outcome::{Failure, Outcome};
use super::proposal;
use super::select::{self, Choice};
use crate::core::draft::{Definition, Document, InitReport, names_of};
use crate::core::error::Error;
use crate::core::schema::names::{NAME_BYTES, is_reserved};
use crate::core::schema::{ColumnType, Schema, SourceName};
use crate::postgres::catalog::columns::TypedColumn;
use std::collections::{BTreeMap, BTreeSet};

/// A run in the making.
pub(crate) struct Draft<'a> {
    document: &'a Document,
    relations: &'a [Relation],
    by_oid: BTreeMap<u32, &'a Relation>,
    /// Schema and name of each source of the file.
    sources: BTreeSet<(&'a str, &'a str)>,
    /// Partitions that the file names by themselves.
    replicated_partitions: Vec<&'a Relation>,
    details: &'a Details,
    /// See `InitOptions`.
    numbers: bool,
    report: InitReport,
    /// New tables, by the oid of their relation.
    added: BTreeMap<u32, Definition>,
    /// Their oids, in the order of the file.
    order: Vec<u32>,
    /// Columns that tables of the file do not have.
    lacking: Vec<(String, Vec<(String, ColumnType)>)>,
    /// What the replica's tables and indexes are called, in lower case: SQLite keeps both in one name space.
    names: BTreeSet<String>,
}

impl<'a> Draft<'a> {
    /// Nothing added yet.
    pub fn new(document: &'a Document, relations: &'a [Relation], details: &'a Details, numbers: bool) -> Self {
        let tables = || document.schema.tables();
        let sources: BTreeSet<_> = tables().map(|t| (t.source.schema.as_str(), t.source.table.as_str())).collect();
        let is_source = |r: &&Relation| sources.contains(&(r.name.schema.as_str(), r.name.table.as_str()));
        Self {
            document,
            relations,
            by_oid: relations.iter().map(|r| (r.oid, r)).collect(),
            replicated_partitions: relations.iter().filter(|r| r.parent.is_some()).filter(is_source).collect(),
            sources,
            details,
            numbers,
            report: InitReport::default(),
            added: BTreeMap::new(),
            order: Vec::new(),
            lacking: Vec::new(),
            names: tables().flat_map(|t| names_of(t)).collect(),
        }
    }

    /// Looks at every relation: added, kept or left out.
    pub fn select(&mut self, choice: &Choice) {
        let (partitions, whole): (Vec<_>, Vec<_>) = self.relations.iter().partition(|r| r.parent.is_some());
        for relation in whole {
            self.consider(relation, choice);
        }
        // Upper levels first: what is inside of a table that is replicated needs no definition.
        let mut partitions: Vec<_> = partitions.into_iter().map(|r| (self.ancestors(r).len(), r)).collect();
        partitions.sort_by_key(|(depth, _)| *depth);
        for (_, relation) in partitions {
            self.consider(relation, choice);
        }
    }

    fn consider(&mut self, relation: &'a Relation, choice: &Choice) {
        if !choice.takes(relation) {
            match select::machinery(relation) {
                _ if choice.excludes(relation) => {
                    self.report.leave_out(&relation.name, "excluded; a definition that is in the file stays")
                }
                // Ours nobody misses.
                Some(_) if ["pgflume", "pgmq"].contains(&relation.name.schema.as_str()) => {}
                Some(whose) if !choice.is_narrowed() => self.report.leave_out(&relation.name, whose),
                _ => {}
            }
            return;
        }
        if self.is_replicated(&relation.name) {
            self.compare(relation);
            return;
        }
        if let Some(reason) = self.obstacle(relation, choice) {
            self.report.leave_out(&relation.name, reason);
            return;
        }
        if let Err(reason) = self.add(relation) {
            self.report.leave_out(&relation.name, reason);
        }
    }

    fn is_replicated(&self, name: &SourceName) -> bool {
        self.sources.contains(&(name.schema.as_str(), name.table.as_str()))
    }

    fn ancestors(&self, relation: &Relation) -> Vec<&'a Relation> {
        let parent_of = |r: &Relation| r.parent.and_then(|oid| self.by_oid.get(&oid).copied());
        std::iter::successors(parent_of(relation), |r| parent_of(r)).collect()
    }

    fn obstacle(&self, relation: &Relation, choice: &Choice) -> Option<String> {
        if let Some(reason) = proposal::obstacle(relation) {
            return Some(reason.to_owned());
        }
        let ancestors = self.ancestors(relation);
        let is_whole = |r: &&&Relation| self.added.contains_key(&r.oid) || self.is_replicated(&r.name);
        if let Some(whole) = ancestors.iter().find(is_whole) {
            return Some(format!("partitions of {}, which is replicated as a whole", whole.name.written()));
        }
        if let Some(parent) = ancestors.first().filter(|_| !choice.names(relation)) {
            let parent = parent.name.written();
            return Some(format!(
                "partitions of {parent}, which is not replicated; ask for one with --table by its name"
            ));
        }
        // Most relations are no parents, and most of the rest are not in the file.
        let is_part = |r: &&&Relation| self.ancestors(r).iter().any(|a| a.oid == relation.oid);
        let part = self.replicated_partitions.iter().find(is_part);
        part.map(|p| {
            format!("partitioned tables of which schema.json has a part, {}; take that out first", p.name.written())
        })
    }

    fn add(&mut self, relation: &Relation) -> Result<(), String> {
        let Some(name) = self.free_name(&relation.name) else {
            return Err(
                "tables for whose names there is no room; add them by hand, with `source` and a name of your choice"
                    .into(),
            );
        };
        let columns = self.details.columns.get(&relation.oid).map_or(&[][..], Vec::as_slice);
        let indexes = self.details.indexes.get(&relation.oid).map_or(&[][..], Vec::as_slice);
        let made = proposal::propose(relation, &name, columns, indexes)?;
        self.names.insert(name.to_lowercase());
        self.added.insert(relation.oid, made);
        self.order.push(relation.oid);
        Ok(())
    }

    /// The table's own name, or its schema before it where that is taken.
    fn free_name(&self, source: &SourceName) -> Option<String> {
        [source.table.clone(), format!("{}_{}", source.schema, source.table)]
            .into_iter()
            .find(|n| n.len() <= NAME_BYTES && !is_reserved(n) && !self.names.contains(&n.to_lowercase()))
    }

    /// What Postgres has and the tables of the file that stand for this relation do not.
    fn compare(&mut self, relation: &Relation) {
        let there = self.details.columns.get(&relation.oid).map_or(&[][..], Vec::as_slice);
        for table in self.document.schema.tables().filter(|t| t.source == relation.name) {
            self.report.kept.push(table.name.clone());
            let mut taken: BTreeSet<String> = table.columns.iter().map(|c| c.name.to_lowercase()).collect();
            let lacking = there
                .iter()
                .filter(|c| taken.insert(c.name.to_lowercase()))
                .map(|c| (c.name.clone(), self.type_of(c, &[])))
                .collect();
            self.lacking.push((table.name.clone(), lacking));
            let gone = table.columns.iter().filter(|c| !there.iter().any(|t| t.name == c.name));
            self.report.notes.extend(gone.map(|c| {
                format!(
                    "{} has no column {:?} any more: take it out of {:?}",
                    table.source.written(),
                    c.name,
                    table.name
                )
            }));
        }
    }

    /// The new text, once more checked, and the report.
    pub fn finish(mut self, choice: &Choice, add_columns: bool) -> Result<Outcome, Failure> {
        self.check_spelled_out(choice)?;
        if self.added.is_empty() && self.document.schema.tables().next().is_none() {
            return Err(nothing_found(&self.report).into());
        }
        if !choice.is_narrowed() {
            self.note_missing();
        }
        self.report_lacking(add_columns);
        let tables: Vec<Definition> =
            std::mem::take(&mut self.order).iter().filter_map(|oid| self.settle(*oid)).collect();
        let columns = if add_columns { self.lacking } else { Vec::new() };
        let text = self.document.with(&tables, &columns);
        // What is written has to be what every other command reads.
        Schema::parse(&text).map_err(|e| {
            Error::halt(format!(
                "init would have written what it cannot read ({e}), and wrote nothing; please report this"
            ))
        })?;
        Ok(Outcome { text, report: self.report })
    }

    /// A new table as it is written, without the indexes for whose names there is no room: now all tables' are known.
    fn settle(&mut self, oid: u32) -> Option<Definition> {
        let (mut made, relation) = (self.added.remove(&oid)?, *self.by_oid.get(&oid)?);
        made.settle(&mut self.names);
        let columns = self.details.columns.get(&oid).map_or(&[][..], Vec::as_slice);
        for (name, kind) in &mut made.columns {
            if let Some(column) = columns.iter().find(|column| column.name == *name) {
                *kind = self.type_of(column, &made.key);
            }
        }
        self.report_added(relation, &made);
        self.note_habits(relation, &made);
        Some(made)
    }

    fn type_of(&self, column: &TypedColumn, key: &[String]) -> ColumnType {
        match self.numbers && !key.contains(&column.name) {
            true => column.pg_type.number_type(),
            false => proposal::default_type(column, key),
        }
    }

    /// What SQLite does otherwise than Postgres with what is declared: told once a table.
    fn note_habits(&mut self, relation: &Relation, made: &Definition) {
        let written = relation.name.written();
        let columns = self.details.columns.get(&relation.oid).map_or(&[][..], Vec::as_slice);
        let named = |is_such: &dyn Fn(&TypedColumn) -> bool| -> String {
            let names = columns.iter().filter(|c| is_such(c)).map(|c| c.name.clone());
            names.collect::<Vec<_>>().join(", ")
        };
        let is_text =
            |c: &TypedColumn| made.columns.iter().any(|(name, kind)| *name == c.name && *kind == ColumnType::Decimal);
        let texts = named(&is_text);
        if !texts.is_empty() {
            self.report.notes.push(format!(
                "{written}: every digit is kept, as text, which sorts as text: {texts}; ORDER BY CAST(... AS REAL), and compare in the same way"
            ));
        }
        let citext = named(&|c| c.pg_type.name == "citext");
        if !citext.is_empty() {
            self.report.notes.push(format!(
                "{written}: SQLite tells upper from lower case, as citext does not: {citext}; add COLLATE NOCASE to queries, which knows ASCII only"
            ));
        }
        let indexes = self.details.indexes.get(&relation.oid).map_or(&[][..], Vec::as_slice);
        if indexes.iter().any(|index| index.is_unique && index.columns != made.key) {
            self.report.notes.push(format!("{written}: what is unique beside the key is so in Postgres only: a batch is applied in the order of keys"));
        }
    }

    fn report_added(&mut self, relation: &Relation, made: &Definition) {
        self.report.add(&relation.name, made);
        if let Some(owner) = &relation.other_owner {
            self.report.notes.push(format!(
                "{} belongs to {owner:?}: run `pgflume setup` as that role or a member of it",
                relation.name.written()
            ));
        }
    }

    /// Whoever spells a table out wants it or an error.
    fn check_spelled_out(&self, choice: &Choice) -> Result<(), Failure> {
        for (pattern, means) in choice.spelled_out(self.relations) {
            let is_there = |name: &&SourceName| {
                let oid = self.relations.iter().find(|r| r.name == **name).map(|r| r.oid);
                self.is_replicated(name) || oid.is_some_and(|oid| self.added.contains_key(&oid))
            };
            let reason = means.iter().find_map(|name| self.report.reason(name));
            if let (false, Some(reason)) = (means.iter().any(is_there), reason) {
                return Err(Error::halt(format!(
                    "{pattern} is among what is left out, and nothing was written: {reason}"
                ))
                .into());
            }
        }
        Ok(())
    }

    fn note_missing(&mut self) {
        for table in self.document.schema.tables() {
            if !self.relations.iter().any(|r| r.name == table.source) {
                let source = table.source.written();
                self.report.notes.push(format!(
                    "this database has no {source}: take {:?} out of schema.json, or correct its `source`",
                    table.name
                ));
            }
        }
    }

    fn report_lacking(&mut self, add_columns: bool) {
        for (table, columns) in &self.lacking {
            self.report.lack(table, columns, add_columns);
        }
    }
}

fn nothing_found(report: &InitReport) -> Error {
    let left_out = report.left_out();
    let rest = if left_out.is_empty() {
        "it has none outside of Postgres' own schemas; check the database in PGMQ_URL".to_owned()
    } else {
        format!("left out are\n  - {}", left_out.join("\n  - "))
    };
    Error::halt(format!("this database has no table that can be replicated, and nothing was written: {rest}"))
}
