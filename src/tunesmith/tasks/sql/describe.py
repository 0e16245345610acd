"""The schema of a database as statements that create it elsewhere, empty: types, tables, keys, checks, views."""

from __future__ import annotations

from psycopg import sql as psql

from tunesmith.tasks.sql.postgres import Server
from tunesmith.tasks.sql.schema import quote


def schema_script(server: Server, database: str) -> str:
    """Statements for an empty database. Foreign keys, defaults, functions and triggers are left out.

    Raises:
        DataError, ConfigError: the database cannot be loaded or found (see `Server.load`).
    """
    lines = [f"CREATE SCHEMA IF NOT EXISTS {quote(name)}" for (name,) in server.trusted(database, _SCHEMAS)]
    for name, labels in server.trusted(database, _ENUMS):
        listed = ", ".join("'" + label.replace("'", "''") + "'" for label in labels)
        lines.append(f"CREATE TYPE {name} AS ENUM ({listed})")
    for name, base, checks in server.trusted(database, _DOMAINS):
        lines.append(f"CREATE DOMAIN {name} AS {base} {' '.join(checks or ())}")
    for table, columns in server.trusted(database, _TABLES):
        lines.append(f"CREATE TABLE {table} (\n  " + ",\n  ".join(columns) + "\n)")
    lines += [
        f"ALTER TABLE {table} ADD CONSTRAINT {name} {rule}"
        for table, name, rule in server.trusted(database, _CONSTRAINTS)
    ]
    lines += [definition for (definition,) in server.trusted(database, _INDEXES)]
    # A view may read another, which is older than it.
    lines += [f"CREATE VIEW {view} AS {body.rstrip().rstrip(';')}" for view, body in server.trusted(database, _VIEWS)]
    return "".join(f"{line};\n" for line in lines)


_OURS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_NOT_OF_EXTENSIONS = "NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = {}.oid AND d.deptype = 'e')"
_SCHEMAS = psql.SQL(f"SELECT nspname::text FROM pg_namespace n WHERE {_OURS} AND nspname <> 'public' ORDER BY 1")
_ENUMS = psql.SQL(f"""
SELECT format('%I.%I', n.nspname, t.typname),
  (SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid)
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype = 'e' AND {_OURS} AND {_NOT_OF_EXTENSIONS.format("t")} ORDER BY t.oid
""")
_DOMAINS = psql.SQL(f"""
SELECT format('%I.%I', n.nspname, t.typname), format_type(t.typbasetype, t.typtypmod),
  (SELECT array_agg(pg_get_constraintdef(c.oid) ORDER BY c.oid) FROM pg_constraint c WHERE c.contypid = t.oid)
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype = 'd' AND {_OURS} AND {_NOT_OF_EXTENSIONS.format("t")} ORDER BY t.oid
""")
_TABLES = psql.SQL(f"""
SELECT format('%I.%I', n.nspname, c.relname),
  array_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
    || CASE WHEN a.attgenerated = 's' THEN format(' GENERATED ALWAYS AS (%s) STORED', pg_get_expr(x.adbin, x.adrelid))
       ELSE '' END
    || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END ORDER BY a.attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
LEFT JOIN pg_attrdef x ON x.adrelid = c.oid AND x.adnum = a.attnum
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND {_OURS} AND {_NOT_OF_EXTENSIONS.format("c")}
  AND a.attnum > 0 AND NOT a.attisdropped
GROUP BY n.nspname, c.relname, c.oid ORDER BY c.oid
""")
_CONSTRAINTS = psql.SQL(f"""
SELECT format('%I.%I', n.nspname, c.relname), quote_ident(k.conname), pg_get_constraintdef(k.oid)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype IN ('p', 'u', 'c') AND NOT c.relispartition AND k.coninhcount = 0 AND {_OURS}
ORDER BY k.contype <> 'p', k.oid
""")
_INDEXES = psql.SQL(f"""
SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.indisunique AND NOT c.relispartition AND {_OURS}
  AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid) ORDER BY i.indexrelid
""")
_VIEWS = psql.SQL(f"""
SELECT format('%I.%I', n.nspname, c.relname), pg_get_viewdef(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm') AND {_OURS} AND {_NOT_OF_EXTENSIONS.format("c")} ORDER BY c.oid
""")
