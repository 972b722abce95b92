"""The product over Apache Kafka: brokers, a process a stage, and proxies in between.

    stack = KafkaStack(brokers=1, aggregators=2, cuttable=("relay", "aggregate1", "archive"))
    stack.start_all()                   servers, brokers, topics, processes
    stack.kill("aggregate1")            SIGKILL; .freeze and .thaw: SIGSTOP and SIGCONT
    stack.start("aggregate1")
    stack.broker_kill(1), .broker_start(1)
    stack.lines["relay"][0].freeze()    the network between the relay and broker 1
    stack.redis_lines["aggregate1"]     ... between an aggregate process and Redis

Stages: ingest, relay, archive and dashboard share one data directory, as on one machine; each
aggregate process has its own. Without a Kafka in reach (deploy/kafka fetches it) tests skip.
"""
import os
import random
import signal
import socket
import subprocess
import sys
import time

import harness
import proxy
from harness import Failed, Stack, check

KAFKA = os.path.join(harness.ROOT, "deploy", "kafka")
PORTS = range(21700, 21790, 3)
STAGES = ("ingest", "relay", "archive", "dashboard")


def kafka_or_skip():
    """Java and the jars, or the test is skipped."""
    done = subprocess.run([KAFKA, "fetch"], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        print(f"skipped: {done.stderr.strip()}", file=sys.stderr)
        sys.exit(harness.SKIPPED)


def ports_free(ports):
    for port in ports:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def ports_choose(brokers, lines):
    """A first port with all of deploy/kafka's free; proxies listen between 110 and 199 above."""
    starts = list(PORTS)
    random.shuffle(starts)
    for first in starts:
        wanted = [first + base + k for k in range(brokers)
                  for base in [0, 100] + [at + 10 * i for i in range(lines) for at in (110, 200)]]
        if ports_free(wanted):
            return first
    raise Failed(f"no free ports for Kafka from {PORTS[0]} on")


class KafkaStack(Stack):
    def __init__(self, config=None, brokers=1, aggregators=2, cuttable=(), stages=(),
                 **options):
        self.brokers_n, self.cuttable = brokers, list(cuttable)
        self.between = brokers > 1 and bool(cuttable)
        count = len(self.cuttable) + self.between
        check(count <= 8, "at most 8 lines can be cut")
        self.kafka_port = ports_choose(brokers, count)
        self.lines, self.redis_lines, self.procs = {}, {}, {}
        self.stages = stages  # () is one process each
        self.aggregators = [f"aggregate{i + 1}" for i in range(aggregators)]
        self.prefix = f"e2e{random.getrandbits(32):08x}."
        settings = {
            "kafka.brokers": self.addresses(), "kafka.topic_prefix": self.prefix,
            "kafka.replication": 3 if brokers >= 3 else 1,
            "kafka.min_insync": 2 if brokers >= 3 else 1,
            "kafka.session_ms": 1500, "kafka.delivery_ms_max": 2000, "ingest.ack_ms_max": 3000,
        }
        settings.update(config or {})
        super().__init__(settings, **options)

    # -- brokers --------------------------------------------------------------------------

    def addresses(self, line=None):
        first = self.kafka_port if line is None else self.kafka_port + 110 + 10 * line
        return ",".join(f"127.0.0.1:{first + k}" for k in range(self.brokers_n))

    def kafka(self, *words):
        done = subprocess.run([KAFKA, words[0], self.dir, *map(str, words[1:])], env=self.env,
                              text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              timeout=120, check=False)
        self.brokers_note()
        check(done.returncode == 0, f"deploy/kafka {' '.join(map(str, words))}: "
                                    f"{done.stderr.strip()}")

    def brokers_note(self):
        for k in range(1, self.brokers_n + 1):
            try:
                self.pids[f"broker{k}"] = self.broker_pid(k)
            except (OSError, ValueError):
                pass

    def brokers_start(self):
        names = self.cuttable + (["between"] if self.between else [])
        for i, name in enumerate(names):
            first = self.kafka_port + 10 * i
            self.lines[name] = [proxy.Proxy(("127.0.0.1", first + 200 + k), first + 110 + k)
                                for k in range(self.brokers_n)]
        words = ["--brokers", self.brokers_n, "--port", self.kafka_port]
        if names:
            words += ["--advertise", ",".join(str(self.kafka_port + 110 + 10 * i)
                                              for i in range(len(names)))]
        self.kafka("start", *words, *(["--between"] if self.between else []))

    def broker_home(self, k):
        return os.path.join(self.dir, "kafka", str(k))

    def broker_pid(self, k):
        with open(os.path.join(self.broker_home(k), "pid"), encoding="ascii") as file:
            return int(file.read())

    def broker_kill(self, k):
        harness.kill_tree(self.broker_pid(k))

    def broker_start(self, k):
        self.kafka("broker", k)

    def segment(self, topic, partition, k=1):
        """The first segment file of a partition."""
        return os.path.join(self.broker_home(k), "data", f"{self.prefix}{topic}-{partition}",
                            f"{0:020d}.log")

    # -- processes ------------------------------------------------------------------------

    def data_of(self, name):
        return os.path.join(self.dir, f"data-{name}") if name.startswith("aggregate") else self.data

    def words(self, name):
        stage = name.rstrip("0123456789")
        words = [self.binary, stage, f"--data.dir={self.data_of(name)}"]
        if name in self.cuttable:
            words.append(f"--kafka.brokers={self.addresses(self.cuttable.index(name))}")
        if name in self.redis_lines:
            words.append(f"--redis.address=127.0.0.1:{self.redis_lines[name].port}")
        if stage in ("aggregate", "archive", "run"):
            words.append(f"--kafka.instance_id={name}")
        return words

    def start(self, name, *more, dynamic=False):
        """dynamic: no static member of its group."""
        words = [w for w in self.words(name) if not (dynamic and "instance_id" in w)] + list(more)
        check(not self.runs(name), f"{name} runs already")
        with open(os.path.join(self.dir, f"{name}.log"), "ab") as log:
            self.procs[name] = subprocess.Popen(
                words, env=dict(self.env, **self.clickledger_env), stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, preexec_fn=harness.die_with_parent)
        if name in ("ingest", "run"):
            self.child = self.procs[name]

    def runs(self, name):
        return name in self.procs and self.procs[name].poll() is None

    def running(self):
        return [name for name in self.procs if self.runs(name)]

    def kill(self, name):
        self.procs[name].kill()
        self.procs.pop(name).wait(30)

    def end(self, name, seconds=60):
        """SIGTERM, and it stops cleanly."""
        child = self.procs.pop(name)
        child.terminate()
        code = child.wait(seconds)
        check(code == 0, f"{name} stops cleanly: exit code {code}")

    def freeze(self, name):
        os.kill(self.procs[name].pid, signal.SIGSTOP)

    def thaw(self, name):
        os.kill(self.procs[name].pid, signal.SIGCONT)

    def all_alive(self):
        for name, child in self.procs.items():
            check(child.poll() is None, f"{name} ended by itself, exit code {child.returncode}")

    def processes_start(self):
        first, *others = self.stages or (*STAGES, *self.aggregators)
        self.start(first)  # it makes the spool
        self.run_wait()
        for name in others:
            self.start(name)

    def start_all(self, campaigns=None):
        self.brokers_start()
        self.servers_start()
        for name in self.aggregators if self.cuttable else ():
            self.redis_lines[name] = proxy.Proxy(f"{self.sockets}/redis.sock")
        self.cli("topics", "create")
        self.cli("topics", "check")
        if campaigns:
            self.campaigns_import(campaigns)
        self.processes_start()

    def stop_all(self):
        """In the order in which clicks travel: each stops cleanly."""
        for name in ("ingest", "relay", *sorted(self.procs)):
            if self.runs(name):
                self.end(name)

    def run_stop(self, seconds=60):
        self.stop_all()
        return 0

    def events(self, name):
        """What an aggregate process has noted."""
        try:
            with open(os.path.join(self.data_of(name), "aggregate", "events.log"),
                      encoding="utf-8") as file:
                return file.readlines()
        except OSError:
            return []

    def said(self, name, *words, since=0):
        """A line of a process's log, or of its events, with one of the words."""
        lines = self.events(name)
        path = os.path.join(self.dir, f"{name}.log")
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = file.readlines() + lines
        return [line.strip() for line in lines[since:] if any(w in line for w in words)]

    # -- the end --------------------------------------------------------------------------

    def tails(self, lines=30):
        super().tails(lines)
        paths = [os.path.join(self.dir, f"{n}.log") for n in
                 (*STAGES, *(f"aggregate{i}" for i in range(1, 9)))]
        paths += [os.path.join(self.broker_home(k), "log") for k in range(1, self.brokers_n + 1)]
        for path in paths:
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    tail = file.readlines()[-10 if path.endswith("/log") else -lines:]
                print(f"---- {os.path.relpath(path, self.dir)}, last lines",
                      *(line.rstrip() for line in tail), sep="\n", file=sys.stderr, flush=True)

    def stop(self):
        if self.ended:
            return
        for child in self.procs.values():
            if child.poll() is None:
                child.kill()
                child.wait(30)
        super().stop()
        for line in [*self.redis_lines.values(), *(p for ps in self.lines.values() for p in ps)]:
            line.close()


def frozen(pid, seconds):
    """SIGSTOP for a while to a process by its id."""
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)
