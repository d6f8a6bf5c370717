-- The demo's tables: a small shop.
create table public.customers (
    id        bigint generated always as identity primary key,
    email     text not null unique,
    name      text,
    plan      text,
    balance   numeric(20, 4),
    settings  jsonb,
    last_seen timestamptz
);
create table public.orders (
    region      text,
    number      bigint,
    customer_id bigint not null,
    total       numeric,
    placed_at   timestamptz,
    primary key (region, number)
);
create table public.sessions (
    id          uuid primary key,
    customer_id bigint,
    active      boolean
);
