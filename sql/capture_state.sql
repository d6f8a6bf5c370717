(
    select coalesce(pg_catalog.jsonb_object_agg(
        E'trigger\t\t' || pg_catalog.substr(g.tgname, pg_catalog.length({{ prefix }}) + 1),
        pg_catalog.concat_ws('.', g.xmin,
            pg_catalog.md5(pg_catalog.concat_ws(' ', p.prosrc, p.prosecdef, p.proconfig::pg_catalog.text, pg_catalog.pg_get_userbyid(p.proowner),
                g.tgtype, g.tgqual::pg_catalog.text, g.tgattr::pg_catalog.text, g.tgoldtable, g.tgnewtable)),
            p.xmin)), '{}')
    from pg_catalog.pg_trigger g
    join pg_catalog.pg_proc p on p.oid = g.tgfoid
    where g.tgrelid = {{ on_text }}::pg_catalog.regclass and pg_catalog.starts_with(g.tgname, {{ prefix }})
)