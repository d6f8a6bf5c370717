// A Postgres in the browser's manner (PGlite) that keeps a table: prints its rows, by their ids, whenever they have changed.
//   node pglite.mjs URL TABLE
import { PGlite } from "@electric-sql/pglite";
import { live } from "@electric-sql/pglite/live";
import { electricSync } from "@electric-sql/pglite-sync";

const [url, table] = process.argv.slice(2);
const pg = await PGlite.create({ extensions: { electric: electricSync(), live } });
await pg.exec(`create table ${table} (id int primary key, v text)`);
await pg.electric.syncShapeToTable({
  shape: { url: `${url}/v1/shape`, params: { table } },
  table,
  primaryKey: ["id"],
  shapeKey: table,
  onError: (e) => {
    console.error(String(e));
    process.exit(1);
  },
});
await pg.live.query(`select * from ${table} order by id`, [], ({ rows }) => console.log(JSON.stringify(rows)));
