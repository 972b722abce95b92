#!/usr/bin/env python3
"""From a posted click to a paid invoice, equal to the oracle to the micro-unit.

Two days of generated traffic and some clicks by other clients are posted, seen live, closed,
reconciled and invoiced; then late ones; and what must be refused is refused.

    test_pipeline.py [--seed N] [--clicks N] [--campaigns N]
"""
import argparse
import datetime
import json
import os
import random
import subprocess
import time

import archive
import harness
import ledger
from harness import check, make_click, oracle, step


class Pipeline:
    def __init__(self, options, stack=None):
        self.options = options
        self.rng = random.Random(options.seed)
        self.stack = stack or harness.Stack()
        self.lines = []      # of the oracle
        self.requests = 0
        self.end_ms = harness.day_start(-2)  # midnight of the last generated day
        self.campaigns = None
        self.judged = []

    def serve(self):
        self.stack.servers_start()
        self.stack.run_start()

    def start(self):
        stack, o = self.stack, self.options
        self.serve()
        csv_path = os.path.join(stack.dir, "gen.csv")
        self.gen = ["gen", "--seed", o.seed, "--days", 2, "--clicks", o.clicks, "--campaigns",
                    o.campaigns, "--end", time.strftime("%Y-%m-%d", time.gmtime(self.end_ms / 1000))]
        stack.cli(*self.gen, "--campaigns-out", csv_path)
        with open(csv_path, encoding="utf-8", newline="") as file:
            text = file.read()
        text += "rival-1,Rival,rival,adv9001,Rival,EUR,Asia/Kathmandu,active,0.33,,1,,\r\n"
        self.campaigns = oracle.campaigns_load(text)
        stack.campaigns_import(text)
        self.key, self.key_path = stack.key_create("demo")
        self.rival, _ = stack.key_create("rival", "ingest,read")
        time.sleep(1.0)  # master.poll_ms is 100: every stage has the campaigns by now

    def note(self, clicks, account=None):
        """One request's accepted clicks, for the oracle."""
        for index, click in enumerate(clicks):
            click = oracle.click_of(oracle.click_loads(json.dumps(click)))
            order = (self.requests, oracle.partition_of(click["campaign_id"]), index)
            self.lines.append((order, account, 0, click))
        self.requests += 1

    def generate(self):
        truth = os.path.join(self.stack.dir, "truth.ndjson")
        done = self.stack.cli(*self.gen, "--url", f"http://127.0.0.1:{self.stack.ingest_port}",
                              "--key-file", self.key_path, "--truth", truth)
        step(done.stdout.strip())
        with open(truth, encoding="utf-8") as file:
            text = file.read()
        self.lines += oracle.lines_load(text)
        self.requests = 1 + max(line[0][0] for line in self.lines)
        self.refused = text.count('"status":"rejected"')

    def some(self, n, **changes):
        return [make_click(900000 + self.rng.getrandbits(20), self.end_ms + self.rng.randrange(80_000_000),
                           f"c{self.rng.randrange(4):05d}", self.rng, **changes) for _ in range(n)]

    def take(self, clicks, account=None):
        """One request, all of it accepted."""
        answer = self.stack.post(clicks, key=self.rival if account else None)
        check(answer.status == 202 and answer.json()["accepted"] == len(clicks),
              f"{answer.status} {answer.body!r}")
        self.note(clicks, account)

    def edges(self):
        """What generated traffic meets only by chance."""
        day = self.end_ms
        for campaign in ("c00000", "c00004"):  # Berlin and Kolkata, the ms before midnight and at it
            zone = oracle.zoneinfo.ZoneInfo(self.campaigns[campaign].zone)
            offset_s = datetime.datetime.fromtimestamp(day / 1000, zone).utcoffset().total_seconds()
            at = day - int(offset_s) * 1000
            self.take([make_click(800000 + i, at + i, campaign, self.rng) for i in (-1, 0, 1)])
        # Ids are an account's own: what one has sent is new from another.
        mine = [make_click(810000 + i, day + i * 1000, "c00000", self.rng) for i in range(5)]
        self.take(mine)
        self.take([dict(c, campaign_id="rival-1") for c in mine], "rival")
        # One account's ids are one series, whatever campaigns they are sent for: the judge sees it,
        # live does not, and which campaign's worker is quicker changes nothing.
        for i in range(20):
            one = make_click(840000 + i, day + 4000_000 + i * 100_000, "c00001", self.rng)
            self.take([one] + [dict(one, campaign_id=f"c{n:05d}") for n in range(5, 9)])
        # Ten in a second are no flood, however often one of them is sent again.
        one = [make_click(820000 + i, day + 7200_000 + i, "c00000", self.rng, ip_address="192.0.2.7")
               for i in range(10)]
        for _ in range(12):
            self.take(one[:1])
        self.take(one[1:])
        # The first received wins, another payload or not, in the same request and later.
        first = make_click(830000, day + 3600_000, "c00000", self.rng)
        self.take([first, dict(first, city="Bonn"), first])
        self.take([dict(first, timestamp=harness.iso(day + 3601_000))])

    def other_clients(self):
        """Each form that ingest takes, partial success, and a key that owns no campaign."""
        stack = self.stack
        for form, packed in (("object", False), ("array", True), ("ndjson", True)):
            clicks = self.some(1 if form == "object" else 7)
            answer = stack.post(clicks, form=form, packed=packed)
            check(answer.status == 202 and answer.json()["accepted"] == len(clicks),
                  f"{form}: {answer.status} {answer.body!r}")
            self.note(clicks)
        clicks = self.some(5)
        status, body = stack.curl(clicks)
        check(status == 202 and json.loads(body)["accepted"] == 5, f"curl: {status} {body}")
        self.note(clicks)
        clicks = self.some(3)
        answer = stack.post([clicks[0], dict(clicks[1], country="Germany"), clicks[2]])
        error = answer.json()["errors"][0]
        check(answer.status == 202 and (answer.json()["accepted"], error["index"], error["field"])
              == (2, 1, "country"), f"partial success: {answer.status} {answer.body!r}")
        self.lines += [((self.requests, oracle.partition_of(c["campaign_id"]), i), None, 0,
                        oracle.click_of(oracle.click_loads(json.dumps(c))))
                       for i, c in ((0, clicks[0]), (2, clicks[2]))]
        self.requests += 1
        self.edges()
        foreign = self.some(6) + self.some(2, campaign_id="nobody-9")
        check(stack.post(foreign, key=self.rival).status == 202, "a foreign key's clicks are taken")
        self.note(foreign, "rival")
        for query, clicks, want in (("?dry_run=1", self.some(3), (200, 202)),
                                    ("", [dict(self.some(1)[0], event_id="x")], (400,))):
            check(stack.post(clicks, query=query).status in want, f"{query} is {want}")
        check(stack.post(self.some(1), key="no-such-key").status == 401, "an unknown key is refused")
        answer = harness.http_call(stack.ingest_port, "POST", "/v1/clicks", b'[{"event_id":1},',
                                   stack.headers())
        check(answer.status == 400, "a malformed array is refused")
        self.refused += 2
        dead = stack.cli("dlq", "list", "--json", "--limit", 100000).stdout
        check(dead.count('"event_id"') >= self.refused or len(dead.splitlines()) >= self.refused,
              f"the dead-letter log holds the {self.refused} refused clicks")

    def judge(self):
        self.judged = oracle.judge_lines(oracle.Judge(self.campaigns), self.lines, "demo")
        return self.judged

    def live_wait(self):
        known = sum(j.campaign in self.campaigns for j in self.judged)
        self.stack.live_wait(known)
        check(self.stack.live_total() == known, "live has counted each click once")

    def days(self):
        return sorted({j.day for j in self.judged})

    def months(self):
        return sorted({j.day[:7] for j in self.judged})

    def close(self, good=(0,)):
        for day in self.days():
            done = self.stack.cli("close", "--day", day, "--force", good=good)
            step(done.stdout.strip())

    def tampered(self):
        """A received count that nobody judged: the run is blocked, and so are invoices."""
        day = self.days()[1]
        self.stack.psql(
            "INSERT INTO received_count (hour, spool, incarnation, account_id, campaign_id, quarter, "
            f"clicks) SELECT '{day} 12:00Z', 1, 1, id, 'c00000', '{day} 12:00Z', 1 FROM account "
            "WHERE name = 'demo'")
        done = self.stack.cli("close", "--day", day, "--force", good=(1,))
        check("1 blocked" in done.stdout, f"one zone is blocked: {done.stdout}")
        differences = self.stack.psql("SELECT c.differences FROM certificate c JOIN billing_run r "
                                      "ON r.id = c.run_id WHERE r.status = 'blocked'")
        check(len(differences) == 1 and "c00000" in differences[0][0], f"named: {differences}")
        posted = self.stack.psql("SELECT count(*) FROM campaign_daily_stats s JOIN billing_run r ON "
                                 "r.id = s.run_id WHERE r.status = 'blocked'")
        check(posted == [["0"]], "a blocked run posts nothing")
        self.stack.cli("invoice", "draft", "--month", day[:7], good=None)
        done = self.stack.cli("invoice", "finalise", "--month", day[:7], "--partial", good=(1,))
        check("blocked" in done.stderr, f"the invoice says why: {done.stderr}")
        self.stack.psql("DELETE FROM received_count WHERE spool = 1")
        step("a tampered received count blocks the day and its invoices")

    def close_twice_at_once(self, day):
        words = [self.stack.binary, "close", "--day", day, "--force"]
        both = [subprocess.Popen(words, env=self.stack.env, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True) for _ in range(2)]
        outs = [child.communicate(timeout=120) for child in both]
        codes = [child.returncode for child in both]
        check(0 in codes, f"two closes at once: {outs}")
        for code, (_, err) in zip(codes, outs):
            check(code == 0 or (code == 1 and "another judge is at work" in err),
                  f"two closes at once: {outs}")
        twice = self.stack.psql(f"SELECT time_zone, count(*) FROM billing_run WHERE day = '{day}' "
                                "AND kind = 'regular' GROUP BY 1 HAVING count(*) > 1")
        check(not twice, f"closed twice: {twice}")
        step("two closes at once: " + " | ".join(out.strip() for out, _ in outs))

    def posted(self):
        return self.stack.psql("SELECT (SELECT count(*) FROM billing_run), (SELECT count(*) FROM "
                               "ledger_entry), (SELECT sum(clicks) FROM campaign_daily_stats)")

    def equal(self):
        rows = archive.clicks(self.stack.archive)
        ledger.clicks_equal(rows, self.judged)
        ledger.stats_equal(self.stack, self.judged)
        ledger.ledger_equal(self.stack, self.judged, self.campaigns)
        ledger.certificates_equal(self.stack, self.judged)
        ledger.identity_of_runs(self.stack)
        ledger.live_equal(self.stack, rows, self.campaigns)
        return rows

    def reconcile(self):
        for day in self.days():
            table = json.loads(self.stack.cli("reconcile", "--day", day, "--json").stdout)
            check(table["unexplained"] == 0, f"{day}: {table['unexplained']} unexplained")
            check(table["same"] + table["different"] == table["clicks"], f"{day}: {table}")
            reasons = {}
            for row in table["campaigns"]:
                for name, n in row.items():
                    if isinstance(n, int) and n and "billable" not in name and name != "clicks":
                        reasons[name] = reasons.get(name, 0) + n
            step(f"reconcile {day}: {table['clicks']} clicks, {table['different']} different: {reasons}")

    def one_click(self):
        seen = set()
        for want in self.judged:
            if want.verdict in seen or want.verdict == "duplicate":
                continue
            seen.add(want.verdict)
            shown = self.stack.cli("click", "show", want.event_id, "--json").stdout
            check(want.event_id in shown and want.verdict in shown and want.reason in shown,
                  f"click show {want.event_id}: {want.verdict} {want.reason}: {shown}")
            answer = self.stack.get(f"/v1/clicks/{want.event_id}")
            check(answer.status == 200 and want.verdict in answer.body.decode(),
                  f"GET /v1/clicks/{want.event_id}: {answer.status} {answer.body!r}")
        self.stack.cli("click", "show", "00000000-0000-4000-8000-00000000dead", good=(1,))

    def dashboard(self):
        """One campaign's days by the API, against the recorded verdicts and the oracle."""
        final = {}
        for j in self.judged:
            if j.campaign == "c00000" and j.account == "demo":
                row = final.setdefault(j.day, [0, 0])
                row[0] += j.verdict == "billable"
                row[1] += j.unit_price
        start = harness.iso(self.end_ms - 3 * 86_400_000)
        end = harness.iso(self.end_ms + 3 * 86_400_000)
        answer = self.stack.get(f"/v1/campaigns/c00000/stats?from={start}&to={end}&granularity=1d")
        check(answer.status == 200, f"stats: {answer.status} {answer.body!r}")
        clicks = sum(row["clicks"] for row in answer.json()["rows"])
        check(clicks == sum(n for n, _ in final.values()),
              f"stats of c00000: {answer.body!r}, should be {final}")
        check(self.stack.get("/v1/campaigns/c00000/stats?granularity=1d", self.rival).status == 404,
              "another account's campaign is not there")
        check(self.stack.get("/livez").status == 200, "/livez answers")

    def invoice(self, judged):
        """Draft, finalise, export; returns the numbers."""
        numbers = []
        for month in sorted({j.day[:7] for j in judged}):
            part = [j for j in judged if j.day[:7] == month]
            self.stack.cli("invoice", "draft", "--month", month)
            if time.strftime("%Y-%m", time.gmtime()) == month:
                self.stack.cli("invoice", "finalise", "--month", month, good=(1,))
            self.stack.cli("invoice", "finalise", "--month", month, "--partial")
            out = os.path.join(self.stack.dir, "invoices.csv")
            self.stack.cli("invoice", "export", "--month", month, "--format", "csv", "--out", out)
            with open(out, encoding="utf-8", newline="") as file:
                text = file.read()
            before = getattr(self, "exported", {}).get(month, "")
            rows = [line for line in text.splitlines(True)
                    if line not in before.splitlines(True)[1:]]
            numbers += ledger.invoices_equal("".join(rows), part, self.campaigns)
            self.exported = dict(getattr(self, "exported", {}), **{month: text})
            again = self.stack.cli("invoice", "export", "--month", month, "--format", "csv").stdout
            check(again.replace("\r\n", "\n") == text.replace("\r\n", "\n"), "issued bytes stay")
            self.receivable_equal(month)
        step(f"{len(numbers)} invoices, {numbers[0]} to {numbers[-1]}")
        return numbers

    def receivable_equal(self, month):
        """What is owed is what the invoices say; unbilled and rounding account for the rest."""
        bad = self.stack.psql(f"""SELECT i.number FROM invoice i JOIN ledger_transaction t ON
            t.invoice_id = i.id JOIN ledger_entry e ON e.transaction_id = t.id WHERE i.month =
            '{month}-01' AND i.status = 'final' AND e.ledger_account LIKE 'receivable:%'
            AND e.micros <> i.total_minor * 10::numeric ^ (6 - i.places)""")
        check(not bad, f"receivable is not the invoice's total: {bad}")
        left = self.stack.psql("SELECT ledger_account, currency, sum(micros) FROM ledger_entry WHERE "
                               f"ledger_account LIKE 'unbilled:%' GROUP BY 1, 2 HAVING sum(micros) <> 0")
        if month == self.months()[-1]:
            check(not left, f"billed, and yet unbilled: {left}")

    def gapless(self, numbers):
        last = [int(n.rsplit("-", 1)[1]) for n in numbers]
        check(sorted(last) == list(range(1, len(last) + 1)), f"numbers have gaps: {numbers}")
        for sql in (f"UPDATE invoice SET total_minor = 0 WHERE number = '{numbers[0]}'",
                    f"DELETE FROM invoice WHERE number = '{numbers[0]}'", "DELETE FROM invoice_line"):
            try:
                self.stack.psql(sql)
            except harness.Failed:
                continue
            raise harness.Failed(f"a final invoice was changed: {sql}")

    def late(self):
        before = len(self.judged)
        clicks = self.some(40) + self.some(3, campaign_id="nobody-1") + self.some(2, test=True)
        clicks += clicks[:5]
        check(self.stack.post(clicks).status == 202, "late clicks are accepted")
        self.note(clicks)
        self.judge()
        self.live_wait()
        self.close()
        late = self.stack.psql("SELECT count(*) FROM billing_run WHERE kind = 'late'")
        check(int(late[0][0]) >= 1, "late clicks post as late runs")
        self.equal()
        return self.judged[before:]

    def closed_is_closed(self):
        """Nothing back-dates into a closed day, and a run whose input changed is refused."""
        day = self.days()[1]
        line = next(c for c in self.campaigns.values() if c.id == "c00000")
        text = harness.CAMPAIGN_HEADER + (
            f"c00000,,demo,{line.advertiser},,{line.currency},{line.zone},active,9.99,"
            f"{day}T10:00:00Z,20,,\r\n")
        path = os.path.join(self.stack.dir, "back.csv")
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        done = self.stack.cli("campaign", "import", path, good=(1, 2))
        check("closed" in done.stdout + done.stderr, f"refused by name: {done.stdout}{done.stderr}")
        before = self.posted()
        self.stack.psql(f"UPDATE billing_run SET input_hash = sha256('x') WHERE day = '{day}' AND "
                        "time_zone = 'Europe/Berlin' AND sequence = 0")
        done = self.stack.cli("close", "--day", day, "--force", good=(1, 2))
        check("is closed" in done.stderr, f"a changed closed day is refused: {done.stderr}")
        check(self.posted() == before, "a refused close writes nothing")

    def run(self):
        step(f"seed {self.options.seed}, {self.stack.dir}")
        self.start()
        self.generate()
        self.other_clients()
        judged = self.judge()
        step(f"{len(judged)} clicks of {len(self.days())} local days; the oracle has judged them")
        self.live_wait()
        step("all are visible live")
        self.tampered()
        self.close_twice_at_once(self.days()[1])
        self.close()
        before = self.posted()
        self.close()
        check(self.posted() == before, "the same input again is a no-op")
        self.equal()
        step("verdicts, statistics, ledger, certificates, live counts: equal to the oracle")
        self.reconcile()
        self.one_click()
        self.dashboard()
        numbers = self.invoice(judged)
        late = self.late()
        step("late clicks posted as late runs, equal to the oracle")
        self.reconcile()
        numbers += self.invoice(late)
        self.gapless(numbers)
        self.closed_is_closed()
        check(self.stack.run_stop() == 0, "clickledger stops cleanly")


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--seed", type=int, default=20261121)
    args.add_argument("--clicks", type=int, default=30000)
    args.add_argument("--campaigns", type=int, default=40)
    options = args.parse_args()
    harness.main(lambda: Pipeline(options).run(), 280)


if __name__ == "__main__":
    main()
