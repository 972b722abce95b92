"""Over one real broker on the same machine: what `run kafka` measures.

The product runs as a process a stage, so that CPU a click can be told apart; the rate is
measured in one process too, as `clickledger run` is. A broker is warm when its hot methods are
compiled, which takes ten million clicks: until its compiler rests it has a third of a core less,
and so have all others.
"""
import http.client
import json
import os
import threading
import time

from common import (
    BATCH, CAMPAIGNS, DEFAULTS, MARKERS, PARTITIONS, campaigns, cpu_ns, result)
import kafka_wire
from harness import Failed, check, make_click, wait_for
from kafka_stack import KafkaStack

CONNECTIONS = 256  # batches wait for the broker: more of them on their way
RATE = 100_000     # clicks a second, for latency and recovery
BEHIND_S = 0.5     # "no lag": what came in within so much time
WARM_S, WARM_S_MAX = 5, 60  # of load at a time, until the compiler takes less than
WARM_CORES = 0.1
WARM_SEED = 900_000  # no click of these comes again
PROBERS, PROBES = 4, 4
PAIRS = 2          # of one member and two, beside each other
SPOOL_BYTES = 32 << 30  # nobody archives, so nothing is trimmed
SPLIT = PARTITIONS // 2  # the first of two members has the partitions below


class Served:
    """Brokers, servers and processes with campaigns and a key."""

    def __init__(self, stages=(), aggregators=1, config=None):
        defaults = {"kafka.session_ms": 10000, "kafka.delivery_ms_max": 5000,
                    "ingest.ack_ms_max": 10000}
        self.stack = KafkaStack({**DEFAULTS, **defaults, **(config or {})}, stages=stages,
                                aggregators=aggregators)
        self.stack.start_all(campaigns(CAMPAIGNS + MARKERS))
        path = os.path.join(self.stack.dir, "key")
        self.stack.cli("key", "create", "--account", "demo", "--scope", "ingest,read", "--rate",
                       "100000000", "--out", path)
        with open(path, encoding="ascii") as file:
            self.key = self.stack.key = file.read().strip()
        self.redis = self.stack.redis()
        time.sleep(2)  # every stage has heard of the key

    def offsets(self):
        got = self.redis.pipeline([("HGET", f"{{p{p}}}:owner", "offset") for p in range(PARTITIONS)])
        return [int(o or 0) for o in got]

    def visible(self):
        return sum(self.offsets())

    def wait_visible(self, clicks, seconds=300):
        wait_for(f"{clicks} clicks are visible", seconds, lambda: self.visible() >= clicks, 0.005)

    def load(self, bench, seconds, seed, **options):
        return bench.load(self.stack.ingest_port, self.key, seconds, seed=seed, batch=BATCH,
                          connections=CONNECTIONS, campaigns=CAMPAIGNS, requests=600, **options)

    def compiler_ns(self):
        """CPU that the broker's virtual machine has spent on compiling."""
        total, tasks = 0, f"/proc/{self.stack.broker_pid(1)}/task"
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/comm", encoding="ascii") as file:
                if "Compiler" in file.read():
                    total += cpu_ns(f"{tasks[6:]}/{task}")
        return total

    def warm(self, bench):
        """Load until the broker is compiled. Clicks that were accepted."""
        sent = 0
        for i in range(1 if bench.quick else WARM_S_MAX // WARM_S):
            before = self.compiler_ns()
            sent += self.load(bench, WARM_S, WARM_SEED + i)["accepted"]
            self.wait_visible(sent)
            if self.compiler_ns() - before < WARM_CORES * WARM_S * 1e9:
                break
        return sent

    def pids(self):
        found = {name.rstrip("0123456789"): child.pid for name, child in self.stack.procs.items()}
        return dict(found, broker=self.stack.broker_pid(1), redis=self.stack.redis_pid())

    def close(self):
        self.redis.close()
        self.stack.stop_all()
        self.stack.stop()


def pin(pid, cores):
    """All threads of a process; those that it starts later follow."""
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), cores)


# ---- POST to visible --------------------------------------------------------------------

def post_measure(bench, served):
    """Clicks a second, and CPU ns a click by process."""
    sent = served.warm(bench)
    pids = served.pids()
    before = {name: cpu_ns(pid) for name, pid in pids.items()}
    began = time.monotonic()
    load = served.load(bench, bench.seconds, 2)
    served.wait_visible(sent + load["accepted"])
    took = time.monotonic() - began
    cpu = {name: (cpu_ns(pid) - before[name]) / load["accepted"] for name, pid in pids.items()}
    check(load["accepted"] == load["requests"] * BATCH, f"not all was accepted: {load}")
    return load["accepted"] / took, cpu, load


def bench_post(bench):
    served = Served(stages=("run",))
    rate, cpu, load = post_measure(bench, served)
    served.close()
    result("kafka_post_to_visible_per_s", rate, "clicks/s", "250,000 now, aim 500,000")
    result("kafka_post_to_visible_cpu_ns_per_click", sum(cpu.values()), "ns",
           "run, broker and Redis")
    result("kafka_batch_202_p50_ms", load["p50_ms"], "ms",
           f"replicated, {CONNECTIONS} connections, as fast as it goes")
    result("kafka_batch_202_p99_ms", load["p99_ms"], "ms")
    served = Served()
    rate, cpu, load = post_measure(bench, served)
    served.close()
    result("kafka_stages_post_to_visible_per_s", rate, "clicks/s", "a process a stage")
    for name, ns in cpu.items():
        if name != "dashboard":
            what = {"ingest": "HTTP to spool", "broker": "JVM"}.get(name)
            result(f"kafka_{name}_cpu_ns_per_click", ns, "ns", what)
    result("kafka_generator_cpu_ns_per_click", load["cpu_ns_per_click"], "ns", "the load beside it")


# ---- a filled topic ---------------------------------------------------------------------

def fill(bench, served, clicks, seed):
    """Clicks into the topic while nobody reads; where each partition ends."""
    sent = 0
    while sent < clicks:
        sent += served.load(bench, min((clicks - sent) / 400_000 + 0.2, 20), seed)["accepted"]
        seed += 100
    topics = kafka_wire.Topics(served.stack.addresses())
    ends = topics.ends(served.stack.prefix + "raw_clicks")
    topics.close()
    return [ends[p][1] for p in range(PARTITIONS)]


def drain(served, ends, pids, halves):
    """Clicks a second and CPU ns a click by process, from a tenth on until the first of the
    halves (lists of partitions) is nearly read: as long as all are at work."""
    begin = served.offsets()
    sizes = [sum(ends[p] - begin[p] for p in half) for half in halves]
    first = last = None
    until = time.monotonic() + 300
    while time.monotonic() < until:
        now, offsets = time.monotonic(), served.offsets()
        done = [sum(offsets[p] - begin[p] for p in half) for half in halves]
        cpu = {name: cpu_ns(pid) for name, pid in pids.items()}
        if first is None and all(d >= 0.1 * s for d, s in zip(done, sizes)):
            first = (now, sum(done), cpu)
        last = (now, sum(done), cpu)
        if any(d >= 0.95 * s for d, s in zip(done, sizes)):
            break
        time.sleep(0.01)
    check(first is not None and last[1] > first[1], f"nothing to measure: {first} {last}")
    clicks = last[1] - first[1]
    served.wait_visible(sum(ends))
    return clicks / (last[0] - first[0]), {n: (last[2][n] - first[2][n]) / clicks for n in pids}


def joined(served, names):
    """Each has its share of the partitions, and no more."""
    share = f"partitions={PARTITIONS // len(names)} "

    def settled():
        lines = [served.stack.said(name, "kafka_assigned", "kafka_revoked") for name in names]
        return all(each and "kafka_assigned" in each[-1] and share in each[-1] for each in lines)
    wait_for("all members are in the group", 60, settled)


def filled_measure(bench, served, clicks, seed, names, cores=None, servers=None):
    """The named members own their partitions and stand still while the topic is filled; then
    they read alone. Their sessions are long, so that nobody misses them."""
    stack = served.stack
    for name in names:
        stack.start(name, dynamic=True)
    joined(served, names)
    before = served.visible()
    ready = served.load(bench, 1, seed * 1000)
    served.wait_visible(before + ready["accepted"])
    for name in names:
        stack.freeze(name)
    ends = fill(bench, served, clicks, seed)
    pids = {name: stack.procs[name].pid for name in names}
    others = {"broker": stack.broker_pid(1), "redis": stack.redis_pid()}
    everywhere = set(os.sched_getaffinity(0))
    for i, name in enumerate(names):
        pin(pids[name], {cores[i]} if cores else everywhere)
    for pid in others.values():
        pin(pid, servers or everywhere)
    halves = [range(PARTITIONS)] if len(names) == 1 else [range(SPLIT), range(SPLIT, PARTITIONS)]
    for name in names:
        stack.thaw(name)
    got = drain(served, ends, dict(pids, **others), halves)
    for pid in others.values():
        pin(pid, everywhere)
    for name in names:
        stack.end(name)
    return got


def bench_filled(bench):
    clicks = 3_000_000 if bench.quick else 6_000_000
    served = Served(aggregators=0, config={"kafka.session_ms": 600_000,
                                          "clicklog.bytes_max": SPOOL_BYTES})
    served.stack.end("archive")
    served.stack.start("aggregate1", dynamic=True)
    served.warm(bench)
    served.stack.end("aggregate1")
    _, cpu = filled_measure(bench, served, clicks, 2, ["aggregate1"])
    result("kafka_live_cpu_ns_per_click", sum(cpu.values()), "ns",
           "1,500 now, aim 900; a tuned Flink 1.20 job 2,000 without dedup, 7,800 with; ClickHouse's "
           "Kafka engine 3,900 to 7,700")
    for name, ns in cpu.items():
        result(f"kafka_live_{name.rstrip('0123456789')}_cpu_ns_per_click", ns, "ns")
    cores = sorted(os.sched_getaffinity(0))[:2]
    one, both = [], []
    for i in range(1 if bench.quick else PAIRS):  # in turn: the machine's speed wanders
        one.append(filled_measure(bench, served, clicks, 3 + 2 * i, ["aggregate1"], cores[:1],
                                  {cores[0]})[0])
        both.append(filled_measure(bench, served, clicks, 4 + 2 * i, ["aggregate1", "aggregate2"],
                                   cores, set(cores))[0])
    served.close()
    one, both = sum(one) / len(one), sum(both) / len(both)
    result("kafka_one_aggregator_per_s", one, "clicks/s", "with broker and Redis on its core")
    result("kafka_two_aggregators_per_s", both, "clicks/s",
           "a core each, broker and Redis on both")
    result("kafka_two_aggregators_speedup", both / one, "times",
           "1.8: two cores against one, whose broker and Redis share them; mean of pairs")


# ---- latency and recovery -----------------------------------------------------------------

class Probes:
    """Clicks for campaigns that the load leaves alone, timed from before their POST until their
    campaign's row in Redis has them."""

    def __init__(self, served):
        self.served, self.stopping, self.lock = served, threading.Event(), threading.Lock()
        self.waiting, self.counts, self.ms = {}, {}, []
        self.free = [f"c{CAMPAIGNS + i:05d}" for i in range(MARKERS)]
        self.post(self.free, http.client.HTTPConnection("127.0.0.1", served.stack.ingest_port))
        wait_for("the probes' rows are there", 60, lambda: len(self.rows()) == MARKERS)
        self.keys = self.rows()
        for name, key in self.keys.items():
            self.counts[name] = self.count(served.redis("HGET", key, "t"))
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(PROBERS)]
        self.threads.append(threading.Thread(target=self.watch, daemon=True))

    @staticmethod
    def count(totals):
        words = [int(n) for n in (totals or "0").split(",")]
        return words[0] + sum(words[3:])

    def rows(self):
        found = [k for k in self.served.redis("KEYS", f"*:1d:c0{CAMPAIGNS // 100}*") if ":hll:" not in k]
        return {k.split(":1d:")[1].rpartition(":")[0]: k for k in found}

    def post(self, names, link):
        now = int(time.time() * 1000)
        body = json.dumps([make_click(i, now, name) for i, name in enumerate(names)])
        link.request("POST", "/v1/clicks", body, self.served.stack.headers())
        answer = link.getresponse()
        text = answer.read()
        check(answer.status == 202, f"a probe: {answer.status} {text!r}")

    def work(self):
        link = http.client.HTTPConnection("127.0.0.1", self.served.stack.ingest_port)
        while not self.stopping.is_set():
            with self.lock:
                names, self.free = self.free[:PROBES], self.free[PROBES:]
                since = time.monotonic()
                for name in names:
                    self.counts[name] += 1
                    self.waiting[name] = since
            if names:
                self.post(names, link)
            time.sleep(0.02)

    def watch(self):
        redis = self.served.stack.redis()
        while not self.stopping.is_set() or self.waiting:
            with self.lock:
                names = list(self.waiting)
            if names:
                got = redis.pipeline([("HGET", self.keys[n], "t") for n in names])
                now = time.monotonic()
                with self.lock:
                    for name in [n for n, t in zip(names, got) if self.count(t) >= self.counts[n]]:
                        self.ms.append((now - self.waiting.pop(name)) * 1000)
                        self.free.append(name)
            time.sleep(0.003)
        redis.close()

    def run(self, seconds):
        for thread in self.threads:
            thread.start()
        time.sleep(seconds)
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)
            if thread.is_alive():
                raise Failed("a probe never became visible")
        return sorted(self.ms)


def lag(served, topics):
    seen = served.visible()
    return sum(end for _, end in topics.ends(served.stack.prefix + "raw_clicks").values()) - seen


def recovery_measure(served):
    """kill -9 of the aggregate, started again at once, until nothing lags."""
    topics = kafka_wire.Topics(served.stack.addresses())
    began = time.monotonic()
    served.stack.kill("aggregate1")
    served.stack.start("aggregate1")
    wait_for("something lags", 30, lambda: lag(served, topics) > BEHIND_S * RATE, 0.01)
    wait_for("nothing lags", 120, lambda: lag(served, topics) <= BEHIND_S * RATE, 0.02)
    took = time.monotonic() - began
    topics.close()
    return took


def bench_paced(bench):
    served = Served()
    served.warm(bench)
    probes = Probes(served)
    seconds = bench.seconds
    child = bench.load_start(served.stack.ingest_port, served.key, 2 * seconds + 30, seed=2,
                             batch=BATCH, connections=CONNECTIONS, campaigns=CAMPAIGNS,
                             requests=600, rate=RATE)
    time.sleep(2)
    ms = probes.run(seconds)
    check(len(ms) > 100, f"only {len(ms)} probes")
    result("kafka_visible_p50_ms", ms[len(ms) // 2], "ms", f"{RATE:,} clicks/s, {len(ms)} probes")
    result("kafka_visible_p99_ms", ms[int(len(ms) * 0.99)], "ms",
           f"500: click to visible at {RATE:,} clicks/s, replicated")
    result("kafka_recovery_s", recovery_measure(served), "s",
           f"10: kill -9 of the aggregate at {RATE:,} clicks/s, until less than {BEHIND_S} s behind")
    child.terminate()
    child.communicate()
    served.close()


def bench_kafka(bench):
    bench_post(bench)
    bench_filled(bench)
    bench_paced(bench)
