#!/usr/bin/env python3
"""Try the commands of the documentation as they stand, against `icecore serve` with an empty database.

    commands.py ICECORE PYTHON PAGE...

Runs every block of `sh` and `python` in the pages, in order; blocks of other kinds are for reading. A block of sh fails
when one of its commands does, and curl also when the server refuses. PYTHON has the clients installed. Only the ports are
changed, so that no other server is met. Ends with "N passed, M failed".
"""
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/readback")
from readback import Server  # noqa: E402

# Answers without data.
EMPTY = re.compile(r'"(series|result|data_points|data)":\[\s*\]|"events":\[\],"next"|\}\[\]')
PREAMBLE = """set -e -o pipefail
curl() { command curl -sS --fail-with-body "$@"; }
export -f curl
"""


def blocks(page):
    """(line, language, text) of each block to run; those that build are for people."""
    text = open(page, encoding="utf-8").read()
    for match in re.finditer(r"^```(sh|python)\n(.*?)^```", text, re.M | re.S):
        if not match[2].startswith("cargo "):
            yield text.count("\n", 0, match.start()) + 1, match[1], match[2]


def run(language, text, python):
    """Whether it failed, and its output. What reads tries again while nothing is there yet."""
    command = [python, "-"] if language == "python" else ["bash", "-c", PREAMBLE + text]
    for _ in range(20):
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
        output = done.stdout + done.stderr
        if not EMPTY.search(output):
            return done.returncode != 0 or "Traceback" in output or "WARNING" in output, output
        time.sleep(0.5)
    return True, output


def main():
    binary, python, pages = sys.argv[1], sys.argv[2], sys.argv[3:]
    passed = failed = 0
    with tempfile.TemporaryDirectory() as directory:
        server = Server(binary, directory + "/db")
        try:
            for page in pages:
                for line, language, text in blocks(page):
                    text = text.replace("9090", str(server.port)).replace("9125", str(server.udp))
                    wrong, output = run(language, text.replace("localhost", "127.0.0.1"), python)
                    passed, failed = passed + (not wrong), failed + wrong
                    if wrong:
                        print("FAIL %s:%d\n%s" % (page, line, output[-2000:]))
        finally:
            server.stop()
    print("%d passed, %d failed" % (passed, failed))
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
