"""Workload S in DuckDB and SQLite beside icecore, in one run; prints a table with ratios.

Needs Python with duckdb and numpy, and the bench of the engine built: this script runs it and reads its medians.

    python3 -m venv venv && venv/bin/pip install duckdb numpy
    venv/bin/python docs/benchmarks/compare/compare.py

Runs from the root of the repository. With --quick a twentieth of the data, to see that it works.
"""

import json
import os
import pathlib
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

import duckdb
import numpy

METRICS = ["user", "system", "idle", "nice", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"]
START, STEP = 1_451_606_400, 10
HOSTS, TICKS = 100, 432 if "--quick" in sys.argv else 8640
HOUR = 3600


def workload():
    """Values by tick, host and metric: random walks in 0..100 with N(0, 1) steps, cut to whole numbers."""
    random = numpy.random.default_rng(1)
    state = random.uniform(0, 101, HOSTS * 10)
    values = numpy.empty((TICKS, HOSTS * 10))
    for tick in range(TICKS):
        state = numpy.clip(state + random.normal(size=HOSTS * 10), 0, 100)
        values[tick] = numpy.trunc(state)
    return values.reshape(TICKS, HOSTS, 10)


def median_ms(ask):
    """The median of up to 50 runs, or of as many as fit three seconds, after one to warm up."""
    ask()
    times, until = [], time.monotonic() + 3
    while len(times) < 50 and (len(times) < 3 or time.monotonic() < until):
        started = time.perf_counter()
        ask()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


def size_of(path):
    return sum(entry.stat().st_size for entry in pathlib.Path(path).iterdir() if entry.is_file())


def duck(values, path):
    """A wide table, which is DuckDB's best: a row for each host and tick, a column for each metric."""
    db = duckdb.connect(os.path.join(path, "s.duckdb"))
    columns = ", ".join(f"{name} DOUBLE" for name in METRICS)
    db.execute(f"CREATE TABLE cpu (time BIGINT, host INTEGER, {columns})")
    times = numpy.repeat(START + STEP * numpy.arange(TICKS), HOSTS)
    rows = {"time": times, "host": numpy.tile(numpy.arange(HOSTS, dtype=numpy.int32), TICKS)}
    flat = values.reshape(-1, 10)
    rows |= {name: numpy.ascontiguousarray(flat[:, index]) for index, name in enumerate(METRICS)}
    started = time.perf_counter()
    # Batches of 10,000 samples, each a transaction.
    for first in range(0, len(times), 1000):
        batch = {name: column[first : first + 1000] for name, column in rows.items()}
        db.register("batch", batch)
        db.execute("INSERT INTO cpu SELECT * FROM batch")
    db.execute("CHECKPOINT")
    seconds = time.perf_counter() - started

    def bucketed(aggregate, where, width, group="host, "):
        return lambda: db.execute(
            f"SELECT {group} time // {width} AS bucket, {aggregate} FROM cpu WHERE {where} GROUP BY ALL"
        ).fetchall()

    def all_of(function, names):
        return ", ".join(f"{function}({name})" for name in names)

    within = lambda hours: f"time >= {START} AND time < {START + hours * HOUR}"
    asks = {
        "max_by_minute_1x1x1h": bucketed("max(user)", f"host = 3 AND {within(1)}", 60),
        "max_by_minute_1x1x12h": bucketed("max(user)", f"host = 3 AND {within(12)}", 60),
        "max_by_minute_8x5x1h": bucketed(all_of("max", METRICS[:5]), f"host < 8 AND {within(1)}", 60),
        "max_by_hour_8x10x8h": bucketed(all_of("max", METRICS), f"host < 8 AND {within(8)}", HOUR),
        "mean_by_host_hour_all_12h": bucketed(all_of("avg", METRICS), within(12), HOUR),
        "readings_over_90_12h": lambda: db.execute(
            f"SELECT time, host, user FROM cpu WHERE user > 90 AND {within(12)}"
        ).fetchnumpy(),
        "last_of_every_series": lambda: db.execute(
            f"SELECT host, {', '.join(f'arg_max({name}, time)' for name in METRICS)} FROM cpu GROUP BY host"
        ).fetchall(),
        "raw_1h": lambda: db.execute(f"SELECT time, user FROM cpu WHERE host = 3 AND {within(1)}").fetchnumpy(),
        "raw_24h": lambda: db.execute("SELECT time, user FROM cpu WHERE host = 3").fetchnumpy(),
        "sum_of_everything": lambda: db.execute(f"SELECT {all_of('sum', METRICS)} FROM cpu").fetchall(),
    }
    return seconds, lambda: size_of(path), asks


def lite(values, path):
    """A narrow table in order of series and time, which is SQLite's best for ranges of one series."""
    db = sqlite3.connect(os.path.join(path, "s.sqlite"), isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(
        "CREATE TABLE cpu (host INTEGER, metric INTEGER, time INTEGER, value REAL,"
        " PRIMARY KEY (host, metric, time)) WITHOUT ROWID"
    )
    names = [(host, metric) for host in range(HOSTS) for metric in range(10)]
    started = time.perf_counter()
    for tick in range(TICKS):
        stamp = START + tick * STEP
        if tick % 10 == 0:
            db.execute("BEGIN")
        row = values[tick].reshape(-1).tolist()
        db.executemany(
            "INSERT INTO cpu VALUES (?, ?, ?, ?)",
            [(host, metric, stamp, value) for (host, metric), value in zip(names, row)],
        )
        if tick % 10 == 9 or tick == TICKS - 1:
            db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    seconds = time.perf_counter() - started

    def asked(query):
        return lambda: db.execute(query).fetchall()

    within = lambda hours: f"time >= {START} AND time < {START + hours * HOUR}"

    def bucketed(aggregate, where, width):
        return asked(
            f"SELECT host, metric, time / {width}, {aggregate}(value) FROM cpu WHERE {where} GROUP BY 1, 2, 3"
        )

    asks = {
        "max_by_minute_1x1x1h": bucketed("max", f"host = 3 AND metric = 0 AND {within(1)}", 60),
        "max_by_minute_1x1x12h": bucketed("max", f"host = 3 AND metric = 0 AND {within(12)}", 60),
        "max_by_minute_8x5x1h": bucketed("max", f"host < 8 AND metric < 5 AND {within(1)}", 60),
        "max_by_hour_8x10x8h": bucketed("max", f"host < 8 AND {within(8)}", HOUR),
        "mean_by_host_hour_all_12h": bucketed("avg", within(12), HOUR),
        "readings_over_90_12h": asked(
            f"SELECT host, time, value FROM cpu WHERE metric = 0 AND value > 90 AND {within(12)}"
        ),
        "last_of_every_series": asked(
            "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < 999) SELECT n,"
            " (SELECT value FROM cpu WHERE host = n / 10 AND metric = n % 10 ORDER BY time DESC LIMIT 1) FROM s"
        ),
        "raw_1h": asked(f"SELECT time, value FROM cpu WHERE host = 3 AND metric = 0 AND {within(1)}"),
        "raw_24h": asked("SELECT time, value FROM cpu WHERE host = 3 AND metric = 0"),
        "sum_of_everything": asked("SELECT sum(value) FROM cpu"),
    }
    return seconds, lambda: size_of(path), asks


def ours():
    """Medians of the bench of the engine, in milliseconds."""
    command = ["cargo", "bench", "--bench", "engine", "--", "engine/query"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    medians = {}
    for estimates in target.glob("criterion/engine_query/*/new/estimates.json"):
        medians[estimates.parts[-3]] = json.loads(estimates.read_text())["median"]["point_estimate"] / 1e6
    settled = output.split("settled directory ")[1].split(" ")[0]
    return medians, float(settled)


def main():
    values = workload()
    millions = values.size / 1e6
    own, own_size = ours()
    rows = []
    for name, load in [("DuckDB", duck), ("SQLite", lite)]:
        with tempfile.TemporaryDirectory() as path:
            seconds, size, asks = load(values, path)
            times = {question: median_ms(ask) for question, ask in asks.items()}
            rows.append((name, millions / seconds, size() / values.size, times))
    names = [name for name, *_ in rows]
    print(f"| ms | icecore | {' | '.join(names)} | {' | '.join(f'{name}, times' for name in names)} |")
    print("|---|---:|" + "---:|" * (2 * len(names)))
    for question, time_of in own.items():
        if all(question in times for *_, times in rows):
            theirs = [times[question] for *_, times in rows]
            shown = " | ".join(f"{value:.2f}" for value in theirs)
            ratios = " | ".join(f"{value / time_of:.0f}" for value in theirs)
            print(f"| {question} | {time_of:.3f} | {shown} | {ratios} |")
    sizes = " | ".join(f"{size:.2f}" for _, _, size, _ in rows)
    ratios = " | ".join(f"{size / own_size:.0f}" for _, _, size, _ in rows)
    print(f"| bytes a sample, settled | {own_size:.3f} | {sizes} | {ratios} |")
    rates = " | ".join(f"{rate:.2f}" for _, rate, _, _ in rows)
    print(f"| ingest in batches of 10,000, M samples/s | see engine.md | {rates} | |")


main()
