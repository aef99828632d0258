#!/usr/bin/env python3
"""Replay the recordings of real clients at a server of our own, and read every point, event and state back.

    readback.py CLIENTS ICECORE

CLIENTS is the folder with replay.py and golden/, ICECORE the binary. Each recording gets a server with an empty
database. What must be there follows from the recording alone (models.py); what is there is read through /api/query,
/api/sessions and /api/events. A recording is cut at its deletions, so that what is deleted is seen before and gone after.
Then the server is stopped, started again, and everything is read once more.

At the end the same checks run against a server that answers 200 to everything: each of them must fail.
Ends with "N passed, M failed". Only the standard library.
"""
import glob
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import models


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """`icecore serve` on a directory."""

    def __init__(self, binary, directory):
        self.binary, self.directory = binary, directory
        self.start()

    def start(self):
        self.port, self.udp = free_port(), free_port()
        self.url, self.statsd = "http://127.0.0.1:%d" % self.port, "127.0.0.1:%d" % self.udp
        self.process = subprocess.Popen(
            [self.binary, "serve", "--data", self.directory, "--listen", "127.0.0.1:%d" % self.port,
             "--statsd", self.statsd, "--statsd-interval", "1s", "--log", "error"], stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                urllib.request.urlopen(self.url + "/-/ready", timeout=5).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("the server does not start")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            raise AssertionError("the server stopped with %d" % self.process.returncode)

    def restart(self):
        self.stop()
        self.start()


class YesMan:
    """Answers 200 and a plausible object to everything."""

    def __init__(self):
        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = json.dumps({"session_id": "018cc251-f400-7000-8000-000000000001", "status": "ok"}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        self.statsd = "127.0.0.1:%d" % free_port()

    def stop(self):
        self.server.shutdown()

    def restart(self):
        pass


def parts(records):
    """The recording cut before and behind each stretch of deletions."""
    cut = []
    for record in records:
        deletes = record["kind"] == "http" and record["method"] == "DELETE"
        if cut and cut[-1][0] == deletes:
            cut[-1][1].append(record)
        else:
            cut.append((deletes, [record]))
    return [records for _, records in cut]


def check(replay, path, server, patience):
    """Replays one recording; returns what is wrong, and how much was compared."""
    records = replay.load(path)
    model = models.Model()
    for part in parts(records):
        with tempfile.NamedTemporaryFile("w", suffix="_" + os.path.basename(path), encoding="utf-8") as file:
            file.write("".join(json.dumps(record) + "\n" for record in part))
            file.flush()
            began = time.time_ns()
            count, bad, session = replay.replay_http(file.name, server.url, now=False)
            sent = replay.replay_udp(file.name, server.statsd)
        if bad:
            return bad, 0
        model.add(part, session, began, time.time_ns())
        if count + sent != len(part):
            return ["%d of %d records were sent" % (count + sent, len(part))], 0
        wrong = settle(model, server, patience)
        if wrong:
            return wrong, 0
    server.restart()
    return settle(model, server, patience), model.count()


def settle(model, server, patience):
    """Compares, again and again for a while: datagrams become samples at an interval."""
    end = time.time() + patience
    while True:
        try:
            wrong = model.compare(server.url)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            wrong = ["the answer cannot be read: %r" % error]
        if not wrong or time.time() > end:
            return wrong
        time.sleep(0.3)


def main():
    clients, binary = sys.argv[1], os.path.abspath(sys.argv[2])
    sys.path.insert(0, clients)
    import replay

    passed = failed = 0
    for path in sorted(glob.glob(os.path.join(clients, "golden", "*.jsonl"))):
        name = os.path.basename(path)
        with tempfile.TemporaryDirectory() as directory:
            server = Server(binary, os.path.join(directory, "db"))
            try:
                wrong, compared = check(replay, path, server, 8)
            finally:
                if server.process.poll() is None:
                    server.stop()
        fooled, _ = check(replay, path, YesMan(), 0)
        if not fooled:
            wrong = wrong + ["a server that answers 200 to everything passes as well"]
        print("%-4s %-32s %d things read back, twice" % ("FAIL" if wrong else "ok", name, compared))
        for line in wrong[:20]:
            print("     " + line)
        sys.stdout.flush()
        passed, failed = passed + (not wrong), failed + bool(wrong)
    print("%d passed, %d failed" % (passed, failed))
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
