"""One run of dlt: a table of a Postgres by a column that says when a row changed, into SQLite, merged by key.

    python3 pull.py POSTGRES_URL DIRECTORY TABLE COLUMN BACKEND

BACKEND is how dlt reads: `sqlalchemy`, its default, or `pyarrow`, its fastest here. State and replica stay in the
directory, so that a second run brings only what changed.
"""

import sys

import dlt
from dlt.sources.sql_database import sql_table

url, directory, table, column, backend = sys.argv[1:]
rows = sql_table(
    credentials=url.replace("postgres://", "postgresql://", 1),  # the only name that SQLAlchemy knows
    table=table,
    primary_key="id",
    write_disposition="merge",
    incremental=dlt.sources.incremental(column),
    backend=backend,
    chunk_size=50_000,
)
# Without keys, its default, a merge reads the whole replica for each row.
replica = dlt.destinations.sqlalchemy(f"sqlite:///{directory}/dlt.db", create_primary_keys=True)
dlt.pipeline("bench", pipelines_dir=directory, dataset_name="copy", destination=replica).run(rows)
