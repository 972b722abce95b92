"""deploy/kafka as a script: how it is used wrongly, how it fetches its jars, and a broker
that is started, killed, started again and stopped; then `clickledger topics` against it.

    CLICKLEDGER_BIN=build/dev/clickledger tests/deploy/test_kafka_script.py
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KAFKA = os.path.join(ROOT, "deploy", "kafka")
BIN = os.environ.get("CLICKLEDGER_BIN", "build/dev/clickledger")
# A Maven that has one jar, counts its calls, and takes its time.
MVN = """#!/bin/sh
echo call >>"$CALLS"
sleep 0.5
[ "$MVN_FAILS" = "" ] || { echo "[ERROR] no route to host"; exit 1; }
for word in "$@"; do case $word in -DoutputDirectory=*) out=${word#*=} ;; esac; done
touch "$out/kafka_2.13-$MVN_VERSION.jar" "$out/other.jar"
"""
JAVA = "#!/bin/sh\necho 'openjdk version \"17.0.1\"' >&2\n"


def run(*words, **env):
    done = subprocess.run([KAFKA, *map(str, words)], capture_output=True, text=True, timeout=200,
                          env={**os.environ, **env}, stdin=subprocess.DEVNULL, check=False)
    return done.returncode, done.stdout, done.stderr


def free_ports():
    """A port whose hundredth next is free too, below those that the kernel hands out."""
    for port in range(27000 + os.getpid() % 1000, 32000, 3):
        try:
            for each in (port, port + 100):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", each))
            return port
        except OSError:
            pass
    raise unittest.SkipTest("no free port")


class Script(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="clickledger-kafka-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.calls = os.path.join(self.dir, "calls")
        self.cache = os.path.join(self.dir, "cache")

    def tools(self, mvn=MVN, java=JAVA):
        """A PATH with what the script needs, and these two or without them."""
        path = tempfile.mkdtemp(dir=self.dir)
        for tool in ("bash", "sh", "cat", "cut", "dirname", "echo", "flock", "grep", "head", "mkdir", "mv",
                     "rm", "sed", "sleep", "tail", "touch", "tr"):
            if shutil.which(tool):
                os.symlink(shutil.which(tool), os.path.join(path, tool))
        for name, text in (("mvn", mvn), ("java", java)):
            if text is not None:
                with open(os.path.join(path, name), "w", encoding="ascii") as file:
                    file.write(text)
                os.chmod(os.path.join(path, name), 0o755)
        return path

    def fetch(self, path, version="4.1.0", **env):
        return run("fetch", "--version", version, PATH=path, XDG_CACHE_HOME=self.cache,
                   CALLS=self.calls, MVN_VERSION=version, **env)

    def calls_n(self):
        with open(self.calls, encoding="ascii") as file:
            return len(file.readlines())

    def test_wrong_use_is_one_line_and_2(self):
        for words, named in ((["start"], "directory"), (["broker", self.dir], "number"),
                             (["frob", self.dir], "frob"), (["start", self.dir, "--port"], "--port"),
                             (["start", self.dir, "--port", "x"], "--port"),
                             (["start", self.dir, "--brokers", "0"], "--brokers"),
                             (["start", self.dir, "--brokers", "10"], "--brokers"),
                             (["start", self.dir, "--version", "four"], "--version"),
                             (["stop", self.dir, "--port", "1"], "--port")):
            code, out, err = run(*words)
            self.assertEqual((code, out, err.count("\n")), (2, "", 1), (words, err))
            self.assertIn(named, err)
        code, out, _ = run("--help")
        self.assertEqual(code, 0)
        self.assertIn("deploy/kafka start DIR", out)

    def test_without_java_or_maven_it_says_what_to_install(self):
        code, _, err = self.fetch(self.tools(java=None))
        self.assertEqual((code, err.count("\n")), (1, 1), err)
        self.assertIn("Java is not installed", err)
        code, _, err = self.fetch(self.tools(java=JAVA.replace("17.0", "11.0")))
        self.assertEqual(code, 1)
        self.assertIn("Java 11 is too old", err)
        code, _, err = self.fetch(self.tools(mvn=None))
        self.assertEqual((code, err.count("\n")), (1, 1), err)
        self.assertIn("Maven is not installed", err)

    def test_a_registry_out_of_reach_is_named_and_nothing_is_kept(self):
        path = self.tools()
        code, _, err = self.fetch(path, MVN_FAILS="1")
        self.assertEqual(code, 1)
        self.assertIn("no route to host", err)
        self.assertIn("within reach", err)
        self.assertFalse(os.path.exists(os.path.join(self.cache, "clickledger", "kafka-4.1.0")))
        code, out, err = self.fetch(path)
        self.assertEqual(code, 0, err)
        self.assertEqual(self.calls_n(), 2)

    def test_half_a_fetch_is_not_taken_for_a_whole_one(self):
        part = os.path.join(self.cache, "clickledger", "kafka-4.1.0.part", "jars")
        os.makedirs(part)
        with open(os.path.join(part, "kafka_2.13-4.1.0.jar"), "w", encoding="ascii"):
            pass
        code, out, err = self.fetch(self.tools())
        self.assertEqual(code, 0, err)
        self.assertEqual(self.calls_n(), 1)
        self.assertIn("other.jar", os.listdir(out.strip()))

    def test_a_fetch_without_kafka_in_it_is_refused(self):
        code, _, err = self.fetch(self.tools(mvn=MVN.replace("kafka_2.13", "something")))
        self.assertEqual(code, 1)
        self.assertIn("no kafka_2.13-4.1.0.jar", err)

    def test_two_at_once_fetch_once(self):
        path = self.tools()
        env = {**os.environ, "PATH": path, "XDG_CACHE_HOME": self.cache, "CALLS": self.calls,
               "MVN_VERSION": "4.1.0"}
        both = [subprocess.Popen([KAFKA, "fetch"], env=env, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL) for _ in range(2)]
        self.assertEqual([each.wait(30) for each in both], [0, 0])
        self.assertEqual(self.calls_n(), 1)


class Broker(unittest.TestCase):
    def setUp(self):
        if run("fetch")[0] != 0:
            self.skipTest("no Java, or Kafka's jars cannot be fetched")
        self.dir = tempfile.mkdtemp(prefix="clickledger-kafka-")
        self.port = free_ports()
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.addCleanup(run, "stop", self.dir)

    def pid(self):
        with open(os.path.join(self.dir, "kafka", "1", "pid"), encoding="ascii") as file:
            return int(file.read())

    def topics(self, *words):
        env = {k: v for k, v in os.environ.items() if not k.startswith("CLICKLEDGER_")}
        done = subprocess.run(
            [BIN, "topics", *words, f"--kafka.brokers=127.0.0.1:{self.port}", "--clicklog.partitions=2"],
            capture_output=True, text=True, timeout=60, env=env, check=False)
        return done.returncode, done.stdout, done.stderr

    def topics_try(self):
        code, out, err = self.topics("check", "--json", "--kafka.replication=1", "--kafka.min_insync=1")
        self.assertEqual(code, 1, err)
        self.assertEqual({row["fix"] for row in json.loads(out)}, {"clickledger topics create"})
        code, out, err = self.topics("create", "--json")
        self.assertEqual((code, json.loads(out)), (78, []), err)  # 3 copies, with 1 broker
        self.assertIn("eplication", err)
        one = ("--kafka.replication=1", "--kafka.min_insync=1")
        code, out, err = self.topics("create", "--json", *one)
        self.assertEqual((code, err), (0, ""))
        self.assertEqual([row["topic"] for row in json.loads(out)][0], "raw_clicks")
        code, out, err = self.topics("check", *one)
        self.assertEqual((code, out, err), (0, "topics are good\n", ""))
        code, out, err = self.topics("check", "--kafka.retention_h=1000", *one)
        self.assertEqual(code, 1)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertIn("--add-config retention.ms=3600000000", out)

    def test_a_broker_is_started_killed_started_again_and_stopped(self):
        code, _, err = run("start", self.dir, "--port", self.port)
        self.assertEqual(code, 0, err)
        with open(os.path.join(self.dir, "kafka.env"), encoding="ascii") as file:
            self.assertEqual(file.read(), f'CLICKLEDGER_KAFKA_BROKERS="127.0.0.1:{self.port}"\n')
        first = self.pid()
        self.assertEqual(run("start", self.dir)[0], 0)  # what runs is left alone
        self.assertEqual(self.pid(), first)
        code, _, err = run("start", self.dir, "--brokers", 3)
        self.assertEqual((code, err.count("\n")), (1, 1))
        code, _, err = run("broker", self.dir, 2)
        self.assertEqual(code, 2)
        self.topics_try()
        os.kill(first, signal.SIGKILL)
        time.sleep(0.2)
        code, _, err = run("broker", self.dir, 1)
        self.assertEqual(code, 0, err)
        code, out, err = self.topics("check", "--kafka.replication=1", "--kafka.min_insync=1")
        self.assertEqual((code, out), (0, "topics are good\n"), err)
        # A stopped process cannot end before it is woken.
        os.kill(self.pid(), signal.SIGSTOP)
        began = time.monotonic()
        self.assertEqual(run("stop", self.dir), (0, "", ""))
        self.assertLess(time.monotonic() - began, 15)
        self.assertEqual(run("stop", self.dir), (0, "", ""))
        with socket.socket() as s:
            s.bind(("127.0.0.1", self.port))
            s.listen()
            code, _, err = run("start", self.dir)
        self.assertEqual(code, 1)
        self.assertIn(f"port {self.port} is taken", err)

    def test_a_process_that_is_not_ours_is_never_ended(self):
        with subprocess.Popen(["sleep", "60"]) as other:
            os.makedirs(os.path.join(self.dir, "kafka", "1"))
            with open(os.path.join(self.dir, "kafka", "settings"), "w", encoding="ascii") as file:
                file.write(f"brokers=1\nport={self.port}\nversion=4.1.0\n")
            with open(os.path.join(self.dir, "kafka", "1", "pid"), "w", encoding="ascii") as file:
                file.write(f"{other.pid}\n")
            self.assertEqual(run("stop", self.dir)[0], 0)
            self.assertIsNone(other.poll())
            other.kill()


if __name__ == "__main__":
    sys.exit(unittest.main())
