#!/usr/bin/env python3
"""Everything dies, stands still or is cut off in turn, over real brokers, at random times.

    test_kafka_kill.py [--rounds 40] [--brokers 1] [--seed N]

A round: SIGKILL; SIGSTOP for longer than the session time-out, then SIGCONT; or a cut network,
of a broker, the relay, an aggregate process, the archive, ingest or Redis, while members join and
leave the group. What was acknowledged is visible live again after each. At the end, click by
click: acknowledged <= accounted <= attempted, nothing lost, nothing twice; live counts equal to
the recorded verdicts, which are those of the highest epoch in the topic; the ledger equal to the
oracle. With three brokers one, then two of them are gone too: 503, never a false 202.
"""
import argparse
import os
import random
import time

import archive
import clients
import harness
import kafka_check
import kafka_stack
from harness import check, step, wait_for

SESSION_S = 1.5
VISIBLE_S = 60
CUTTABLE = ("relay", "aggregate1", "aggregate2", "archive")
PROCESSES = ("relay", "aggregate1", "aggregate2", "archive", "ingest")


class KillTest:
    def __init__(self, options):
        self.options, self.rng = options, random.Random(options.seed)
        self.stack = kafka_stack.KafkaStack({
            "kafka.session_ms": int(SESSION_S * 1000), "archive.roll_s": 2,
            "redis.timeout_ms": 1000}, brokers=options.brokers, cuttable=CUTTABLE)
        self.load, self.campaigns, self.slowest = None, None, {}

    def start(self):
        text = harness.plain_campaigns(clients.CAMPAIGNS)
        self.stack.start_all(text)
        self.campaigns = harness.oracle.campaigns_load(text)
        self.stack.key_create("demo")
        time.sleep(1.0)
        self.load = clients.Clients(self.stack, self.options.seed)
        self.load.start()

    # -- what happens in a round; each leaves everything running ----------------------------

    def pause(self, low, high):
        time.sleep(self.rng.uniform(low, high))

    def process_kill(self, name):
        self.stack.kill(name)
        self.pause(0, 0.5)
        self.stack.start(name)

    def process_freeze(self, name):
        self.stack.freeze(name)
        self.pause(SESSION_S + 0.5, SESSION_S + 2)
        self.stack.thaw(name)

    def broker_kill(self, k):
        self.stack.broker_kill(k)
        self.pause(0, 0.5)
        self.stack.broker_start(k)

    def broker_freeze(self, k):
        kafka_stack.frozen(self.stack.broker_pid(k), self.rng.uniform(1, SESSION_S + 2))

    def redis_kill(self, _):
        self.stack.redis_kill()
        self.pause(0, 0.5)
        self.stack.redis_start()

    def redis_freeze(self, _):
        kafka_stack.frozen(self.stack.redis_pid(), self.rng.uniform(1, 3))

    def line_cut(self, lines):
        how = self.rng.choice(("freeze", "cut"))
        lines = [self.rng.choice(lines)] if self.rng.random() < 0.5 else lines
        for line in lines:
            getattr(line, how)()
        self.pause(1, SESSION_S + 2.5)
        for line in lines:
            line.restore()

    def member_joins(self, _):
        """A third member for a while; it leaves in order, or it does not."""
        name = "aggregate3"
        self.stack.start(name, dynamic=self.rng.random() < 0.5)
        self.pause(0.5, 4)
        if self.rng.random() < 0.5:
            self.stack.kill(name)
        else:
            self.stack.end(name)

    def member_leaves(self, name):
        self.stack.end(name)
        self.pause(0, 2)
        self.stack.start(name)

    def rounds_of(self):
        """All kinds, shuffled anew each time they are through."""
        stack = self.stack
        kinds = [(f"SIGKILL {n}", self.process_kill, n) for n in PROCESSES]
        kinds += [(f"SIGSTOP {n}", self.process_freeze, n) for n in PROCESSES]
        kinds += [("SIGKILL Redis", self.redis_kill, None), ("SIGSTOP Redis", self.redis_freeze, None)]
        kinds += [(f"cut {n} from Kafka", self.line_cut, stack.lines[n]) for n in CUTTABLE]
        kinds += [(f"cut {n} from Redis", self.line_cut, [line])
                  for n, line in stack.redis_lines.items()]
        if stack.between:
            kinds += [("cut brokers from each other", self.line_cut, stack.lines["between"])]
        kinds += [("a member joins", self.member_joins, None)]
        kinds += [(f"{n} leaves", self.member_leaves, n) for n in ("aggregate1", "aggregate2")]
        while True:
            k = self.rng.randrange(self.options.brokers) + 1
            turn = kinds + [(f"SIGKILL broker {k}", self.broker_kill, k),
                            (f"SIGSTOP broker {k}", self.broker_freeze, k)]
            self.rng.shuffle(turn)
            yield from turn

    def round(self, what, act, argument):
        self.pause(0.05, 0.6)
        # Members come and go all through, also while something else goes wrong.
        guest = "a member" not in what and self.rng.random() < 0.3
        if guest:
            self.stack.start("aggregate3", dynamic=True)
        began = time.monotonic()
        act(argument)
        if guest:
            self.rng.choice((self.stack.kill, self.stack.end))("aggregate3")
        before = self.load.acknowledged()
        wait_for(f"clicks are taken again after: {what}", 40,
                 lambda: self.load.acknowledged() > before, 0.02)
        taken = time.monotonic() - began
        acknowledged = self.load.acknowledged()
        try:
            self.load.visible(acknowledged, VISIBLE_S)
        except harness.Failed as why:
            raise harness.Failed(f"after: {what}: {why}") from why
        self.stack.all_alive()
        self.facts_stand(what)
        took = time.monotonic() - began
        self.slowest[what] = max(self.slowest.get(what, 0), took)
        return taken, took

    def facts_stand(self, what):
        """Nobody has met two different verdicts of one owner for one click."""
        for name in (*PROCESSES, "aggregate3"):
            bad = self.stack.said(name, "verdicts_skipped")
            check(not bad, f"after: {what}: {name}: {bad}")

    # -- one of three, two of three ---------------------------------------------------------

    def brokers_gone(self):
        first, second = self.rng.sample(range(1, self.options.brokers + 1), 2)
        self.stack.broker_kill(first)
        before = self.load.acknowledged()
        wait_for(f"clicks are taken without broker {first}", 40,
                 lambda: self.load.acknowledged() > before + 50, 0.02)
        self.load.visible(self.load.acknowledged(), VISIBLE_S)
        step(f"broker {first} is gone: it goes on")
        self.stack.broker_kill(second)
        time.sleep(1)  # what was on its way is answered
        before, refused = self.load.acknowledged(), self.load.answers.get(503, 0)
        wait_for("clicks are answered 503", 30,
                 lambda: self.load.answers.get(503, 0) > refused + 10, 0.05)
        time.sleep(3)
        check(self.load.acknowledged() == before,
              f"{self.load.acknowledged() - before} clicks were answered 202 without a quorum")
        step(f"broker {second} is gone too: {self.load.answers[503] - refused} requests got 503, none 202")
        self.stack.broker_start(second)
        wait_for("clicks are taken again with two brokers", 60,
                 lambda: self.load.acknowledged() > before, 0.02)
        self.stack.broker_start(first)
        self.load.visible(self.load.acknowledged(), VISIBLE_S)
        step("both are back: it goes on")

    # -- the end ----------------------------------------------------------------------------

    def verify(self):
        self.load.stop()
        clients.verify(self.stack, self.load, self.campaigns)
        step(kafka_check.topics_equal(self.stack, archive.clicks(self.stack.archive)))
        fenced = [name for name in ("aggregate1", "aggregate2", "aggregate3")
                  if self.stack.said(name, "fenced")]
        step(f"fenced at least once: {', '.join(fenced) or 'none'}")
        self.stack.all_alive()
        self.stack.stop_all()

    def run(self):
        options = self.options
        step(f"seed {options.seed}, {options.rounds} rounds, {options.brokers} brokers, "
             f"{self.stack.dir}")
        self.start()
        self.load.visible(self.load.acknowledged(), VISIBLE_S)
        rounds = self.rounds_of()
        if options.brokers >= 3:
            self.brokers_gone()
        for n in range(options.rounds):
            what, act, argument = next(rounds)
            taken, took = self.round(what, act, argument)
            acknowledged, tried = self.load.totals()
            step(f"round {n + 1}, {what}: taken after {taken:.1f} s, visible after {took:.1f} s; "
                 f"{acknowledged} acknowledged of {tried} attempted")
        self.verify()


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--rounds", type=int, default=40)
    args.add_argument("--brokers", type=int, default=1)
    args.add_argument("--seed", type=int, default=int(time.time()))
    options = args.parse_args()
    kafka_stack.kafka_or_skip()
    os.environ.setdefault("CLICKLEDGER_JVM_HEAP", "384" if options.brokers > 1 else "512")
    harness.main(lambda: KillTest(options).run(), 200 + 15 * options.rounds)


if __name__ == "__main__":
    main()
