"""A stage that runs alone serves /livez and /metrics, and nothing else. Needs the servers:

    CLICKLEDGER_TEST_PG=... CLICKLEDGER_TEST_REDIS=... CLICKLEDGER_BIN=build/dev/clickledger \\
        tests/deploy/test_telemetry.py
"""
import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import unittest

BIN = os.environ.get("CLICKLEDGER_BIN", "build/dev/clickledger")
PG = os.environ.get("CLICKLEDGER_TEST_PG", "")
REDIS = os.environ.get("CLICKLEDGER_TEST_REDIS", "")
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def sql(statement):
    subprocess.run(["psql", "-q", "-X", "-c", statement, PG], check=True, timeout=30)


class Telemetry(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="clickledger-telemetry-")
        self.addCleanup(self.dir.cleanup)
        self.base = f"telemetry_{os.getpid()}"
        sql(f"CREATE DATABASE {self.base}")
        self.addCleanup(sql, f"DROP DATABASE {self.base} WITH (FORCE)")

    def start(self, stage, port, *flags):
        env = {k: v for k, v in os.environ.items() if not k.startswith("CLICKLEDGER_")}
        env["CLICKLEDGER_POSTGRES_CONNINFO"] = f"{PG} dbname={self.base}"
        child = subprocess.Popen([BIN, stage, f"--data.dir={self.dir.name}/data",
                                  f"--redis.address={REDIS}", *flags], env=env,
                                 stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        until = time.monotonic() + 30
        while True:
            try:
                if self.ask(port, "/livez")[0] == 200:
                    return child
            except OSError:
                pass
            self.assertIsNone(child.poll(), f"{stage} ended by itself")
            self.assertLess(time.monotonic(), until, f"{stage} does not answer")
            time.sleep(0.05)

    def ask(self, port, path, method="GET"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type"), answer.read().decode()
        finally:
            connection.close()

    def exposition(self, text):
        """As Prometheus takes it: a family is one block, with its HELP and TYPE first."""
        families, kind, family = [], None, None
        self.assertTrue(text.endswith("\n"))
        for line in text.splitlines():
            words = line.split(" ", 3)
            if words[0] == "#" and words[1] == "HELP":
                family, kind = words[2], None
                self.assertNotIn(family, families, "a family in two places")
                self.assertTrue(len(words) > 3 and words[3], line)
                families.append(family)
            elif words[0] == "#":
                self.assertEqual(words[1:3], ["TYPE", family], line)
                kind = words[3]
                self.assertIn(kind, ("counter", "gauge", "histogram"))
            else:
                name = NAME.match(line).group()
                suffix = name[len(family):]
                self.assertTrue(name.startswith(family), line)
                self.assertIn(suffix, ("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
                self.assertRegex(line[len(name):], r'^(\{[a-z_]+="[^"\\\n]*"(,[a-z_]+="[^"\\\n]*")*\})? -?[0-9.e+-]+$')
        return families

    def test_a_lone_aggregate_is_alive_and_measured(self):
        clicks, port = free_port(), free_port()
        ingest = self.start("ingest", clicks, f"--ingest.port={clicks}")  # it makes the log
        aggregate = self.start("aggregate", port, f"--metrics.port={port}")
        self.assertEqual(self.ask(port, "/livez")[2], "alive\n")
        status, kind, text = self.ask(port, "/metrics")
        self.assertEqual((status, kind), (200, "text/plain; version=0.0.4"))
        families = self.exposition(text)
        for name in ("clickledger_aggregate_lag_records", "clickledger_aggregate_lag_seconds"):
            self.assertIn(name, families)
            self.assertRegex(text, name + r'\{partition="0"\} 0\n')
        self.assertIn('clickledger_aggregate_lag_seconds{worker="0"} ', text)
        self.exposition(self.ask(clicks, "/metrics")[2])
        for path in ("/", "/nothing", "/v1/clicks", "/metrics/", "/livez?x=1/../y"):
            status, kind, text = self.ask(port, path)
            want = 200 if path.startswith("/livez?") else 404
            self.assertEqual(status, want, path)
        self.assertEqual(self.ask(port, "/metrics", "POST")[0], 405)
        self.assertEqual(self.ask(port, "/metrics", "HEAD")[::2], (200, ""))
        for child in (aggregate, ingest):
            child.terminate()
            self.assertEqual(child.wait(30), 0)


if __name__ == "__main__":
    if not PG or not REDIS:
        print("skipped: no servers (CLICKLEDGER_TEST_PG, CLICKLEDGER_TEST_REDIS)")
        sys.exit(77)
    unittest.main()
