"""One PostgreSQL for all tests of this room, with a small shop in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesmith.config.schema import SqlTask
from tunesmith.tasks.sql.postgres import Server, open_server

SHOP = """\
-- A shop, as pg_dump and people write such files.
SET statement_timeout = 0;
SET a_setting_of_the_future = on;
SELECT pg_catalog.set_config('search_path', '', false);
CREATE DATABASE shop;
\\connect shop
CREATE TYPE public.mood AS ENUM ('calm', 'cross');
CREATE TABLE public.customers (
  id integer PRIMARY KEY,
  name text NOT NULL, -- a semicolon; in a comment
  city text,
  mood public.mood
);
ALTER TABLE public.customers OWNER TO somebody_else;
CREATE TABLE public.orders (
  id integer PRIMARY KEY,
  customer_id integer REFERENCES public.customers(id),
  total numeric(10,2),
  placed_at timestamp,
  status text
);
COMMENT ON TABLE public.orders IS 'What was bought';
COMMENT ON COLUMN public.orders.total IS 'in euros';
CREATE FUNCTION public.double(x integer) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RETURN 2 * x; END; $$;
CREATE VIEW public.big_orders AS SELECT * FROM public.orders WHERE total > 100;
CREATE SCHEMA depot;
CREATE TABLE depot.shelves (id integer PRIMARY KEY, label text);
COPY public.customers (id, name, city, mood) FROM stdin;
1\tAda\tParis\tcalm
2\tBen\tParis\tcross
3\tChloë\tHuế\t\\N
4\tO'Neil\tRome\tcalm
\\.

INSERT INTO public.orders VALUES
  (1, 1, 10.00, '2024-01-05 10:00', 'paid'), (2, 1, 250.50, '2024-02-05 11:00', 'paid'),
  (3, 2, 250.50, '2024-02-06 00:00', 'open'), (4, 3, 99.99, '2024-03-01 08:30', 'paid'), (5, NULL, NULL, NULL, 'open');
INSERT INTO depot.shelves VALUES (1, 'A'), (2, 'B');
GRANT ALL ON public.customers TO somebody_else;
"""


@pytest.fixture(scope="session")
def shop_sql(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQL file with everything a loader stumbles over."""
    path = tmp_path_factory.mktemp("shop") / "shop.sql"
    path.write_text(SHOP, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def shop_settings(shop_sql: Path) -> SqlTask:
    return SqlTask(databases={"shop": shop_sql}, timeout_seconds=1.0, max_rows=1000, max_bytes=200_000)


@pytest.fixture(scope="session")
def server(shop_settings: SqlTask) -> Iterator[Server]:
    """A running embedded server that loads the shop on first use."""
    with open_server(shop_settings, {}) as running:
        yield running
