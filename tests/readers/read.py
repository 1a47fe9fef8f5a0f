"""Prints the rows of segment files as PostgreSQL would: `read.py duckdb|pyarrow COLUMN,... FILE...`, ordered by the first
column. Floats may come as decimals; intervals are 16 bytes (nanoseconds, days, months)."""

import datetime
import decimal
import math
import struct
import sys


def rows_of(reader, columns, files):
    if reader == "duckdb":
        import duckdb

        # One column may be DOUBLE in a file and DECIMAL in the next: without union_by_name the first file's type rounds.
        # Times as numbers: no session zone, no Python datetime in between.
        connection = duckdb.connect()
        described = connection.execute("DESCRIBE SELECT * FROM read_parquet(?, union_by_name = true)", [files]).fetchall()
        types = {name: kind for name, kind, *_ in described}
        assert types["__seq"] == "BIGINT", types
        quoted = [f'epoch_us("{c}")' if "TIMESTAMP" in types[c] else f'"{c}"' for c in columns]
        query = f'SELECT {", ".join(quoted)} FROM read_parquet(?, union_by_name = true) ORDER BY "{columns[0]}"'
        zones = [types[c] for c in columns]
        for row in connection.execute(query, [files]).fetchall():
            yield [(Instant(v, "ZONE" in z) if "TIMESTAMP" in z and v is not None else v) for v, z in zip(row, zones)]
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = []
        for file in files:
            table = pq.ParquetFile(file).read()
            assert table.schema.field("__seq").type == pa.int64() and min(table["__seq"].to_pylist()) > 0
            rows += zip(*(values_of(table[column]) for column in columns))
        yield from sorted(rows, key=lambda row: row[0])


def values_of(array):
    import pyarrow as pa

    if not pa.types.is_timestamp(array.type):
        return array.to_pylist()
    zoned = array.type.tz is not None
    return [None if us is None else Instant(us, zoned) for us in array.cast(pa.int64()).to_pylist()]


class Instant:
    def __init__(self, us, zoned):
        self.us, self.zoned = us, zoned


def text(column, value):
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, Instant):
        at = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=value.us)
        return seconds(at.strftime("%Y-%m-%d %H:%M:%S"), at.microsecond) + ("+00" if value.zoned else "")
    if isinstance(value, datetime.time):
        return seconds(value.strftime("%H:%M:%S"), value.microsecond)
    if column.startswith("float"):
        return number(float(value))
    if isinstance(value, decimal.Decimal):
        # A numeric without limits has 16 decimals and prints without trailing zeros.
        return format(value.normalize() if value.as_tuple().exponent == -16 else value, "f")
    if column.startswith("interval"):
        return interval(*struct.unpack("<qii", bytes(value)))
    if isinstance(value, (bytes, bytearray)):
        return "\\x" + bytes(value).hex()
    if isinstance(value, list):
        return "{" + ",".join(text(column, element) for element in value) + "}"
    return str(value)


def seconds(whole, us):
    return whole + (f".{us:06}".rstrip("0") if us else "")


def number(value):
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else repr(value)


def interval(nanoseconds, days, months):
    years, months = divmod(months, 12)
    words = [(years, "year"), (months, "mon"), (days, "day")]
    parts = [f"{count} {word}{'' if count == 1 else 's'}" for count, word in words if count]
    whole, us = divmod(nanoseconds // 1000, 1_000_000)
    if whole or us or not parts:
        parts.append(seconds(f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}", us))
    return " ".join(parts)


reader, names, files = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
for row in rows_of(reader, names, files):
    print("|".join(text(column, value) for column, value in zip(names, row)))
