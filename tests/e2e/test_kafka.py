#!/usr/bin/env python3
"""The pipeline over a real broker: a process a stage, two aggregates, equal to the oracle to
the micro-unit and to the embedded run verdict for verdict.

    test_kafka.py [--seed N] [--clicks N] [--campaigns N] [--brokers N]

Then members join and leave; a broker loses the end of its log, and `relay rewind` heals it; and
a topic that kept too little for a slow reader is an error, never a jump.
"""
import argparse
import json
import os
import time

import archive
import clients
import kafka_check
import kafka_stack
import kafka_wire
import harness
import ledger
import test_pipeline
from harness import check, oracle, same, step, wait_for

ALARM_S = 40


def final_of(row):
    """All of a final verdict that does not name a run of the product."""
    return (row["id"], row["campaign_id"], row["partition"]) + tuple(
        sorted((k, v) for k, v in row["final"].items() if k not in ("seq", "incarnation", "master")))


def embedded(options):
    """The same clicks through one process without Kafka."""
    run = test_pipeline.Pipeline(options)
    run.start()
    run.generate()
    run.other_clients()
    run.judge()
    run.live_wait()
    run.close()
    rows = run.equal()
    found = ([final_of(row) for row in rows], ledger.stats(run.stack),
             run.stack.psql(ledger.LEDGER_SQL + " ORDER BY 1, 2, 3"))
    check(run.stack.run_stop() == 0, "clickledger stops cleanly")
    run.stack.stop()
    return found


class KafkaPipeline(test_pipeline.Pipeline):
    def __init__(self, options):
        # The oracle wants to know which clicks landed: an answer is worth waiting for.
        super().__init__(options, kafka_stack.KafkaStack({"ingest.ack_ms_max": 18000},
                                                         brokers=options.brokers))

    def serve(self):
        self.stack.start_all()

    def known(self):
        return sum(j.campaign in self.campaigns for j in self.judge())

    def settle(self, what):
        """All that was posted is live, closed, and as it should be."""
        self.live_wait_now()
        self.close()
        wait_for("each click has a recorded live verdict", 60,
                 lambda: clients.live_is_whole(self.stack), 0.3)
        rows = self.equal()
        step(f"{what}: {len(rows)} clicks, equal to the oracle; "
             + kafka_check.topics_equal(self.stack, rows))
        return rows

    def live_wait_now(self, seconds=60):
        self.stack.live_wait(self.known(), seconds)
        check(self.stack.live_total() == self.known(), "live has counted each click once")

    def post_some(self, requests, n, **changes):
        for _ in range(requests):
            self.take(self.some(n, **changes))

    # -- as without Kafka -----------------------------------------------------------------

    def same_as_embedded(self, found, rows):
        finals, stats, lines = found
        got = [final_of(row) for row in rows]
        check(len(got) == len(finals), f"{len(got)} clicks, {len(finals)} in the embedded run")
        bad = [f"  click {i}: {a}\n  embedded {b}" for i, (a, b) in enumerate(zip(got, finals))
               if a != b]
        check(not bad, f"{len(bad)} final verdicts are not those of the embedded run:\n"
              + "\n".join(bad[:4]))
        same("statistics of both runs", ledger.stats(self.stack), stats)
        check(self.stack.psql(ledger.LEDGER_SQL + " ORDER BY 1, 2, 3") == lines,
              "the ledgers of both runs differ")
        step(f"{len(got)} final verdicts, statistics and ledger: as the embedded run's")

    def schemas(self):
        listed = self.stack.get("/schemas/subjects")
        check(listed.status == 200 and "raw_clicks" in listed.body.decode(),
              f"/schemas/subjects: {listed.status} {listed.body!r}")
        topics = kafka_wire.Topics(self.stack.addresses())
        ids = set()
        for partition in topics.leaders(self.stack.prefix + "raw_clicks"):
            for message in topics.records(self.stack.prefix + "raw_clicks", partition):
                ids.add(int.from_bytes(message.value[1:5], "big"))
                last = message.value[5:]
        topics.close()
        for number in ids:
            answer = self.stack.get(f"/schemas/ids/{number}")
            check(answer.status == 200, f"/schemas/ids/{number}: {answer.status} {answer.body!r}")
            schema = json.loads(answer.json()["schema"])
            value, end = archive.decoder(schema, {})(last, 0)
            check(end == len(last) and value["campaign_id"], f"schema {number} reads its records")
        step(f"/schemas has the schema of ids {sorted(ids)}, and it reads what the topic holds")

    def doctor(self):
        done = self.stack.cli("doctor", good=(0, 1))
        check("afka" in done.stdout, f"doctor looks at Kafka: {done.stdout}")
        step("doctor: " + done.stdout.strip().replace("\n", "\n    "))

    # -- members come and go --------------------------------------------------------------

    def rebalance(self):
        stack = self.stack
        stack.aggregators.append("aggregate3")
        stack.start("aggregate3")
        for name, leave in (("aggregate1", stack.end), ("aggregate2", stack.kill)):
            self.post_some(40, 10)
            time.sleep(1.0)
            leave(name)
            self.post_some(40, 10)
            self.live_wait_now()
            step(f"{name} left: live is whole")
        stack.start("aggregate1")
        stack.start("aggregate2")
        self.post_some(20, 10)
        stack.kill("archive")
        self.post_some(20, 10)
        stack.start("archive")
        self.settle("members came and went")

    # -- a broker that lost what it had acknowledged ---------------------------------------

    def consumers(self):
        return [name for name in self.stack.running() if name.startswith(("aggregate", "archive"))]

    def truncated(self):
        """The end of a partition is lost before anybody has read it."""
        stack = self.stack
        # Its verdicts stay: only this topic's file is cut.
        names = self.consumers()
        for name in names:
            stack.end(name)
        campaign = "c00000"
        partition = oracle.partition_of(campaign)
        path = stack.segment("raw_clicks", partition)
        with open(path, "rb") as file:
            keep = len(list(kafka_wire.batches(file.read())))
        self.take([harness.make_click(900000 + i, self.end_ms + i, campaign, self.rng)
                   for i in range(50)])
        stack.broker_kill(1)
        cut, first = kafka_wire.segment_truncate(path, keep)
        check(cut > 0, "there is something to lose")
        stack.broker_start(1)
        self.take([harness.make_click(910000 + i, self.end_ms + i, campaign, self.rng)
                   for i in range(50)])
        for name in names:
            stack.start(name)
        wait_for("the gap is said", ALARM_S, lambda: any(
            stack.said(name, "gap") for name in names if name.startswith("aggregate")), 0.2)
        check(stack.live_total() < self.known(), "a gap is not jumped over")
        step(f"partition {partition} lost {cut} batches from offset {first} on: it stops")
        done = stack.cli("relay", "rewind", "--partition", partition)
        step(done.stdout.strip())
        self.settle("rewound")

    def retention(self):
        """What a slow reader has not seen is deleted: it says so and stands."""
        stack = self.stack
        names = self.consumers()
        for name in names:
            stack.end(name)
        before = stack.live_total()
        campaign = "c00001"
        partition = oracle.partition_of(campaign)
        self.take([harness.make_click(920000 + i, self.end_ms + i, campaign, self.rng)
                   for i in range(50)])
        topics = kafka_wire.Topics(stack.addresses())
        topic = stack.prefix + "raw_clicks"
        _, end = topics.ends(topic)[partition]
        topics.delete_before(topic, partition, end - 10)
        topics.close()
        for name in names:
            stack.start(name)
        found = wait_for("the reader says what it misses", ALARM_S, lambda: [
            line for name in names if name.startswith("aggregate")
            for line in stack.said(name, "retention", "no longer held", "not held")], 0.2)
        step(f"said: {found[-1]}")
        time.sleep(2)
        check(stack.live_total() == before, "the partition stands, nothing is jumped over")
        done = stack.cli("doctor", good=(1,))
        check(f"{partition}" in done.stdout, f"doctor names partition {partition}: {done.stdout}")
        # What it advises: live counts then lack what is lost to them, invoices do not.
        stack.cli("relay", "rewind", "--partition", partition)
        redis = stack.redis()
        redis("DEL", f"{{p{partition}}}:owner")
        redis.close()
        wait_for("the partition counts on", ALARM_S, lambda: any(
            stack.said(name, f"p{partition} built") for name in names), 0.2)
        self.judge()
        self.close()
        rows = archive.clicks(stack.archive, live=False)
        ledger.clicks_equal(rows, self.judged)
        ledger.stats_equal(stack, self.judged)
        ledger.ledger_equal(stack, self.judged, self.campaigns)
        ledger.certificates_equal(stack, self.judged)
        step(f"sent again from the spool: {len(rows)} clicks, ledger equal to the oracle")

    def run(self):
        found = embedded(self.options)
        step("the embedded run is done")
        step(f"seed {self.options.seed}, {self.stack.dir}")
        self.start()
        self.generate()
        self.other_clients()
        judged = self.judge()
        step(f"{len(judged)} clicks of {len(self.days())} local days; the oracle has judged them")
        rows = self.settle("over Kafka")
        self.same_as_embedded(found, rows)
        self.reconcile()
        self.one_click()
        self.dashboard()
        self.rebalance()
        self.reconcile()
        self.truncated()
        self.retention()
        self.schemas()
        self.doctor()
        self.stack.all_alive()
        self.stack.stop_all()


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--seed", type=int, default=20261121)
    args.add_argument("--clicks", type=int, default=20000)
    args.add_argument("--campaigns", type=int, default=40)
    args.add_argument("--brokers", type=int, default=1)
    options = args.parse_args()
    kafka_stack.kafka_or_skip()
    harness.main(lambda: KafkaPipeline(options).run(), 380)


if __name__ == "__main__":
    main()
