//! Writes the definitions of a MySQL's tables into a schema file: what patterns mean and the file does not have yet.

use super::wanted::{database, proposals};
use crate::core::draft::{Document, InitReport, names_of};
use crate::core::error::{Error, Result};
use crate::core::schema::{ColumnType, Schema, SourceName};
use crate::mysql::MySqlUrl;
use crate::mysql::catalog::{self, MyTable};
use crate::mysql::session::Session;
use std::collections::{BTreeMap, BTreeSet};

/// The new text of the file, and what was done.
pub(crate) async fn init(
    url: &MySqlUrl,
    [tables, exclude]: [&[String]; 2],
    add_columns: bool,
    document: &Document,
) -> Result<(String, InitReport)> {
    let own = url.database();
    let mut session = Session::open(url).await?;
    let catalog = catalog::read(&mut session, &BTreeSet::from([own.to_owned()])).await?;
    draft(own, &catalog, [tables, exclude], add_columns, document)
}

fn draft(
    own: &str,
    catalog: &BTreeMap<(String, String), MyTable>,
    [tables, exclude]: [&[String]; 2],
    add_columns: bool,
    document: &Document,
) -> Result<(String, InitReport)> {
    let mut names: BTreeSet<String> = document.schema.tables().flat_map(|table| names_of(table)).collect();
    let (mut report, mut added, mut lacking) = (InitReport::default(), Vec::new(), Vec::new());
    for (source, proposed) in proposals(catalog, tables, exclude)? {
        let is_it = |of: &SourceName| database(of, own) == source.schema && of.table == source.table;
        let there = document.schema.tables().find(|table| is_it(&table.source));
        match (there, proposed) {
            (Some(table), Ok(made)) => {
                report.kept.push(table.name.clone());
                let is_new = |(name, _): &(String, ColumnType)| table.position(name).is_none();
                let columns: Vec<_> = made.columns.into_iter().filter(is_new).collect();
                report.lack(&table.name, &columns, add_columns);
                lacking.push((table.name.clone(), columns));
            }
            (Some(table), Err(_)) => report.kept.push(table.name.clone()),
            (None, Ok(made)) if names.contains(&made.name.to_lowercase()) => {
                report.leave_out(&source, "a table or an index of the file has its name: define it under another");
            }
            (None, Ok(mut made)) => {
                made.settle(&mut names);
                report.add(&source, &made);
                added.push(made);
            }
            (None, Err(why)) => report.leave_out(&source, why),
        }
    }
    if added.is_empty() && document.schema.tables().next().is_none() {
        let left_out: String = report.left_out().iter().map(|line| format!("\n  - {line}")).collect();
        return Err(Error::halt(format!(
            "this database shows the login no table that can be pulled, and nothing was written: grant select on its tables{left_out}"
        )));
    }
    let text = document.with(&added, if add_columns { &lacking } else { &[] });
    Schema::parse(&text).map_err(|e| {
        Error::halt(format!("init would have written what it cannot read ({e}), and wrote nothing; please report this"))
    })?;
    Ok((text, report))
}
