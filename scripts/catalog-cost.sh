#!/usr/bin/env bash
# What it costs to look whether the catalog has changed, and to read what tables depend on in it: docs/performance.md.
# $1 the URL of an empty database that may be thrown away. Its server needs max_locks_per_transaction = 400.
set -euo pipefail
url=${1:?the URL of an empty database}
sql=$(cd "$(dirname "$0")/../sql" && pwd)
ask() { psql "$url" -qAtX -v ON_ERROR_STOP=1 "$@"; }

ask <<'SQL'
create schema pgmq; create table pgmq.q_x (msg_id bigint generated always as identity);
create schema pgflume; create table pgflume.captured (queue text, name text, definition jsonb);
create function note() returns trigger language plpgsql as 'begin return null; end';
do $$ begin
    for i in 1..1000 loop
        execute format('create table m%s (id int primary key, a int, b text, c text, d text, e text, f text, g text, h text, i text)', i);
        for event in 0..3 loop
            execute format('create trigger pgflume_x_%1$s after %1$s on m%2$s for each statement execute function note()',
                (array['insert', 'update', 'delete', 'truncate'])[event + 1], i);
        end loop;
    end loop;
    create table parted (id int, r int, v text, primary key (id, r)) partition by list (r);
    for i in 1..3000 loop
        execute format('create table parted_%1$s partition of parted for values in (%1$s)', i);
        execute format('create trigger pgflume_x_truncate after truncate on parted_%s for each statement execute function note()', i);
    end loop;
    create trigger pgflume_x_row after insert or update or delete on parted for each row execute function note();
end $$;
analyze;
SQL

# $1 how many tables, $2 their names as an array, $3 a file, $4 what stands before its parameters, $5 settings
time_of() {
    local schemas=array_fill\(\'public\'::text,array[$1]\) parameters=text[],text[],text,text,text
    [ -z "$4" ] || parameters=text[],$parameters
    {
        echo "begin; set local search_path = ''; set local jit = off; $5 prepare x ($parameters) as"
        cat "$sql/$3"
        echo ';'
        echo "select $2 as names, pg_catalog.$schemas as schemas \\gset"
        echo '\timing on'
        echo '\o /dev/null'
        for _ in $(seq 12); do echo "execute x (${4:+:'names', }:'schemas', :'names', 'pgflume_x_', 'q_x', 'x');"; done
    } | ask | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | sort -n | head -1
}

some() { echo "(select pg_catalog.array_agg('m' || i) from pg_catalog.generate_series(1, $1) i)"; }
row() {
    # as in a step, and with the plan that the function keeps
    look=$(time_of "$2" "$3" catalog_fingerprint.sql '' \
        'set local plan_cache_mode = force_generic_plan; set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off; set local enable_bitmapscan = off;')
    read=$(time_of "$2" "$3" catalog_traits.sql names '')
    echo "| $1 | $look ms | $read ms |"
}
row '7 tables' 7 "$(some 7)"
row '1,000 tables' 1000 "$(some 1000)"
row '1 table of 3,000 partitions' 1 "array['parted']"
