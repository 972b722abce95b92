"""What the benchmarks share: results, CPU by process, the load generator, campaigns."""
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
from harness import CAMPAIGN_HEADER, check  # noqa: E402

PARTITIONS = 16
CAMPAIGNS = 1000
CAMPAIGNS_MANY = 100_000
RECOVERY_RATE = 150_000  # half of what is demanded
MARKERS = 100            # campaigns, enough for each partition to have some
BATCH = 100
CONNECTIONS = 64         # of batches
CONNECTIONS_SINGLE = 1000
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# What the harness makes small for its tests, as large as it is by default.
DEFAULTS = {"archive.roll_s": 300, "master.poll_ms": 1000, "fraud.live_dedup_ids_max": 50_000_000,
            "fraud.live_users_max": 20_000_000, "fraud.live_addresses_max": 4_000_000,
            "billing.judge_clicks_max": 1_750_000}

results = []


def result(name, value, unit, reference=None):
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 3
    value = round(value, digits) if digits else int(round(value))
    results.append({"name": name, "value": value, "unit": unit, "reference": reference})
    print(f"  {name:38} {value:>12,} {unit:12} {reference or ''}", flush=True)


def cpu_ns(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        words = file.read().rsplit(")", 1)[1].split()
    # utime and stime, and those of children waited for: Redis forks to rewrite its file.
    return sum(int(w) for w in words[11:15]) * TICK_NS


class Bench:
    def __init__(self, build, quick):
        self.build, self.quick = build, quick
        self.seconds = 4 if quick else 15

    def program(self, name):
        return os.path.join(self.build, "bench", name)

    def output(self, *words, timeout=900):
        done = subprocess.run([str(w) for w in words], capture_output=True, text=True,
                              timeout=timeout, check=False)
        check(done.returncode == 0, f"{' '.join(map(str, words))}: exit code {done.returncode}\n"
              f"{done.stderr[-2000:]}")
        return done.stdout

    def load_start(self, port, key, seconds, **options):
        words = [self.program("load"), "--port", port, "--key", key, "--seconds", seconds]
        for name, value in options.items():
            words += ["--" + name, value]
        return subprocess.Popen([str(w) for w in words], stdout=subprocess.PIPE, text=True)

    @staticmethod
    def load_end(child):
        out, _ = child.communicate(timeout=600)
        check(child.returncode == 0, f"load: exit code {child.returncode}")
        return json.loads(out)

    def load(self, *words, **options):
        return self.load_end(self.load_start(*words, **options))


def campaigns(n):
    """Of one account; a tenth has a budget."""
    lines = [CAMPAIGN_HEADER]
    for i in range(n):
        zone = ("Europe/Berlin", "Asia/Kolkata")[i % 2]
        budget = "1000000.00" if i % 10 == 0 else ""
        lines.append(f"c{i:05d},Campaign {i},demo,adv{i // 100:04d},Advertiser {i // 100},EUR,{zone},"
                     f"active,0.25,,0.50,{budget},\r\n")
    return "".join(lines)
