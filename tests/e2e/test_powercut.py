#!/usr/bin/env python3
"""Power cuts: what clickledger wrote and did not sync is lost, at random times, under load.

    test_powercut.py [--rounds 10] [--seed N]

tests/powercut's library is preloaded into `clickledger run`, and now and then into a
closing `clickledger judge`; PostgreSQL and Redis keep their power. After each cut clickledger
starts again; at the end the same equalities as in test_kill.py. CLICKLEDGER_POWERCUT names the
library. A binary built with a sanitizer cannot be preloaded: then this is skipped.
"""
import argparse
import os
import random
import signal
import subprocess
import sys
import time

import clients
import harness
from harness import check, step

CUT = 137


def preload(shim, data, seed):
    return {"LD_PRELOAD": shim, "POWERCUT_DIR": data, "POWERCUT_SEED": str(seed)}


def is_sanitized(binary):
    libraries = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
    return "libasan" in libraries or "libtsan" in libraries


def cut_run(stack, load, rng):
    time.sleep(rng.uniform(0.2, 1.5))
    os.kill(stack.child.pid, signal.SIGUSR2)
    code = stack.child.wait(30)
    check(code == CUT, f"the power was cut, and yet clickledger ended with {code}")
    return load.acknowledged()


def cut_judge(stack, shim, rng, seed):
    """The judge's files: cut while it works, then let it work to its end."""
    env = dict(stack.env, **preload(shim, stack.data, seed))
    child = subprocess.Popen([stack.binary, "judge", "--now"], env=env, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True)
    time.sleep(rng.uniform(0.02, 0.4))
    if child.poll() is None:
        os.kill(child.pid, signal.SIGUSR2)
    err = child.communicate(timeout=60)[1]
    # Before the library has started, the signal ends the process in the ordinary way.
    check(child.returncode in (0, CUT, -signal.SIGUSR2), f"judge: {child.returncode} {err}")
    stack.cli("judge", "--now")
    return child.returncode == CUT


def run(rounds, seed, shim):
    rng = random.Random(seed)
    stack, campaigns = clients.stack_start({"archive.roll_s": 1})
    step(f"seed {seed}, {rounds} rounds, {stack.dir}")
    check(stack.run_stop() == 0, "clickledger stops cleanly")
    load = clients.Clients(stack, seed)
    # 0: everything that is not synced is lost; else by a coin.
    stack.run_start(extra_env=preload(shim, stack.data, 0))
    load.start()
    judges = 0
    for n in range(rounds):
        if n % 3 == 2:
            judges += cut_judge(stack, shim, rng, rng.randrange(1, 1 << 30))
        acknowledged = cut_run(stack, load, rng)
        stack.run_start(extra_env=preload(shim, stack.data, 0 if n % 2 else rng.randrange(1, 1 << 30)))
        load.visible(acknowledged)
        step(f"cut {n + 1}: {acknowledged} acknowledged, all there")
    load.stop()
    step(f"{judges} cuts hit the judge at work")
    clients.verify(stack, load, campaigns)
    check(stack.run_stop() == 0, "clickledger stops cleanly")


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--rounds", type=int, default=10)
    args.add_argument("--seed", type=int, default=int(time.time()))
    options = args.parse_args()
    shim = os.environ.get("CLICKLEDGER_POWERCUT", "")
    binary = os.environ.get("CLICKLEDGER_BIN", "")
    if not os.path.exists(shim) or not os.path.exists(binary):
        print("skipped: CLICKLEDGER_POWERCUT and CLICKLEDGER_BIN name the library and the binary")
        sys.exit(harness.SKIPPED)
    if is_sanitized(binary):
        print("skipped: the binary is built with a sanitizer; use the release preset")
        sys.exit(harness.SKIPPED)
    harness.main(lambda: run(options.rounds, options.seed, os.path.abspath(shim)),
                 120 + 10 * options.rounds)


if __name__ == "__main__":
    main()
