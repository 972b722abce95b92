#!/usr/bin/env python3
"""Redis wiped, restored from an older copy, away; PostgreSQL away: counts right by themselves.

    test_restore.py [--seed N]

`clickledger doctor` and the live path's own log say what happened.
"""
import argparse
import os
import shutil
import time

import clients
import harness
from harness import check, step


class Restore:
    def __init__(self, seed):
        self.seed = seed
        self.stack, self.campaigns = clients.stack_start()
        self.load = clients.Clients(self.stack, seed)
        self.copy = os.path.join(self.stack.dir, "redis-before")

    def pause(self, seconds):
        time.sleep(seconds)

    def events(self):
        path = os.path.join(self.stack.data, "aggregate", "events.log")
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as file:
            return file.readlines()

    def said(self, before, *words):
        """The live path has noted it: a new line with one of the words."""
        def noted():
            new = [line for line in self.events()[before:] if any(w in line for w in words)]
            return new and new[0].strip()
        line = harness.wait_for(f"events.log says one of {words} ({self.events()[before:]})", 30, noted)
        step(f"noted: {line}")
        done = self.stack.cli("doctor", good=(0, 1))
        check(any(w in done.stdout for w in words), f"doctor says {words}: {done.stdout}")

    def right_again(self):
        self.load.visible(self.load.acknowledged())

    def wiped(self):
        before = len(self.events())
        redis = self.stack.redis()
        redis("FLUSHALL")
        redis.close()
        self.right_again()
        self.said(before, "rebuil", "wiped", "empty")
        step("Redis wiped: counts are right again")

    def snapshot_take(self):
        self.stack.redis_kill()
        shutil.copytree(os.path.join(self.stack.dir, "redis"), self.copy)
        self.stack.redis_start()
        self.right_again()

    def snapshot_restore(self):
        before = len(self.events())
        self.stack.redis_kill()
        shutil.rmtree(os.path.join(self.stack.dir, "redis"))
        shutil.copytree(self.copy, os.path.join(self.stack.dir, "redis"))
        self.stack.redis_start()
        self.right_again()
        self.said(before, "roll", "rewound", "lower", "older", "behind")
        step("Redis restored from an older copy: counts are right again")

    def restored_while_down(self):
        """The same while clickledger is down too: it finds an older Redis at its start."""
        self.stack.run_kill()
        self.stack.redis_kill()
        shutil.rmtree(os.path.join(self.stack.dir, "redis"))
        shutil.copytree(self.copy, os.path.join(self.stack.dir, "redis"))
        self.stack.redis_start()
        self.stack.run_start()
        self.right_again()
        step("both restarted, Redis older: counts are right again")

    def redis_away(self):
        self.stack.redis_kill()
        before = self.load.acknowledged()
        self.pause(3)
        check(self.load.acknowledged() > before, "clicks are taken while Redis is away")
        check(self.stack.get("/livez").status == 200, "/livez answers while Redis is away")
        answer = self.stack.get("/v1/campaigns/c00000/stats?granularity=1d")
        check(answer.status in (200, 503), f"stats say so: {answer.status} {answer.body!r}")
        step(f"stats while Redis is away: {answer.status} {answer.body[:160]!r}")
        self.stack.redis_start()
        self.right_again()

    def postgres_away(self):
        self.stack.postgres_kill()
        before = self.load.acknowledged()
        self.pause(2)
        now = self.load.acknowledged()
        check(now > before, "clicks are taken while PostgreSQL is away")
        self.load.visible(now)
        step("PostgreSQL away: ingest and live go on")
        self.stack.run_kill()
        self.stack.run_start()  # from the copy of the master data
        before = self.load.acknowledged()
        harness.wait_for("clicks are taken after a start without PostgreSQL", 20,
                         lambda: self.load.acknowledged() > before)
        self.right_again()
        self.stack.postgres_start()
        step("started without PostgreSQL, from the copy of the master data")

    def run(self):
        step(f"seed {self.seed}, {self.stack.dir}")
        self.load.start()
        self.pause(1)
        self.right_again()
        self.wiped()
        self.snapshot_take()
        self.pause(2)
        self.snapshot_restore()
        self.pause(1)
        self.restored_while_down()
        self.redis_away()
        self.postgres_away()
        self.wiped()
        self.load.stop()
        clients.verify(self.stack, self.load, self.campaigns)
        done = self.stack.cli("doctor", good=(0, 1))
        step("doctor: " + done.stdout.strip().replace("\n", "\n    "))
        check(self.stack.run_stop() == 0, "clickledger stops cleanly")


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--seed", type=int, default=int(time.time()))
    options = args.parse_args()
    harness.main(lambda: Restore(options.seed).run(), 200)


if __name__ == "__main__":
    main()
