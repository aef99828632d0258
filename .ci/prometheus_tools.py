#!/usr/bin/env python3
"""Real tools of Prometheus against `icecore serve` at ADDRESS (an empty database), read back and compared.

promtool asks; one Prometheus scrapes /metrics and remote-writes what it found; another reads remotely what icecore
holds, and evaluates over it. With the package prometheus-api-client (PyPI) in this Python, pandas gets the data too.
Needs promtool and prometheus in the PATH. Prints a line for each check; ends with "N passed, N failed".
"""
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.parse
import urllib.request

ADDRESS = os.environ["ADDRESS"]
URL = "http://" + ADDRESS
NOW = int(time.time())
START = NOW - 600
HOSTS = 3
COUNT = 41  # samples of each series, 15 s apart
passed = failed = 0


def check(name, work):
    global passed, failed
    try:
        work()
        passed += 1
        print("ok  ", name)
    except Exception:
        failed += 1
        print("FAIL", name)
        traceback.print_exc(limit=3, file=sys.stdout)


def ask(url, path, **parameters):
    with urllib.request.urlopen(url + path + "?" + urllib.parse.urlencode(parameters, True), timeout=30) as answer:
        return json.load(answer)["data"]


def matrix(url, query, start=START, end=NOW, step=15):
    data = ask(url, "/api/v1/query_range", query=query, start=start, end=end, step=step)
    return {json.dumps(s["metric"], sort_keys=True): s["values"] for s in data["result"]}


def wait(what, work, seconds=60):
    end = time.time() + seconds
    while True:
        with contextlib.suppress(OSError, LookupError):
            found = work()
            if found:
                return found
        if time.time() > end:
            raise TimeoutError("waited %d s for %s" % (seconds, what))
        time.sleep(0.2)


def value(k, host):
    return k * (host + 1)


def seed():
    lines = ["# TYPE tool_requests_total counter", "# HELP tool_requests_total Requests."]
    for host in range(HOSTS):
        for k in range(COUNT):
            lines.append('tool_requests_total{instance="host%d:80",job="tool"} %d %d' % (host, value(k, host), (START + 15 * k) * 1000))
    body = "\n".join(lines + [""]).encode()
    with urllib.request.urlopen(urllib.request.Request(URL + "/api/v1/import/prometheus", data=body, method="POST"), timeout=30):
        pass


def promtool(*arguments, stdin=None):
    done = subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def instant():
    out = promtool("query", "instant", URL, "sum(tool_requests_total)", "--time=%d" % NOW)
    assert re.search(r"\{\} => %d @" % sum(value(COUNT - 1, h) for h in range(HOSTS)), out), out


def query_range():
    out = promtool("query", "range", "--start=%d" % START, "--end=%d" % NOW, "--step=1m", URL, "tool_requests_total")
    assert out.count("host") == HOSTS and "%d @[%d]" % (value(COUNT - 1, 2), NOW) in out, out


def series():
    out = promtool("query", "series", "--match=tool_requests_total", URL)
    assert out.count("host") == HOSTS, out


def labels():
    out = promtool("query", "labels", URL, "instance")
    assert [line for line in out.split() if line.startswith("host")] == ["host%d:80" % h for h in range(HOSTS)], out


def check_metrics():
    with urllib.request.urlopen(URL + "/metrics", timeout=30) as page:
        out = promtool("check", "metrics", stdin=page.read().decode())
    assert out == "", out


@contextlib.contextmanager
def prometheus(config):
    """A Prometheus of this configuration on a free port: its URL."""
    directory = tempfile.mkdtemp()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(directory + "/prometheus.yml", "w") as file:
        json.dump(config, file)  # JSON is YAML
    with open(directory + "/log", "w") as log:
        server = subprocess.Popen(
            ["prometheus", "--config.file=" + directory + "/prometheus.yml", "--storage.tsdb.path=" + directory + "/data",
             "--web.listen-address=127.0.0.1:%d" % port], stdout=log, stderr=log)
    try:
        url = "http://127.0.0.1:%d" % port
        wait("prometheus", lambda: urllib.request.urlopen(url + "/-/ready", timeout=5).status == 200)
        yield url
        with open(directory + "/log") as log:
            bad = [line for line in log if "level=error" in line or "level=warn" in line]
            # A scrape or write that the end of this script cuts off is no failure of the server.
            assert not [line for line in bad if "remote" in line.lower() and "context canceled" not in line], bad
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(directory, ignore_errors=True)


def scrape_and_write():
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "icecore", "static_configs": [{"targets": [ADDRESS]}]}],
        "remote_write": [{"url": URL + "/api/v1/write", "metadata_config": {"send_interval": "1s"}}],
    }
    with prometheus(config) as url:
        def points(server):
            found = ask(server, "/api/v1/query", query='icecore_head_samples{job="icecore"}[5m]')["result"]
            return found[0]["values"] if found else []
        wait("five scrapes in icecore", lambda: len(points(URL)) >= 5)
        ours, theirs = points(URL), dict(map(tuple, points(url)))
        for at, text in ours:
            assert theirs.get(at) == text, (at, text, theirs.get(at))
        up = ask(URL, "/api/v1/query", query='up{job="icecore"}')["result"]
        assert up and up[0]["value"][1] == "1", up
        # In OpenMetrics, which is what Prometheus scrapes, a family of counters goes without `_total`.
        kind = wait("metadata", lambda: ask(URL, "/api/v1/metadata", metric="icecore_queries"))
        assert kind["icecore_queries"][0]["type"] == "counter", kind
        targets = ask(url, "/api/v1/targets")["activeTargets"]
        assert targets[0]["health"] == "up" and not targets[0]["lastError"], targets


def read_remotely():
    config = {"remote_read": [{"url": URL + "/api/v1/read", "read_recent": True}]}
    with prometheus(config) as url:
        for query in ("tool_requests_total", "sum by (job) (rate(tool_requests_total[2m]))",
                      'tool_requests_total{instance=~"host[01].*"} * 2', "topk(1, tool_requests_total)",
                      "count({job=\"tool\"})"):
            ours, theirs = matrix(URL, query, START + 120), matrix(url, query, START + 120)
            assert ours and ours == theirs, (query, ours, theirs)


def to_pandas():
    import datetime
    from prometheus_api_client import MetricRangeDataFrame, MetricSnapshotDataFrame, PrometheusConnect
    server = PrometheusConnect(url=URL, disable_ssl=True)
    assert server.check_prometheus_connection()
    assert "tool_requests_total" in server.all_metrics()
    assert sorted(server.get_label_values("job"))[-1] == "tool"
    # Windows are left-open: the first sample lies in one that begins before it.
    start, end = datetime.datetime.fromtimestamp(START - 15), datetime.datetime.fromtimestamp(NOW)
    frame = MetricRangeDataFrame(server.get_metric_range_data("tool_requests_total", start_time=start, end_time=end))
    assert len(frame) == HOSTS * COUNT, len(frame)
    of_host = frame[frame["instance"] == "host2:80"]["value"].astype(float)
    assert list(of_host) == [value(k, 2) for k in range(COUNT)], list(of_host)
    frame = MetricSnapshotDataFrame(server.custom_query("sum by (instance) (tool_requests_total)"))
    assert frame["value"].astype(float).sum() == sum(value(COUNT - 1, h) for h in range(HOSTS)), frame
    found = server.custom_query_range("rate(tool_requests_total[1m])", start, end, "30s")
    assert len(found) == HOSTS and len(found[0]["values"]) > 15, found
    value_now = server.get_current_metric_value("tool_requests_total", {"instance": "host1:80"})
    assert float(value_now[0]["value"][1]) == value(COUNT - 1, 1), value_now


def main():
    seed()
    check("promtool query instant", instant)
    check("promtool query range", query_range)
    check("promtool query series", series)
    check("promtool query labels", labels)
    check("promtool check metrics", check_metrics)
    check("Prometheus scrapes /metrics and remote-writes it", scrape_and_write)
    check("Prometheus reads remotely, and evaluates the same", read_remotely)
    try:
        import prometheus_api_client  # noqa: F401
    except ImportError:
        print("skip prometheus-api-client into pandas: the package is not in this Python")
    else:
        check("prometheus-api-client into pandas", to_pandas)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
