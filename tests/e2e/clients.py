"""Clients that post while things die, and what must then be true.

Each click is of a user and an address of its own, of a campaign with a fixed price and no
budget, and is sent again byte for byte: whatever the order of receipt, its final verdict is
billable, or duplicate for each further copy.
"""
import http.client
import json
import random
import threading
import time

import archive
import harness
import ledger
from harness import check, make_click, oracle, wait_for

CAMPAIGNS = 8


class Attempt:
    __slots__ = ("click", "tried", "acknowledged")

    def __init__(self, click):
        self.click, self.tried, self.acknowledged = click, 0, 0


class Clients:
    def __init__(self, stack, seed, threads=4, pause_s=0.02, day=-2):
        self.stack, self.seed, self.pause_s = stack, seed, pause_s
        self.from_ms = harness.day_start(day)
        self.attempts = {}  # event id -> Attempt
        self.lock = threading.Lock()
        self.next = 1
        self.stopping = threading.Event()
        self.answers = {}   # status or exception's name -> requests
        self.refused = []
        self.threads = [threading.Thread(target=self.work, args=(i,), daemon=True)
                        for i in range(threads)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        """Whatever is still unanswered stays of unknown outcome."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)
            check(not thread.is_alive(), "a client hangs")
        check(not self.refused, f"refused: {self.refused[:3]}")

    def totals(self):
        """Copies acknowledged, copies attempted."""
        with self.lock:
            return (sum(a.acknowledged for a in self.attempts.values()),
                    sum(a.tried for a in self.attempts.values()))

    def acknowledged(self):
        with self.lock:
            return sum(a.acknowledged for a in self.attempts.values())

    def make(self, rng, n):
        with self.lock:
            first = self.next
            self.next += n
        made = []
        for i in range(first, first + n):
            click = make_click(i, self.from_ms + rng.randrange(86_400_000),
                               f"c{rng.randrange(CAMPAIGNS):05d}", rng)
            made.append(Attempt(click))
        with self.lock:
            for attempt in made:
                self.attempts[attempt.click["event_id"]] = attempt
        return made

    def work(self, number):
        rng = random.Random(f"{self.seed}/{number}")
        link, done = None, []
        while not self.stopping.is_set():
            again = rng.random() < 0.05 and done
            batch = rng.choice(done) if again else \
                self.make(rng, 1 if rng.random() < 0.5 else rng.randrange(2, 12))
            form = "object" if len(batch) == 1 else rng.choice(("array", "ndjson"))
            body = harness.body_of([a.click for a in batch], form)
            while True:  # the same event ids until it is acknowledged
                link, status = self.send(link, body, batch)
                if status == 202 or self.stopping.is_set():
                    break
                time.sleep(0.02)
            if status == 202 and not again:
                done = (done + [batch])[-50:]
            if rng.random() < 0.1 and link is not None:
                link.close()
                link = None
            time.sleep(self.pause_s * rng.random() * 2)
        if link is not None:
            link.close()

    def send(self, link, body, batch):
        """One try. A reset or a time-out tells nothing: it may have landed."""
        try:
            if link is None:
                link = http.client.HTTPConnection("127.0.0.1", self.stack.ingest_port, timeout=10)
                link.connect()
            with self.lock:
                for attempt in batch:
                    attempt.tried += 1
            link.request("POST", "/v1/clicks", body, self.stack.headers())
            answer = link.getresponse()
            text = answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException) as why:
            if link is not None:
                link.close()
            link, status, text = None, type(why).__name__, b""
        with self.lock:
            self.answers[status] = self.answers.get(status, 0) + 1
            if status == 202:
                if json.loads(text)["accepted"] != len(batch):
                    self.refused.append(text)
                for attempt in batch:
                    attempt.acknowledged += 1
            elif isinstance(status, int) and status not in (503, 429):
                self.refused.append((status, text))
        return link, status

    def visible(self, acknowledged, seconds=40):
        """What was acknowledged is counted live, and no more than was attempted."""
        wait_for(f"{acknowledged} acknowledged clicks are visible live "
                 f"({self.stack.live_total_or_zero()} are)", seconds,
                 lambda: self.stack.live_total_or_zero() >= acknowledged, 0.03)
        seen = self.stack.live_total_or_zero()
        tried = self.totals()[1]
        check(seen <= tried, f"{seen} clicks are counted live, {tried} were attempted")


def days_close(stack, judged_days):
    for day in judged_days:
        stack.cli("close", "--day", day, "--force")


def verify(stack, clients, campaigns):
    """Everything, after the clients have stopped: closes the days and compares."""
    acknowledged, tried = clients.totals()
    # The archive has all that the log has once the judge has taken its forced cut.
    zones = {c.zone for c in campaigns.values()}
    spread = {oracle.local_day(clients.from_ms + ms, zone) for zone in zones
              for ms in range(0, 86_400_000, 900_000)} | {oracle.local_day(clients.from_ms, "UTC")}
    days_close(stack, sorted(spread))
    rows = archive.clicks(stack.archive, live=False)
    # A click judged by the live path a moment ago is recorded a moment later.
    wait_for("each click has a recorded live verdict", 60, lambda: live_is_whole(stack), 0.3)
    rows = archive.clicks(stack.archive)
    copies, verdicts = {}, {}
    for row in rows:
        copies[row["id"]] = copies.get(row["id"], 0) + 1
        verdicts.setdefault(row["id"], []).append(row["final"]["verdict"])
    attempts = {e: (a.tried, a.acknowledged) for e, a in clients.attempts.items()}
    bad = oracle.check_sets(attempts, copies, verdicts)
    check(not bad, f"{len(bad)} clicks lost or made:\n" + "\n".join(bad[:8]))
    check(acknowledged <= len(rows) <= tried,
          f"acknowledged {acknowledged} <= accounted {len(rows)} <= attempted {tried}")
    judge = oracle.Judge(campaigns)
    judged = [judge.one(oracle.click_of(oracle.click_loads(
        json.dumps(clients.attempts[row["id"]].click))), "demo") for row in rows]
    ledger.clicks_equal(rows, judged)
    ledger.stats_equal(stack, judged)
    ledger.ledger_equal(stack, judged, campaigns)
    ledger.certificates_equal(stack, judged)
    ledger.identity_of_runs(stack)
    wait_for("live counts reach the log's end", 40,
             lambda: stack.live_total_or_zero() >= len(rows), 0.1)
    ledger.live_equal(stack, rows, campaigns)
    duplicates = sum(j.verdict == "duplicate" for j in judged)
    print(f"acknowledged {acknowledged} <= accounted {len(rows)} <= attempted {tried}; "
          f"{len(copies)} different, {duplicates} duplicates; "
          f"{sum(j.unit_price for j in judged)} micros in the ledger; "
          f"answers {dict(sorted(clients.answers.items(), key=str))}", flush=True)


def live_is_whole(stack):
    try:
        archive.clicks(stack.archive, final=False)
        return True
    except FileNotFoundError:
        return False


def stack_start(config=None, **options):
    """A stack with plain campaigns and a key."""
    stack = harness.Stack(config, **options)
    stack.servers_start()
    stack.run_start()
    text = harness.plain_campaigns(CAMPAIGNS)
    stack.campaigns_import(text)
    stack.key_create("demo")
    time.sleep(1.0)
    return stack, oracle.campaigns_load(text)
