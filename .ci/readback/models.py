"""What a database must hold after a recording: written from the recording and `docs/clients.md`, not from the server.

A model takes the records of a recording in parts and compares itself with a server. Doubles are compared by their bits.
"""
import base64
import calendar
import json
import math
import re
import struct
import urllib.parse
import urllib.request
from datetime import datetime

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, math.inf)
# Series of the server's own.
OWN = re.compile(r"icecore_.*|session_(log|info|events)|push_(failure_)?time_seconds")
STALE = "stale"


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.loads(answer.read().decode())


def token(value):
    """A double by its bits, NaN as one; a staleness marker, an integer or a text as it is."""
    if value in ("NaN", "+Inf", "-Inf"):
        value = float(value)
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else struct.pack(">d", value).hex()
    return value


def nanos(text):
    """RFC 3339 in nanoseconds, exactly."""
    whole, fraction = re.fullmatch(r"([-\dT:]+)(?:\.(\d+))?(?:Z|\+00:00)", text).groups()
    moment = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S")
    return calendar.timegm(moment.timetuple()) * 10**9 + int((fraction or "0").ljust(9, "0"))


def key(name, labels):
    return name, tuple(sorted((k, v) for k, v in labels.items() if v != ""))


def stored(url):
    """Every series of the server: (name, tags) -> [(time, value)]."""
    found = {}
    for piece in get(url + "/api/query?selector=%7B%7D")["series"]:
        rows = zip(piece["columns"]["time"], piece["columns"]["value"])
        found.setdefault(key(piece["name"], piece["tags"]), []).extend(rows)
    return {k: rows for k, rows in found.items() if not OWN.fullmatch(k[0])}


class Model:
    """A recording's worlds; each one ignores what is not its own."""

    def __init__(self):
        self.worlds = [Ubiops(), Pushgateway(), Sessions(), Statsd()]

    def add(self, records, session, began, ended):
        for world in self.worlds:
            world.began, world.ended = began, ended
            for record in records:
                if record["kind"] == "udp":
                    world.datagram(bytes.fromhex(record["hex"]))
                elif 200 <= record["reply_status"] < 300:
                    body = record.get("body_decoded") if record["content_encoding"] else record["body"]
                    world.request(record["method"], record["path"], body or "", session)

    def compare(self, url):
        """What is wrong: missing, other, or there without having been sent."""
        there = stored(url)
        wrong = []
        for world in self.worlds:
            wrong += world.compare(there, url)
        return wrong + ["%s{%s} was never sent" % k for k in there]

    def count(self):
        return sum(world.count for world in self.worlds)


class World:
    count = 0

    def request(self, method, path, body, session):
        pass

    def datagram(self, data):
        pass

    def compare(self, there, url):
        return []


class Ubiops(World):
    """Points of series at the microseconds sent; those of one microsecond follow each other by nanoseconds."""

    def __init__(self):
        self.points, self.metrics = {}, {}

    def request(self, method, path, body, session):
        match = re.fullmatch(r"/v[\d.]+/projects/([^/]+)/(time-series/(?:aggregate|data)|metrics(?:/([^/]+))?)", path)
        if not match:
            return
        project, what, name = (urllib.parse.unquote(part or "") for part in match.groups())
        if what.startswith("time-series") and method == "POST":
            elements = json.loads(body)
            for element in elements if isinstance(elements, list) else [elements]:
                own = key(element["metric"], {**element["labels"], "project": project})
                rows = self.points.setdefault(own, {})
                before = {}
                for point in element["data"]:
                    time = nanos(point["date"])
                    rows[time + before.get(time, 0)] = token(float(point["value"]))
                    before[time] = before.get(time, 0) + 1
        elif method == "POST":
            metric = json.loads(body)
            self.metrics[project, metric["name"]] = metric
        elif method == "PATCH":
            self.metrics[project, name].update(json.loads(body))
        elif method == "DELETE":
            self.metrics[project, name] = None
            self.points = {k: v for k, v in self.points.items() if k[0] != name}

    def compare(self, there, url):
        wrong = []
        for own, rows in self.points.items():
            found = [(time, token(value)) for time, value in there.pop(own, [])]
            if found != sorted(rows.items()):
                wrong.append("%s: %d points, sent %d, or others" % (own, len(found), len(rows)))
        for (project, name), metric in self.metrics.items():
            base = "%s/v2.1/projects/%s/metrics" % (url, urllib.parse.quote(project, safe=""))
            found = {entry["name"]: entry for entry in get(base)}.get(name)
            if metric is None:
                wrong += ["metric %s is still there" % name] if found else []
            elif found is None or any(found[k] != v for k, v in metric.items()):
                wrong.append("metric %s: %s, sent %s" % (name, found, metric))
        self.count = sum(map(len, self.points.values())) + len(self.metrics)
        return wrong


SAMPLE = re.compile(r'([^\s{]+)(?:\{(.*)\})? (\S+)')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Pushgateway(World):
    """The values of each series in the order pushed; a series that a push ends has a staleness marker behind them."""

    def __init__(self):
        self.groups, self.values, self.span = {}, {}, {}

    @staticmethod
    def group(path):
        """The labels that a path names."""
        parts, labels = path.split("/")[2:], {}
        for name, value in zip(parts[::2], parts[1::2]):
            if name.endswith("@base64"):
                value = value.rstrip("=")
                value = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode()
                labels[name[:-len("@base64")]] = value
            else:
                labels[name] = urllib.parse.unquote(value)
        return labels

    @staticmethod
    def families(page, group):
        """family -> series -> value."""
        families, family = {}, None
        for line in page.splitlines():
            if line.startswith("# TYPE "):
                family = line.split(" ")[2]
            if line.startswith("#") or not line:
                continue
            name, labels, value = SAMPLE.fullmatch(line).groups()
            unescape = lambda text: re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), text)
            labels = {k: unescape(v) for k, v in LABEL.findall(labels or "")}
            families.setdefault(family, {})[key(name, {**labels, **group})] = token(float(value))
        return families

    def request(self, method, path, body, session):
        if not path.startswith("/metrics/job"):
            return
        labels = self.group(path)
        own = tuple(sorted(labels.items()))
        before = self.groups.get(own, {})
        pushed = self.families(body, labels)
        after = {} if method == "DELETE" else {**(before if method == "POST" else {}), **pushed}
        for family in pushed.values():
            for series, value in family.items():
                self.values.setdefault(series, []).append(value)
                self.span.setdefault(series, self.began)
        series = lambda families: {series for family in families.values() for series in family}
        for ended in series(before) - series(after):
            self.values[ended].append(STALE)
        self.groups[own] = after

    def compare(self, there, url):
        wrong = []
        for series, values in self.values.items():
            rows = there.pop(series, [])
            found = [token(value) for _, value in rows]
            if found != values:
                wrong.append("%s: %s, pushed %s" % (series, found, values))
            if any(not self.span[series] <= time <= self.ended for time, _ in rows):
                wrong.append("%s: a time that is not that of its push" % (series,))
        self.count = sum(map(len, self.values.values()))
        return wrong


class Sessions(World):
    """A session's metrics, events and states with all that was said of them."""

    def __init__(self):
        self.id, self.info, self.events, self.metrics, self.ended_by = None, {}, [], [], None
        self.states, self.heartbeats = [], 0

    def request(self, method, path, body, session):
        if method != "POST" or not path.startswith("/api/sessions"):
            return
        self.id = session
        call = path.rsplit("/", 1)[1]
        body = json.loads(body or "null")
        if call == "sessions":
            self.info = body
        elif call == "events":
            self.events.append(body)
        elif call == "metrics":
            self.metrics.append(body)
        elif call == "state":
            self.states.append(body["state"] if set(body) == {"state", "timestamp"} else body)
        elif call == "heartbeat":
            self.heartbeats += 1
        elif call in ("end", "crash"):
            self.ended_by = call

    def state(self):
        state = {"product": self.info["product"], "version": self.info["version"]}
        for patch in self.states:
            merge(state, patch)
        return state

    def compare(self, there, url):
        if not self.id:
            return []
        shown = get("%s/api/sessions/%s" % (url, self.id))
        wrong = ["%s: %r, sent %r" % (k, shown[k], v) for k, v in self.info.items() if shown[k] != v]
        if shown["state"] != self.state() or len(shown["state_history"]) != len(self.states):
            wrong.append("state: %s, sent %s" % (shown["state"], self.state()))
        if bool(self.heartbeats) != bool(shown["last_heartbeat"]):
            wrong.append("last_heartbeat: %s after %d" % (shown["last_heartbeat"], self.heartbeats))
        if (shown["status"] == "ended") != (self.ended_by == "end"):
            wrong.append("status: %s" % shown["status"])
        wrong += self.all_there("events", self.events, shown["events"])
        wrong += self.all_there("metrics", self.metrics, shown["metrics"])
        found = get("%s/api/events?limit=10000&session=%s" % (url, self.id))["events"]
        wrong += self.all_there("/api/events", self.events, found)
        # The same values as samples of series, in order of time.
        samples = {}
        for series in [k for k in there if dict(k[1]).get("session") == self.id]:
            samples.setdefault(series[0], []).extend(token(value) for _, value in there.pop(series))
        sent = {}
        for metric in self.metrics:
            sent.setdefault(metric["name"], []).append(token(float(metric["value"])))
        if {k: sorted(v) for k, v in samples.items()} != {k: sorted(v) for k, v in sent.items()}:
            wrong.append("samples: %s, sent %s" % (samples, sent))
        self.count = len(self.events) * 2 + len(self.metrics) * 2 + len(self.states) + 1
        return wrong

    @staticmethod
    def all_there(what, sent, found):
        """Each thing sent stands for one found; nothing else is there."""
        found, wrong = list(found), []
        for one in sent:
            match = next((other for other in found if same(one, other)), None)
            if match is None:
                wrong.append("%s: %s is not among %s" % (what, one, found))
            else:
                found.remove(match)
        return wrong + ["%s: %s was never sent" % (what, other) for other in found]


def merge(state, patch):
    for k, v in patch.items():
        if v is None:
            state.pop(k, None)
        elif isinstance(v, dict):
            if not isinstance(state.get(k), dict):
                state[k] = {}
            merge(state[k], v)
        else:
            state[k] = v


def same(sent, found):
    """Whether all that was sent is found as it was. Absent, empty and null are one."""
    for name, value in {"tags": None, "unit": None, "count": None, "metadata": None, **sent}.items():
        other = found.get(name)
        if name == "timestamp" and not value.startswith("0001"):
            # Equal times of one series are told apart below the client's resolution.
            if not 0 <= nanos(other) - nanos(value) < 1000:
                return False
        elif name == "value":
            if token(float(value)) != token(float(other)):
                return False
        elif name != "timestamp" and (value or None) != (other or None):
            return False
    return True


class Statsd(World):
    """What aggregates come to: sums of counters, last gauges, counts and sums of histograms, sizes of sets."""

    def __init__(self):
        self.series, self.timed, self.events, self.refused = {}, {}, 0, 0

    def datagram(self, data):
        for line in data.decode().split("\n"):
            if line.startswith(("_e{", "_sc|")):
                self.events += 1
            elif line:
                self.line(line)

    def line(self, line):
        head, *fields = line.split("|")
        name, value = head.rsplit(":", 1)
        kind, labels, rate, time = fields[0], {}, 1.0, None
        for field in fields[1:]:
            if field.startswith("#"):
                labels = tags(field[1:])
            elif field.startswith("@"):
                rate = float(field[1:])
            elif field.startswith("T"):
                time = int(field[1:])
        try:
            number = value if kind == "s" else float(value)
        except ValueError:
            self.refused += 1
            return
        if time is not None:
            self.timed[key(name, labels)] = (time * 10**9, number)
            return
        put = lambda suffix, change, start=0.0, more=(): self.series.__setitem__(
            key(name + suffix, {**labels, **dict(more)}),
            change(self.series.get(key(name + suffix, {**labels, **dict(more)}), start)))
        if kind == "c":
            put("", lambda old: old + number / rate)
        elif kind == "g":
            put("", lambda old: number)
        elif kind == "s":
            put("", lambda old: old | {number}, frozenset())
        else:
            # Timers come in milliseconds and are kept in the unit sent.
            put("_count", lambda old: old + 1 / rate)
            put("_sum", lambda old: old + number / rate)
            for bound in BUCKETS:
                le = "+Inf" if math.isinf(bound) else repr(bound)
                put("_bucket", lambda old: old + (1 / rate if number <= bound else 0), 0.0, [("le", le)])

    def compare(self, there, url):
        if not self.series:
            return []
        wrong = []
        for series, value in self.series.items():
            rows = there.pop(series, None)
            wanted = float(len(value)) if isinstance(value, frozenset) else value
            # A set is counted anew in each interval.
            row = max(rows, key=lambda row: row[1]) if rows and isinstance(value, frozenset) else rows and rows[-1]
            last = float(row[1]) if row else None
            fits = last is not None and (
                math.isclose(last, wanted, rel_tol=1e-12) or (math.isnan(last) and math.isnan(wanted)))
            if not fits:
                wrong.append("%s: %s, sent %s" % (series, last, wanted))
        for series, (time, value) in self.timed.items():
            rows = there.pop(series, [])
            if [(at - at % 10**9, float(found)) for at, found in rows] != [(time, value)]:
                wrong.append("%s: %s, sent %s" % (series, rows, (time, value)))
        found = [k for k in there if k[0] in ("dogstatsd_event", "dogstatsd_service_check")]
        count = sum(len(there.pop(k)) for k in found)
        if count != self.events:
            wrong.append("%d events, sent %d" % (count, self.events))
        self.count = len(self.series) + len(self.timed) + self.events
        return wrong


def tags(text):
    """`k:v` is k=v (first colon), a bare word is word=true, a key without a value is nothing."""
    labels = {}
    for tag in text.split(","):
        name, colon, value = tag.partition(":")
        labels[name] = value if colon else "true"
    return labels
