//! Which tables refer to which others, and what becomes of their rows when those change: InnoDB cascades, and writes
//! nothing of it to the binlog (tried with MariaDB 10.11).

use super::catalog::get;
use super::session::Session;
use crate::core::error::Result;
use std::collections::BTreeSet;

/// A foreign key whose rows follow those they refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Database and name of the table that refers.
    pub from: (String, String),
    /// Of the one it refers to, and the columns there.
    pub to: (String, String),
    pub columns: BTreeSet<String>,
    /// Rows go with those they refer to.
    pub deletes: bool,
    /// Rows are changed when those they refer to go.
    pub sets_on_delete: bool,
    /// Rows are changed when those they refer to get another key.
    pub sets_on_update: bool,
}

/// All that follow, as far as the login is shown them: what follows in one database may do so through another.
pub(crate) async fn read(session: &mut Session) -> Result<Vec<Reference>> {
    let mut found: Vec<(String, Reference)> = Vec::new();
    // The rules are kept from a login that may only read; its SHOW CREATE TABLE tells them.
    let sql = "select k.constraint_name as name, k.table_name as owner, k.referenced_table_schema as other_database,
                          k.referenced_table_name as other, k.referenced_column_name as part, k.table_schema as own_database
                   from information_schema.key_column_usage k
                   where k.referenced_table_name is not null order by k.table_schema, k.table_name, k.constraint_name";
    for row in session.rows(sql, ()).await? {
        let (name, table, part): (String, String, String) = (get(&row, 0)?, get(&row, 1)?, get(&row, 4)?);
        let to = (get(&row, 2)?, get(&row, 3)?);
        let from = (get(&row, 5)?, table);
        match found.last_mut().filter(|(last, reference)| *last == name && reference.from == from) {
            Some((_, reference)) => drop(reference.columns.insert(part)),
            None => {
                let columns = BTreeSet::from([part]);
                found.push((
                    name,
                    Reference { from, to, columns, deletes: true, sets_on_delete: true, sets_on_update: true },
                ));
            }
        }
    }
    let mut references: Vec<Reference> = Vec::new();
    let mut shown: Option<((String, String), String)> = None;
    for (name, mut reference) in found {
        if shown.as_ref().is_none_or(|(table, _)| *table != reference.from) {
            let quote = |name: &str| format!("`{}`", name.replace('`', "``"));
            let sql = format!("show create table {}.{}", quote(&reference.from.0), quote(&reference.from.1));
            // Where it is not shown the worst is taken for granted.
            let text = match session.rows(&sql, ()).await {
                Ok(rows) => rows.first().map(|row| get::<String>(row, 1)).transpose()?.unwrap_or_default(),
                Err(e) if e.sqlstate().is_some() => String::new(),
                Err(e) => return Err(e),
            };
            shown = Some((reference.from.clone(), text));
        }
        let text = shown.as_ref().map_or("", |(_, text)| text);
        if let Some(rules) = rules(text, &name) {
            reference.deletes = rules.contains("ON DELETE CASCADE");
            reference.sets_on_delete = rules.contains("ON DELETE SET");
            reference.sets_on_update = rules.contains("ON UPDATE CASCADE") || rules.contains("ON UPDATE SET");
        }
        let follows = reference.deletes || reference.sets_on_delete || reference.sets_on_update;
        references.extend(follows.then_some(reference));
    }
    Ok(references)
}

/// What SHOW CREATE TABLE says behind a constraint's columns.
fn rules<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let begin = format!("CONSTRAINT `{}` FOREIGN KEY ", name.replace('`', "``"));
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(&begin))?;
    line.rsplit_once(')').map(|(_, rules)| rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_stand_behind_the_columns() {
        let text = "CREATE TABLE `c` (\n  `id` int,\n  CONSTRAINT `c``1` FOREIGN KEY (`p`) REFERENCES `p` (`id`) ON DELETE CASCADE ON UPDATE SET NULL,\n  CONSTRAINT `d` FOREIGN KEY (`p`) REFERENCES `p` (`id ON DELETE CASCADE`)\n)";
        assert_eq!(rules(text, "c`1"), Some(" ON DELETE CASCADE ON UPDATE SET NULL,"));
        assert_eq!(rules(text, "d"), Some(""));
        assert_eq!(rules(text, "e"), None);
    }
}
