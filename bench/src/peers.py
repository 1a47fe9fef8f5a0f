"""Loads CSV files into an embedded engine and times statements. Reads its order as JSON, prints the result as JSON."""
import json
import os
import sys
import time


class DuckDb:
    def __init__(self, order):
        import duckdb

        self.path = order["store"] + ".duckdb"
        self.connection = duckdb.connect(self.path)
        self.connection.execute(f"SET threads={order['threads']}")
        self.connection.execute("SET TimeZone='UTC'")
        self.version = "DuckDB " + duckdb.__version__

    def load(self, order):
        metrics = ", ".join(m + " double" for m in order["metrics"])
        self.connection.execute(f"CREATE TABLE cpu (time timestamptz, hostname text, {metrics})")
        self.connection.execute(f"COPY cpu FROM '{order['csv']}' (FORMAT csv, HEADER false)")
        self.connection.execute("CHECKPOINT")

    def finish_load(self):
        # Sorted like the other engines keep it; not part of the load time.
        self.connection.execute("CREATE TABLE sorted AS SELECT * FROM cpu ORDER BY hostname, time")
        self.connection.execute("DROP TABLE cpu")
        self.connection.execute("ALTER TABLE sorted RENAME TO cpu")
        self.connection.execute("CHECKPOINT")

    def bytes(self):
        blocks = self.connection.execute("SELECT used_blocks * block_size FROM pragma_database_size()").fetchone()
        return int(blocks[0])

    def run(self, statement):
        return self.connection.execute(statement).to_arrow_table().num_rows


class ClickHouse:
    def __init__(self, order):
        from chdb import session

        self.session = session.Session(order["store"])
        self.session.query(f"SET max_threads={order['threads']}")
        self.version = "ClickHouse " + str(self.session.query("SELECT version()", "TabSeparated")).strip()

    def load(self, order):
        codecs = ", ".join(m + " Float64 CODEC(Gorilla, LZ4)" for m in order["metrics"])
        plain = ", ".join(m + " Float64" for m in order["metrics"])
        self.session.query("CREATE DATABASE b ENGINE = Atomic")
        self.session.query("USE b")
        self.session.query(
            "CREATE TABLE cpu (time DateTime64(6, 'UTC') CODEC(DoubleDelta, LZ4), hostname LowCardinality(String), "
            + codecs
            + ") ENGINE = MergeTree PARTITION BY toYYYYMMDD(time) ORDER BY (hostname, time)"
        )
        columns = "time DateTime64(6, \\'UTC\\'), hostname String, " + plain
        self.session.query(f"INSERT INTO cpu SELECT * FROM file('{order['csv']}', CSV, '{columns}')")

    def finish_load(self):
        self.session.query("OPTIMIZE TABLE cpu FINAL")

    def bytes(self):
        total = self.session.query(
            "SELECT sum(bytes_on_disk) FROM system.parts WHERE table = 'cpu' AND active", "TabSeparated"
        )
        return int(str(total).strip())

    def run(self, statement):
        # Parquet would cost more than the answer; rows are counted in the native format.
        result = self.session.query(statement, "Native")
        return result.rows_read()


def measure(engine, name, statements):
    try:
        engine.run(statements[0])
        times, rows = [], 0
        for statement in statements:
            started = time.perf_counter()
            rows += engine.run(statement)
            times.append((time.perf_counter() - started) * 1e3)
        return {"name": name, "times_ms": times, "rows": rows, "error": None}
    except Exception as error:
        return {"name": name, "times_ms": [], "rows": 0, "error": str(error)[:300]}


def main():
    order = json.load(sys.stdin)
    # What a library prints must not end up in the result.
    result_out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = {"duckdb": DuckDb, "clickhouse": ClickHouse}[order["engine"]](order)
    started = time.perf_counter()
    engine.load(order)
    load_s = time.perf_counter() - started
    engine.finish_load()
    queries = [measure(engine, name, statements) for name, statements in order["queries"]]
    json.dump({"version": engine.version, "load_s": load_s, "bytes": engine.bytes(), "queries": queries}, result_out)
    result_out.flush()


main()
