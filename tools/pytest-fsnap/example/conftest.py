"""ROWS: a million by default, fewer where time matters."""

import os

from pytest_fsnap.postgresql import postgresql

ROWS = int(os.environ.get("ROWS", "1000000"))

snapshot, database = postgresql(f"CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, {ROWS}) g;"
                                " CREATE INDEX ON t (id)")
