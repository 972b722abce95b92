#!/usr/bin/env python3
"""The machine with the ingest log is lost while clicks come in, and a new one takes its place.

    test_machine_lost.py [--seed N] [--rounds 2]

With ingest.ack replicated a 202 survives that, up to the invoice: ingest and relay are killed,
their log and cursor deleted; `clickledger relay forget`; a new log; clients send again what was
not acknowledged, with the same ids. At the end each acknowledged click stands in the ledger
exactly once, equal to the oracle, and the certificates name what was counted from the archive.
PostgreSQL and Kafka are away once while the log is given up: that is said, and run again.
"""
import argparse
import json
import os
import random
import shutil
import time

import archive
import clients
import harness
import kafka_stack
from harness import check, step, wait_for

VISIBLE_S = 60


class LostTest:
    def __init__(self, options):
        self.options, self.rng = options, random.Random(options.seed)
        self.stack = kafka_stack.KafkaStack({"archive.roll_s": 2}, brokers=1, aggregators=1)
        self.load, self.campaigns, self.lost = None, None, []

    def start(self):
        text = harness.plain_campaigns(clients.CAMPAIGNS)
        self.stack.start_all(text)
        self.campaigns = harness.oracle.campaigns_load(text)
        self.stack.key_create("demo")
        time.sleep(1.0)
        self.load = clients.Clients(self.stack, self.options.seed)
        self.load.start()
        self.taken(200)

    def taken(self, more):
        before = self.load.acknowledged()
        wait_for(f"{more} more clicks are acknowledged", 60,
                 lambda: self.load.acknowledged() >= before + more, 0.02)

    def spool(self):
        return json.loads(self.stack.cli("relay", "status", "--json").stdout)["spool"]

    def told(self, spool):
        """PostgreSQL has heard of the log; it tells its counts every 30 s."""
        return self.stack.psql("SELECT 1 FROM ingest_spool WHERE heard_at IS NOT NULL AND "
                               f"lpad(to_hex(spool), 16, '0') = '{spool}'")

    def lose(self):
        """What only this machine had is gone: some clicks never got further."""
        stack, spool = self.stack, self.spool()
        stack.kill("relay")
        time.sleep(self.rng.uniform(0.05, 0.5))
        stack.kill("ingest")
        for name in ("log", "relay"):
            shutil.rmtree(os.path.join(stack.data, name))
        self.lost.append(spool)
        acknowledged, tried = self.load.totals()
        step(f"log {spool} is lost; {acknowledged} clicks acknowledged of {tried} attempted")
        return spool

    # -- giving it up -----------------------------------------------------------------------

    def forget(self, spool, *more, good=(0,)):
        return self.stack.cli("relay", "forget", spool, *more, good=good)

    def is_lost(self, spool):
        return self.stack.psql("SELECT lost_at FROM ingest_spool WHERE lost_at IS NOT NULL AND "
                               f"lpad(to_hex(spool), 16, '0') = '{spool}'")

    def refused(self, spool):
        done = self.forget(spool, good=(1,))
        check("not lost" in done.stderr and "--force" in done.stderr, done.stderr)
        check(not self.is_lost(spool), "refused, and yet given up")
        step("at once it is refused: " + done.stderr.strip())
        done = self.forget("feedfeedfeedfeed", good=(1,))
        check("feedfeedfeedfeed" in done.stderr, done.stderr)
        self.forget("nonsense", good=(1, 2))

    def refused_new(self):
        """A new log cannot take over before: it stores clicks, and acknowledges none."""
        self.stack.start("ingest")
        self.stack.run_wait()
        self.stack.start("relay")
        wait_for("the new log is refused", 30, lambda: self.stack.said("relay", "forget"), 0.1)
        before = self.load.acknowledged()
        time.sleep(2)
        check(self.load.acknowledged() == before, "acknowledged over topics that are another's")
        step("a new log is refused, and nothing is acknowledged")

    def servers_away(self, spool):
        stack = self.stack
        stack.postgres_kill()
        done = self.forget(spool, "--force", good=(1,))
        check("nothing is done" in done.stderr and "PostgreSQL" in done.stderr, done.stderr)
        stack.postgres_start()
        step("PostgreSQL is away: " + done.stderr.strip())
        stack.broker_kill(1)
        done = self.forget(spool, "--force", good=(1,))
        check("Kafka" in done.stderr and "run it again" in done.stderr, done.stderr)
        check(self.is_lost(spool), "PostgreSQL was told first")
        stack.broker_start(1)
        step("Kafka is away: " + done.stderr.strip().splitlines()[-1])

    def take_over(self, spool):
        done = json.loads(self.forget(spool, "--force", "--json").stdout)
        check(done["spool"] == spool and done["kafka_told"] is True, done)
        since = self.is_lost(spool)
        again = json.loads(self.forget(spool, "--json").stdout)
        check(again == done and self.is_lost(spool) == since, f"again: {again}")
        if not self.stack.runs("ingest"):  # it makes the log
            self.stack.start("ingest")
            self.stack.run_wait()
        self.stack.start("relay")
        self.taken(200)
        check(self.spool() != spool, "a log of its own")
        self.load.visible(self.load.acknowledged(), VISIBLE_S)
        step(f"log {self.spool()} has taken over: clicks are taken, and visible live")

    # -- the end ----------------------------------------------------------------------------

    def verify(self):
        stack = self.stack
        self.load.stop()
        clients.verify(stack, self.load, self.campaigns)
        rows = archive.clicks(stack.archive)
        incarnations = {row["incarnation"] for row in rows}
        check(len(incarnations) == len(self.lost) + 1, f"{len(incarnations)} incarnations")
        told = stack.psql("SELECT split_part(one, ':', 1), sum(split_part(one, ':', 2)::bigint) "
                          "FROM certificate c JOIN billing_run r ON r.id = c.run_id, "
                          "unnest(string_to_array(c.recounted_spools, ',')) AS one "
                          "WHERE r.status = 'posted' GROUP BY 1")
        step(f"counted from the archive: {dict(map(tuple, told))} of {len(rows)} clicks")
        check({spool for spool, _ in told} <= set(self.lost) and told, f"recounted: {told}")
        counted = int(stack.psql("SELECT coalesce(sum(clicks), 0) FROM received_count")[0][0])
        last = [row["incarnation"] for row in rows][-1]
        ours = sum(row["incarnation"] == last for row in rows)
        named = sum(int(n) for _, n in told)
        check(named <= len(rows) - ours, f"{named} recounted, {len(rows) - ours} of lost logs")
        check(named >= len(rows) - ours - counted, f"{named} recounted, {counted} told")
        blocked = stack.psql("SELECT time_zone, day FROM billing_run WHERE status = 'blocked'")
        check(not blocked, f"blocked: {blocked}")

    def invoices(self):
        stack = self.stack
        days = [row[0] for row in stack.psql(
            "SELECT DISTINCT day FROM campaign_daily_stats ORDER BY 1")]
        for day in days:
            stack.cli("reconcile", "--day", day)
        for month in sorted({day[:7] for day in days}):
            stack.cli("invoice", "draft", "--month", month)
        lines, clicks = stack.psql("SELECT count(*), sum(clicks) FROM invoice_line")[0]
        billed = stack.psql("SELECT sum(clicks) FROM campaign_daily_stats WHERE verdict IN "
                            "('billable', 'suspicious')")[0][0]
        check(clicks == billed, f"{clicks} clicks on drafts, {billed} billable")
        step(f"days {', '.join(days)} reconcile; {lines} lines of {clicks} clicks are drafted")
        done = stack.cli("doctor", good=(0, 1))
        check(all(spool in done.stdout for spool in self.lost), f"doctor: {done.stdout}")

    def run(self):
        step(f"seed {self.options.seed}, {self.stack.dir}")
        self.start()
        wait_for("the log has told PostgreSQL of itself", 60,
                 lambda: self.told(self.spool()), 0.5)
        spool = self.lose()
        self.refused(spool)
        self.refused_new()
        self.servers_away(spool)
        self.take_over(spool)
        for _ in range(1, self.options.rounds):
            # Before PostgreSQL has heard of it, for all we know.
            self.take_over(self.lose())
        self.verify()
        self.invoices()
        self.stack.all_alive()
        self.stack.stop_all()


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--rounds", type=int, default=2)
    args.add_argument("--seed", type=int, default=int(time.time()))
    options = args.parse_args()
    kafka_stack.kafka_or_skip()
    os.environ.setdefault("CLICKLEDGER_JVM_HEAP", "512")
    harness.main(lambda: LostTest(options).run(), 280)


if __name__ == "__main__":
    main()
