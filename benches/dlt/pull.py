"""One run of dlt: the table `stamped` of a Postgres by its `updated_at` into SQLite, merged by key.

    python3 pull.py POSTGRES_URL DIRECTORY BACKEND

BACKEND is how dlt reads: `sqlalchemy`, its default, or `pyarrow`, its fastest here. State and replica stay in the directory, so that a second run brings only what changed.
"""

import sys

import dlt
from dlt.sources.sql_database import sql_table

url, directory, backend = sys.argv[1:]
table = sql_table(
    credentials=url.replace("postgres://", "postgresql://", 1),  # the only name that SQLAlchemy knows
    table="stamped",
    primary_key="id",
    write_disposition="merge",
    incremental=dlt.sources.incremental("updated_at"),
    backend=backend,
    chunk_size=50_000,
)
replica = dlt.destinations.sqlalchemy(f"sqlite:///{directory}/dlt.db")
dlt.pipeline("bench", pipelines_dir=directory, dataset_name="copy", destination=replica).run(table)
