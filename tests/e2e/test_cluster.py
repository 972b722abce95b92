#!/usr/bin/env python3
"""Live counts on a Redis Cluster: masters die, also with writes that no replica has.

    test_cluster.py [--seed N]

Clicks are posted all the time. The dashboard must never show what is not so; what was counted
and lost with a master is counted again from the recorded verdicts.
"""
import argparse
import os
import re
import threading
import time

import clients
import cluster_stack
import harness
import ledger
from harness import check, oracle, same, step, wait_for


class Watcher:
    """Reads every campaign's stats all the time."""

    def __init__(self, test):
        self.test, self.answers, self.bad = test, [], []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def work(self):
        while not self.stopping.is_set():
            for campaign in self.test.campaigns:
                try:
                    self.look(campaign)
                except (OSError, KeyError, ValueError) as why:
                    self.bad.append(f"{campaign}: {why!r}")
            time.sleep(0.02)

    def look(self, campaign):
        answer = self.test.stats(campaign)
        tried = self.test.tried(campaign)
        if answer.status != 200:
            self.bad.append(f"{campaign}: {answer.status} {answer.body!r}")
            return
        rows = answer.json()["rows"]
        known = [row for row in rows if row["state"] != "unavailable"]
        if any("clicks" in row for row in rows if row["state"] == "unavailable"):
            self.bad.append(f"{campaign}: a number that nobody knows: {rows}")
        clicks = sum(row["clicks"] + row["duplicate"] for row in known)
        if clicks > tried:
            self.bad.append(f"{campaign}: {clicks} clicks, {tried} were attempted: {rows}")
        self.answers.append((time.monotonic(), campaign, len(known) == len(rows), clicks))

    def during(self, from_s, campaigns):
        """(whole answers, all answers) since from_s of some campaigns."""
        mine = [a for a in self.answers if a[0] >= from_s and a[1] in campaigns]
        return sum(a[2] for a in mine), len(mine)

    def stop(self):
        self.stopping.set()
        self.thread.join(30)
        check(not self.bad, f"{len(self.bad)} wrong answers:\n" + "\n".join(self.bad[:5]))


class Cluster:
    def __init__(self, seed):
        self.seed = seed
        self.stack = cluster_stack.ClusterStack()
        self.stack.servers_start()
        self.stack.run_start()
        text = harness.plain_campaigns(clients.CAMPAIGNS)
        self.stack.campaigns_import(text)
        self.stack.key_create("demo")
        self.campaigns = oracle.campaigns_load(text)
        self.load = clients.Clients(self.stack, seed)
        # All local days that the clicks can fall on; what is older than 9 days is not live.
        self.query = (f"from={harness.iso(harness.day_start(-4))}"
                      f"&to={harness.iso(harness.day_start(0))}&granularity=1d")

    # -- what is seen ---------------------------------------------------------------------

    def stats(self, campaign):
        return self.stack.get(f"/v1/campaigns/{campaign}/stats?{self.query}")

    def tried(self, campaign):
        with self.load.lock:
            return sum(a.tried for a in self.load.attempts.values()
                       if a.click["campaign_id"] == campaign)

    def events(self):
        path = os.path.join(self.stack.data, "aggregate", "events.log")
        with open(path, encoding="utf-8") as file:
            return file.readlines()

    def right_again(self):
        self.load.visible(self.load.acknowledged())

    def dashboard_equals_redis(self):
        """At rest: each campaign's numbers are those of the rows."""
        rows = self.stack.live_rows()
        for campaign in self.campaigns:
            live = [t for (c, _), (t, _) in rows.items() if c == campaign]
            shown = [r for r in self.stats(campaign).json()["rows"]]
            check(all(r["state"] == "provisional" for r in shown), f"{campaign}: {shown}")
            same(f"{campaign} on the dashboard",
                 {n: sum(r[n] for r in shown) for n in ("clicks", "duplicate", "quarantined")},
                 {"clicks": sum(t[0] for t in live), "duplicate": sum(t[4] for t in live),
                  "quarantined": sum(t[5] for t in live)})

    def partitions(self):
        """Campaign -> partition, from the rows' keys."""
        redis, found = self.stack.redis(), {}
        try:
            for p in range(cluster_stack.PARTITIONS):
                for key in redis("KEYS", f"\\{{p{p}\\}}:*:1d:*"):
                    found[re.search(r":1d:(c\d+):", key).group(1)] = p
        finally:
            redis.close()
        return found

    # -- what happens ---------------------------------------------------------------------

    def victim(self):
        """The master with the most campaigns, and which those are."""
        of = self.partitions()
        masters = {p: self.stack.master_of(p) for p in set(of.values())}
        shares = {}
        for campaign, p in of.items():
            shares.setdefault(masters[p], set()).add(campaign)
        check(len(shares) > 1, f"campaigns are on several masters: {shares}")
        node = max(sorted(shares), key=lambda n: len(shares[n]))
        return node, shares[node], of

    def failover(self, lose):
        """A master is killed; with lose, together with the last seconds of its writes."""
        node, mine, of = self.victim()
        replica = self.stack.replication_cut(node) if lose else 0
        time.sleep(3 if lose else 0.3)
        before, watcher = len(self.events()), Watcher(self)
        watcher.thread.start()
        began = time.monotonic()
        self.stack.cluster("kill", node)
        acknowledged = self.load.acknowledged()
        new = self.stack.promoted_wait(of[min(mine)], node)
        promoted_s = time.monotonic() - began
        others = watcher.during(began, set(self.campaigns) - mine)
        hit = watcher.during(began, mine)
        check(self.load.acknowledged() > acknowledged, "clicks are taken meanwhile")
        self.right_again()
        right_s = time.monotonic() - began
        check(others[0] > 0.9 * others[1], f"campaigns of other masters are shown: {others}")
        step(f"node {node} killed: node {new} in its place after {promoted_s:.1f} s, counts right "
             f"after {right_s:.1f} s; meanwhile whole answers of others {others[0]}/{others[1]}, "
             f"of its own {hit[0]}/{hit[1]}")
        if lose:
            self.rolled_back(before, {of[c] for c in mine})
            self.stack.replication_mend(replica)
        watcher.stop()
        self.node_back(node)

    def rolled_back(self, before, partitions):
        """The live path has noted that Redis lost writes, of each partition that was hit."""
        def noted():
            lines = [line for line in self.events()[before:] if "rolled-back" in line]
            text = "".join(lines)
            return lines if all(f" p{p} rolled-back " in text for p in partitions) else None
        lines = wait_for(f"events.log: rolled back, partitions {sorted(partitions)} "
                         f"({self.events()[before:]})", 20, noted)
        step(f"noted {len(lines)} times: {lines[0].strip()}")

    def node_back(self, node):
        self.stack.cluster("start-node", node)
        self.stack.cluster("start")  # waits until replicas are in sync

    def restarted_with_a_loss(self):
        """clickledger and a master die together; the master's last writes are on no replica."""
        node, mine, of = self.victim()
        replica = self.stack.replication_cut(node)
        time.sleep(2)
        self.stack.run_kill()
        self.stack.cluster("kill", node)
        self.stack.run_start()
        self.stack.promoted_wait(of[min(mine)], node)
        self.right_again()
        self.stack.replication_mend(replica)
        self.node_back(node)
        step("clickledger and a master killed together: counts are right again")

    def all_masters(self):
        """Every node is killed; append-only files bring back what they have."""
        for node in range(1, cluster_stack.NODES + 1):
            self.stack.cluster("kill", node)
        acknowledged = self.load.acknowledged()
        time.sleep(1)
        check(self.load.acknowledged() > acknowledged, "clicks are taken without any Redis")
        for row in self.stats("c00000").json()["rows"]:
            check(row["state"] == "unavailable", f"nothing is shown: {row}")
        self.stack.cluster("start")
        self.right_again()
        step("all nodes killed and started: counts are right again")

    def run(self):
        step(f"seed {self.seed}, {self.stack.dir}")
        self.load.start()
        time.sleep(1)
        self.right_again()
        self.failover(False)
        self.failover(True)
        self.restarted_with_a_loss()
        self.all_masters()
        time.sleep(1)
        self.load.stop()
        self.right_again()
        wait_for("live counts rest", 20, self.rests)
        self.dashboard_equals_redis()
        clients.verify(self.stack, self.load, self.campaigns)
        done = self.stack.cli("doctor", good=(0, 1))
        check(re.search(r"ok +redis +0 clicks behind", done.stdout), done.stdout)
        step("doctor: " + done.stdout.strip().replace("\n", "\n    "))
        check(self.stack.run_stop() == 0, "clickledger stops cleanly")

    def rests(self):
        total = self.stack.live_total_or_zero()
        time.sleep(1.5)
        return total == self.stack.live_total_or_zero()


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--seed", type=int, default=int(time.time()))
    options = args.parse_args()
    harness.main(lambda: Cluster(options.seed).run(), 220)


if __name__ == "__main__":
    main()
