-- A table to try pgflume with. Postgres runs this once, when its volume is new.
create table public.notes (
    id         bigint generated always as identity primary key,
    title      text not null,
    price      numeric,
    tags       jsonb,
    done       boolean not null default false,
    created_at timestamptz not null default now()
);
