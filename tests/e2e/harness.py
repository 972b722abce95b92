"""Servers, the product and clients for the end-to-end tests.

A Stack is a fresh directory under /tmp with its own Redis, PostgreSQL and clickledger. What
it started it ends, by process id, whatever happens: at the end, on failure, at a signal, and
when the test's own deadline passes (which comes before ctest's).

Environment: CLICKLEDGER_BIN, the binary under test; CLICKLEDGER_E2E_KEEP=1 keeps the directory.
"""
import atexit
import ctypes
import glob
import gzip
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "oracle"))
import oracle  # noqa: E402,F401

SKIPPED = 77
SERVERS = os.path.join(ROOT, "deploy", "servers")
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"


class Failed(Exception):
    pass


def check(good, what):
    if not good:
        raise Failed(what)


def same(what, got, expected, limit=8):
    """Two dicts, named, equal to the last unit."""
    if got == expected:
        return
    lines = [f"{what}: not as expected"]
    for key in sorted(set(got) | set(expected), key=repr):
        if got.get(key) != expected.get(key):
            lines.append(f"  {key}: is {got.get(key)}, should be {expected.get(key)}")
    more = len(lines) - 1 - limit
    raise Failed("\n".join(lines[:limit + 1] + ([f"  ... and {more} more"] if more > 0 else [])))


def wait_for(what, seconds, condition, every=0.05):
    """Until condition() is true; its last value comes back."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= until:
            raise Failed(f"after {seconds} s still not: {what}")
        time.sleep(every)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def children_of(pid):
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(path, encoding="ascii") as file:
                found += [int(word) for word in file.read().split()]
        except OSError:
            pass
    return found


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


def kill_tree(pid):
    """SIGKILL to one process and its children, and waits until they are gone."""
    pids = [pid] + children_of(pid)
    for each in pids:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            pass
    wait_for(f"process {pid} is gone", 10, lambda: not any(alive(p) for p in pids), 0.005)
    # PostgreSQL takes a zombie for a running postmaster: give init the time to bury it.
    until = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < until:
        time.sleep(0.005)


class Redis:
    """RESP over the Unix socket: as much of it as the tests need."""

    def __init__(self, path, timeout=5.0):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def close(self):
        self.file.close()
        self.socket.close()

    def answer(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis hung up")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise Failed("Redis: " + rest.decode())
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if int(rest) < 0:
                return None
            data = self.file.read(int(rest) + 2)[:-2]
            return data.decode("utf-8", "replace")
        return [self.answer() for _ in range(int(rest))]

    def __call__(self, *words):
        return self.pipeline([words])[0]

    def pipeline(self, commands):
        out = bytearray()
        for words in commands:
            out += b"*%d\r\n" % len(words)
            for word in words:
                data = str(word).encode()
                out += b"$%d\r\n%s\r\n" % (len(data), data)
        self.socket.sendall(out)
        return [self.answer() for _ in commands]


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


def http_call(port, method, path, body=None, headers=None, timeout=20.0):
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        link.request(method, path, body, headers or {})
        got = link.getresponse()
        return Answer(got.status, dict(got.getheaders()), got.read())
    finally:
        link.close()


class Stack:
    def __init__(self, config=None, binary=None, clickledger_env=None):
        self.binary = binary or os.environ.get("CLICKLEDGER_BIN") or \
            os.path.join(ROOT, "build", "release", "clickledger")
        check(os.access(self.binary, os.X_OK), f"no binary {self.binary}: set CLICKLEDGER_BIN")
        self.dir = tempfile.mkdtemp(prefix="clickledger-e2e-", dir="/tmp")
        os.chmod(self.dir, 0o755)
        self.sockets = os.path.join(self.dir, "s")
        self.data = os.path.join(self.dir, "data")
        self.archive = os.path.join(self.data, "archive")
        self.ingest_port, self.dashboard_port = free_port(), free_port()
        self.env = dict(os.environ, CLICKLEDGER_CONFIG=os.path.join(self.dir, "clickledger.yaml"),
                        CLICKLEDGER_PG_OPTIONS=os.environ.get("CLICKLEDGER_PG_OPTIONS", ""))
        self.clickledger_env = clickledger_env or {}
        self.child = None
        self.pids = {}
        self.key = None
        self.ended = False
        self.failed = False
        self.config = {
            "data.dir": self.data, "ingest.port": self.ingest_port,
            "dashboard.port": self.dashboard_port,
            "redis.address": f"unix:{self.sockets}/redis.sock",
            "postgres.conninfo": f"host={self.sockets} port=5439 dbname=clickledger user=clickledger",
            "archive.roll_s": 5, "master.poll_ms": 100, "billing.schedule": 0,
            "ingest.rate_clicks_per_s": 1000000, "ingest.rate_burst_clicks": 1000000,
            "fraud.live_dedup_ids_max": 1000000, "fraud.live_users_max": 1000000,
            "fraud.live_addresses_max": 200000, "billing.judge_clicks_max": 200000,
        }
        self.config.update(config or {})
        self.config_write()
        atexit.register(self.stop)

    def config_write(self):
        sections = {}
        for key, value in self.config.items():
            section, name = key.split(".", 1)
            sections.setdefault(section, []).append(f"  {name}: {value}\n")
        with open(self.env["CLICKLEDGER_CONFIG"], "w", encoding="utf-8") as file:
            for section, lines in sections.items():
                file.write(f"{section}:\n" + "".join(lines))

    # -- servers --------------------------------------------------------------------------

    def servers(self, verb, tries=1):
        for left in range(tries - 1, -1, -1):
            done = subprocess.run([SERVERS, verb, self.dir], env=self.env, text=True,
                                  capture_output=True, timeout=150, check=False)
            if done.returncode == 0:
                self.pids_note()
                return
            if left == 0:
                raise Failed(f"deploy/servers {verb}: {done.stderr.strip()}")
            time.sleep(0.3)

    def pids_note(self):
        """For the end, even if the directory has gone by then."""
        for pid in (self.redis_pid, self.postgres_pid):
            try:
                self.pids[pid.__name__] = pid()
            except (OSError, ValueError):
                pass

    def servers_start(self):
        self.servers("start")

    def redis_pid(self):
        return int(open(os.path.join(self.dir, "redis.pid"), encoding="ascii").read())

    def postgres_pid(self):
        with open(os.path.join(self.dir, "postgres", "postmaster.pid"), encoding="ascii") as file:
            return int(file.readline())

    def redis_kill(self):
        kill_tree(self.redis_pid())

    def redis_start(self):
        self.servers("redis", tries=5)

    def postgres_kill(self):
        pid = self.postgres_pid()
        kill_tree(pid)
        if os.path.exists(f"/proc/{pid}"):  # no init that buries: its lock file would stay
            os.unlink(os.path.join(self.dir, "postgres", "postmaster.pid"))

    def postgres_start(self):
        self.servers("postgres", tries=10)

    def redis(self):
        return Redis(f"{self.sockets}/redis.sock")

    def psql(self, sql):
        """Rows of text fields."""
        done = subprocess.run(
            ["psql", "-X", "-h", self.sockets, "-p", "5439", "-U", "clickledger", "-d",
             "clickledger", "-At", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-c", sql],
            text=True, capture_output=True, timeout=60, check=False)
        check(done.returncode == 0, f"psql: {done.stderr.strip()}: {sql}")
        return [line.split("\t") for line in done.stdout.splitlines()]

    # -- the product ----------------------------------------------------------------------

    def run_start(self, wait=True, extra_env=None):
        check(self.child is None or self.child.poll() is not None, "clickledger runs already")
        env = dict(self.env, **self.clickledger_env, **(extra_env or {}))
        log = open(os.path.join(self.dir, "clickledger.log"), "ab")
        self.child = subprocess.Popen([self.binary, "run"], env=env, stdout=log, stderr=log,
                                      stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
        log.close()
        if wait:
            self.run_wait()

    def run_wait(self, seconds=60):
        """Until clicks are accepted; returns how long it took."""
        began = time.monotonic()
        wait_for("clickledger is ready", seconds, self.is_ready, 0.01)
        return time.monotonic() - began

    def is_ready(self):
        check(self.child.poll() is None,
              f"clickledger ended by itself, exit code {self.child.returncode}")
        try:
            return http_call(self.ingest_port, "GET", "/readyz", timeout=2).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def run_kill(self):
        self.child.kill()
        self.child.wait(30)

    def run_stop(self, seconds=60):
        """SIGTERM; everything in flight is finished. Returns the exit code."""
        self.child.terminate()
        return self.child.wait(seconds)

    def cli(self, *words, good=(0,), timeout=240):
        done = subprocess.run([self.binary, *map(str, words)], env=self.env, text=True,
                              capture_output=True, timeout=timeout, check=False)
        check(good is None or done.returncode in good,
              f"clickledger {' '.join(map(str, words))}: exit code {done.returncode}\n"
              f"{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done

    def campaigns_import(self, text):
        path = os.path.join(self.dir, "campaigns.csv")
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        self.cli("campaign", "import", path)

    def key_create(self, account="demo", scope="ingest,read,billing,admin", *more):
        path = os.path.join(self.dir, f"key-{account}-{random.getrandbits(32):08x}")
        self.cli("key", "create", "--account", account, "--scope", scope, "--name", "e2e",
                 "--rate", "1000000", "--out", path, *more)
        with open(path, encoding="ascii") as file:
            key = file.read().strip()
        if "ingest" in scope:
            self.key = self.key or key
            wait_for("the new key is known", 20, lambda: self.key_works(key))
        return key, path

    def key_works(self, key):
        try:
            return self.post([make_click(0)], key=key, query="?dry_run=1").status not in (401, 403)
        except OSError:
            return False

    def headers(self, key=None, **more):
        return dict({"Authorization": f"Bearer {key or self.key}",
                     "Content-Type": "application/json"}, **more)

    def post(self, clicks, key=None, query="", form="array", packed=False, timeout=20.0):
        body = body_of(clicks, form)
        headers = self.headers(key)
        if packed:
            body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
        return http_call(self.ingest_port, "POST", "/v1/clicks" + query, body, headers, timeout)

    def curl(self, clicks, key=None, form="ndjson"):
        """With the client that everybody has. Returns (status, body)."""
        done = subprocess.run(
            ["curl", "-sS", "-m", "20", "-w", "\n%{http_code}", "--data-binary", "@-", "-H",
             f"Authorization: Bearer {key or self.key}", "-H", "Content-Type: application/json",
             f"http://127.0.0.1:{self.ingest_port}/v1/clicks"],
            input=body_of(clicks, form), capture_output=True, timeout=40, check=False)
        check(done.returncode == 0, f"curl: {done.stderr.decode()}")
        body, _, status = done.stdout.decode().rpartition("\n")
        return int(status), body

    def get(self, path, key=None):
        return http_call(self.dashboard_port, "GET", path, headers=self.headers(key))

    # -- live counts ----------------------------------------------------------------------

    def live_rows(self, window="1d"):
        """(campaign, window's start in s) -> (totals, {reason: clicks}) from Redis."""
        redis, rows = self.redis(), {}
        try:
            owners = redis.pipeline([("HGETALL", f"{{p{p}}}:owner") for p in range(16)])
            keys = []
            for p, flat in enumerate(owners):
                owner = dict(zip(flat[::2], flat[1::2]))
                if "generation" in owner:
                    prefix = f"{{p{p}}}:{owner['generation']}:{window}:"
                    keys += [(key, prefix) for key in redis("KEYS", prefix.replace("{", "\\{") + "*")]
            for (key, prefix), flat in zip(keys, redis.pipeline([("HGETALL", k) for k, _ in keys])):
                campaign, _, start = key[len(prefix):].rpartition(":")
                fields = dict(zip(flat[::2], flat[1::2]))
                totals = tuple(int(n) for n in fields.get("t", "0,0,0,0,0,0").split(","))
                reasons = {name[2:]: int(value.split(",")[0]) for name, value in fields.items()
                           if name.startswith("r:")}
                rows[campaign, int(start)] = (totals, reasons)
        finally:
            redis.close()
        return rows

    def live_total(self):
        """All clicks that the live path has counted: of each verdict."""
        return sum(t[0] + sum(t[3:]) for t, _ in self.live_rows().values())

    def live_wait(self, clicks, seconds=30):
        wait_for(f"{clicks} clicks are visible live", seconds,
                 lambda: self.live_total_or_zero() >= clicks, 0.1)

    def live_total_or_zero(self):
        try:
            return self.live_total()
        except (OSError, Failed):
            return 0

    # -- the end --------------------------------------------------------------------------

    def tails(self, lines=30):
        for name in ("clickledger.log", "redis.log", "postgres.log", "data/aggregate/events.log"):
            path = os.path.join(self.dir, name)
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    tail = file.readlines()[-lines:]
                print(f"---- {name}, last lines", *(line.rstrip() for line in tail),
                      sep="\n", file=sys.stderr, flush=True)

    def is_ours(self, pid):
        """The number may have gone to another process since."""
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return self.dir in file.read()

    def stop(self):
        if self.ended:
            return
        self.ended = True
        if self.child is not None and self.child.poll() is None:
            self.child.kill()
            self.child.wait(30)
        for pid in self.pids.values():
            try:
                if self.is_ours(pid):
                    kill_tree(pid)
            except (OSError, Failed):
                pass
        if os.environ.get("CLICKLEDGER_E2E_KEEP"):
            print("kept:", self.dir)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


def body_of(clicks, form):
    if form == "object":
        return json.dumps(clicks[0]).encode()
    if form == "ndjson":
        return ("\n".join(json.dumps(c) for c in clicks) + "\n").encode()
    return json.dumps(clicks).encode()


def iso(ms):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03d}Z"


def uuid_of(rng):
    h = f"{rng.getrandbits(128):032x}"
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


def make_click(n, ms=None, campaign="c00000", rng=random, **changes):
    """A genuine click of a user and an address of its own."""
    made = {
        "event_id": uuid_of(rng), "timestamp": iso(ms if ms is not None else int(time.time() * 1000)),
        "campaign_id": campaign, "ad_id": f"ad{n % 5}", "publisher_id": f"pub{n % 7}",
        "user_id": f"user-{n:x}", "ip_address": f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}",
        "user_agent": BROWSER, "referer": "https://news.example/", "device_type": "desktop",
        "os": "Linux", "country": "DE", "city": "Ulm", "cost_per_click": "0.25",
    }
    made.update(changes)
    return made


CAMPAIGN_HEADER = ("campaign_id,name,account,advertiser_id,advertiser_name,currency,time_zone,"
                   "status,cpc,cpc_from,price_cap,daily_budget,budget_from\r\n")


def plain_campaigns(n=8):
    """Fixed prices, no budgets, three currencies, two zones: no rule here minds the order."""
    lines = []
    for i in range(n):
        currency, price = (("EUR", "0.123457"), ("JPY", "7"), ("BHD", "0.0155"))[i // 2 % 3]
        zone = ("Europe/Berlin", "Asia/Kolkata")[i % 2]
        lines.append(f"c{i:05d},Campaign {i},demo,adv{i // 2:04d},Advertiser {i // 2},{currency},"
                     f"{zone},active,{price},,{price},,\r\n")
    return CAMPAIGN_HEADER + "".join(lines)


def day_start(offset_days):
    """UTC midnight so many days from today's, in ms."""
    return (int(time.time()) // 86400 + offset_days) * 86_400_000


def main(test, limit_s):
    """Runs test() with a deadline; exit code 0, 1 or 77; ends what it started."""
    stacks = []
    made = Stack.__init__

    def init(self, *args, **kwargs):
        made(self, *args, **kwargs)
        stacks.append(self)
    Stack.__init__ = init

    def end(code, text):
        for stack in stacks:
            if code not in (0, SKIPPED):
                stack.tails()
            stack.stop()
        print(text, file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(code)

    def on_time():
        for thread, frame in sys._current_frames().items():
            print(f"-- thread {thread}", file=sys.stderr)
            traceback.print_stack(frame)
        end(1, f"FAILED: not done after {limit_s} s")
    watchdog = threading.Timer(limit_s, on_time)
    watchdog.daemon = True
    watchdog.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end(1, "FAILED: interrupted"))
    began = time.monotonic()
    try:
        test()
    except SystemExit as leave:
        end(leave.code or 0, "")
    except Failed as why:
        end(1, f"FAILED: {why}")
    except Exception:  # noqa: BLE001 a test that breaks is a test that fails
        traceback.print_exc()
        end(1, "FAILED")
    end(0, f"passed in {time.monotonic() - began:.1f} s")


def step(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)
