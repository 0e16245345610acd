"""What a model might write by mistake or malice, instead of one query: none may harm, none may score."""

from __future__ import annotations

CANARY = "/tmp/tunesmith_canary"
"""A file that must not appear."""

STATEMENTS = [
    # Several statements, ends of our transaction, settings of the session.
    "DELETE FROM orders; SELECT 0",
    "DELETE FROM orders; COMMIT; SELECT 0",
    "COMMIT; DROP TABLE orders CASCADE",
    "ROLLBACK; BEGIN READ WRITE; DELETE FROM orders; COMMIT; SELECT 1",
    "END; TRUNCATE orders CASCADE; SELECT 1",
    "SET statement_timeout = 0; SELECT count(*) FROM generate_series(1, 100000000000)",
    "SET default_transaction_read_only = off; DELETE FROM orders",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET TRANSACTION READ WRITE",
    "SET ROLE postgres; DROP DATABASE harbour",
    "RESET ALL",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT set_config('statement_timeout', '0', false), count(*) FROM generate_series(1, 100000000000)",
    # Writes in every form.
    "DELETE FROM orders",
    "UPDATE orders SET total = 0",
    "INSERT INTO boats SELECT id + 100, name, berths FROM boats",
    "MERGE INTO boats b USING orders o ON b.id = o.boat_id WHEN MATCHED THEN DELETE",
    "WITH gone AS (DELETE FROM orders RETURNING *) SELECT count(*) FROM gone",
    "WITH made AS (INSERT INTO boats VALUES (99, 'x', 1) RETURNING id) SELECT id FROM made",
    "SELECT * INTO stolen FROM orders",
    "CREATE TABLE stolen AS SELECT * FROM orders",
    "CREATE TEMP TABLE boats AS SELECT 1 AS id",
    "CREATE OR REPLACE VIEW cheap AS SELECT 1",
    "CREATE FUNCTION boom() RETURNS int LANGUAGE sql AS 'DELETE FROM orders; SELECT 1'",
    "DO $$ BEGIN EXECUTE 'DELETE FROM orders'; END $$",
    "DROP TABLE boats CASCADE",
    "DROP SCHEMA public CASCADE",
    "TRUNCATE orders",
    "ALTER TABLE orders ADD COLUMN gone int",
    "GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC",
    "SELECT * FROM orders FOR UPDATE",
    "EXPLAIN ANALYZE DELETE FROM orders",
    "PREPARE p AS DELETE FROM orders",
    "SELECT nextval('tickets')",
    "SELECT setval('tickets', 1)",
    "REFRESH MATERIALIZED VIEW totals",
    "REINDEX TABLE orders",
    "VACUUM FULL orders",
    # The machine behind the server.
    f"COPY (SELECT 1) TO PROGRAM 'touch {CANARY}'",
    f"COPY orders TO '{CANARY}'",
    "COPY orders FROM '/etc/passwd'",
    "COPY orders TO STDOUT",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_binary_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    f"SELECT lo_export(1, '{CANARY}')",
    "SELECT lo_create(4242)",
    "SELECT lo_from_bytea(4243, 'x')",
    "CREATE EXTENSION dblink",
    "CREATE EXTENSION file_fdw",
    "LOAD 'auto_explain'",
    "ALTER SYSTEM SET shared_buffers = '1GB'",
    "SELECT pg_reload_conf()",
    "CHECKPOINT",
    # Other sessions and other roles.
    "SELECT query FROM pg_stat_activity",
    "SELECT * FROM pg_stat_get_activity(NULL)",
    "SELECT pg_terminate_backend(pg_backend_pid())",
    "SELECT pg_cancel_backend(pid) FROM pg_locks",
    "SELECT rolpassword FROM pg_authid",
    "SET SESSION AUTHORIZATION postgres",
    "ALTER ROLE tunesmith_guest SUPERUSER",
    "SELECT pg_notify('channel', 'x')",
    "LISTEN channel",
    "SELECT pg_advisory_lock(1)",
    "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE",
    "SELECT query_to_xml('DELETE FROM orders', true, true, '')",
    "SELECT cursor_to_xml('c', 1, true, true, '')",
    # Time, memory, disk, and the client.
    "SELECT pg_sleep(60)",
    "SELECT count(*) FROM generate_series(1, 100000000000)",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
    "SELECT a.* FROM pg_class a, pg_class b, pg_class c ORDER BY random()",
    "SELECT repeat('x', 1000000000)",
    "SELECT string_agg(repeat('x', 1000000), '') FROM generate_series(1, 100000)",
    "SELECT array_agg(g) FROM generate_series(1, 100000000) g",
    "SELECT * FROM generate_series(1, 100000000)",
    "SELECT regexp_replace(repeat('a', 100000), '(a*)*b', '')",
    "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
    "SELECT '" + "x" * 200_000 + "'",
    "SELECT 1 /* \0 */",
    "SELECT E'\\000'",
]

DATABASE = """
CREATE TABLE boats (id integer PRIMARY KEY, name text NOT NULL, berths integer);
CREATE TABLE orders (id integer PRIMARY KEY, boat_id integer REFERENCES boats (id), total numeric, placed date);
CREATE SEQUENCE tickets;
CREATE VIEW cheap AS SELECT * FROM orders WHERE total < 10;
CREATE MATERIALIZED VIEW totals AS SELECT boat_id, sum(total) FROM orders GROUP BY boat_id;
INSERT INTO boats VALUES (1, 'Tern', 4), (2, 'Auk', 6), (3, 'Gull', NULL);
INSERT INTO orders VALUES (1, 1, 9.5, '2024-01-02'), (2, 1, 20, '2024-02-02'), (3, 2, 0, NULL),
  (4, NULL, 7, '2023-12-31');
"""

RIGHT = [
    "SELECT count(*) FROM orders",
    "SELECT name FROM boats ORDER BY id",
    "SELECT id FROM orders WHERE total > 1000",
    "SELECT 0 FROM orders WHERE id = 1",
    "SELECT id FROM boats WHERE name = 'Tern'",
]
"""Right queries that a hostile answer might pass for."""
