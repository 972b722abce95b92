#!/usr/bin/env python3
"""SIGKILL to clickledger, Redis and PostgreSQL in turn, at random times, under load.

    test_kill.py [--rounds 100] [--seed N]

After each round what was acknowledged is visible live again; at the end, click by click:
acknowledged <= accounted <= attempted, nothing lost, nothing twice, live counts equal to
the recorded verdicts, the ledger equal to the oracle.
"""
import argparse
import random
import time

import clients
import harness
from harness import check, step


def kill_round(stack, load, rng, victim):
    time.sleep(rng.uniform(0.05, 0.6))
    if victim == "clickledger":
        stack.run_kill()
        acknowledged = load.acknowledged()
        time.sleep(rng.uniform(0, 0.1))
        stack.run_start(wait=False)
        took = stack.run_wait(30)
    else:
        kill, start = (stack.redis_kill, stack.redis_start) if victim == "Redis" else \
            (stack.postgres_kill, stack.postgres_start)
        kill()
        before = load.acknowledged()
        began = time.monotonic()
        time.sleep(rng.uniform(0, 0.3))
        start()
        took = time.monotonic() - began
        harness.wait_for(f"clicks are taken without {victim}", 20,
                         lambda: load.acknowledged() > before, 0.01)
        acknowledged = load.acknowledged()
    load.visible(acknowledged)
    return took


def run(rounds, seed):
    rng = random.Random(seed)
    stack, campaigns = clients.stack_start()
    step(f"seed {seed}, {rounds} rounds, {stack.dir}")
    load = clients.Clients(stack, seed)
    load.start()
    slowest = {}
    for n in range(rounds):
        victim = ("clickledger", "Redis", "PostgreSQL")[n % 3]
        took = kill_round(stack, load, rng, victim)
        slowest[victim] = max(slowest.get(victim, 0), took)
        if n % 10 == 9:
            acknowledged, tried = load.totals()
            step(f"round {n + 1}: {acknowledged} acknowledged of {tried} attempted")
    load.stop()
    step("slowest start again: " + ", ".join(f"{k} {v:.2f} s" for k, v in slowest.items()))
    clients.verify(stack, load, campaigns)
    check(stack.run_stop() == 0, "clickledger stops cleanly")


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--rounds", type=int, default=100)
    args.add_argument("--seed", type=int, default=int(time.time()))
    options = args.parse_args()
    harness.main(lambda: run(options.rounds, options.seed), 180 + 6 * options.rounds)


if __name__ == "__main__":
    main()
