#!/usr/bin/env python3
"""A real web server's log as clicks: 10,000 lines in Apache combined format, 17 to 20 May 2015.

    test_real_logs.py [--log FILE]      (default ../shared/data/web-logs/apache_logs)

Address, agent and referer are the log's; the time is moved as a whole so that the last line is
a little while ago and distances stay; the campaign is the first segment of the path; ids are
made of the line's number. Prints the verdicts, and greps that a reader can repeat on the file.

The oracle knows no bot's name: of the agents it is told what the product found, agent by
agent, after that has been held against plain words; all else it judges by itself.
"""
import argparse
import collections
import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import time

import archive
import harness
import ledger
from harness import check, oracle, step

LINE = re.compile(r'(\S+) \S+ \S+ \[([^\]]+)\] "((?:[^"\\]|\\.)*)" (\d+) (\S+) '
                  r'"((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"')
BATCH = 500
WORDS = "bot|crawl|spider"


def log_path():
    return os.path.join(harness.ROOT, "..", "shared", "data", "web-logs", "apache_logs")


def campaign_of(request):
    """The first segment of the path, as far as it may stand in a campaign's id."""
    words = request.split(" ")
    path = words[1] if len(words) > 1 else ""
    segment = path.split("?")[0].strip("/").split("/")[0]
    return "web-" + (re.sub(r"[^A-Za-z0-9._~-]", "_", segment)[:40].lower() or "root")


def time_of(text):
    at = datetime.datetime.strptime(text, "%d/%b/%Y:%H:%M:%S %z")
    return int(at.timestamp()) * 1000


def text_of(field, longest):
    field = "" if field == "-" else field.replace('\\"', '"')
    return field.encode()[:longest].decode("utf-8", "ignore")


def clicks_of(lines):
    parsed = [LINE.match(line) for line in lines]
    good = [(i, m) for i, m in enumerate(parsed) if m]
    newest = max(time_of(m[2]) for _, m in good)
    shift = (int(time.time()) * 1000 - 600_000 - newest) // 1000 * 1000
    clicks = []
    for i, m in good:
        address, agent = m[1], text_of(m[7], 1024)
        user = hashlib.sha256(f"{address} {agent}".encode()).hexdigest()[:24]
        one = hashlib.sha256(f"apache_logs {i}".encode()).hexdigest()
        click = harness.make_click(
            0, time_of(m[2]) + shift, campaign_of(m[3]),
            event_id=f"{one[:8]}-{one[8:12]}-4{one[13:16]}-a{one[17:20]}-{one[20:32]}",
            ad_id=hashlib.sha256(m[3].encode()).hexdigest()[:12], user_id=user,
            ip_address=address, user_agent=agent, referer=text_of(m[6], 2048), country="US",
            city="", os="")
        clicks.append(click)
    return clicks, len(lines) - len(good)


def campaigns_csv(clicks):
    names = sorted({c["campaign_id"] for c in clicks})
    return harness.CAMPAIGN_HEADER + "".join(
        f"{name},{name},demo,adv{i % 7},Advertiser {i % 7},EUR,Europe/Berlin,active,0.10,,1,,\r\n"
        for i, name in enumerate(names))


def post(stack, clicks):
    for at in range(0, len(clicks), BATCH):
        answer = stack.post(clicks[at:at + BATCH], form="ndjson")
        check(answer.status == 202, f"{answer.status} {answer.body[:500]!r}")
        check(answer.json()["rejected"] == 0, f"refused: {answer.body[:500]!r}")


def agents_held_against_words(rows, archive_dir):
    """One verdict an agent; each agent with a bot's word in it is one; browsers are none."""
    found = collections.defaultdict(set)
    symbols = archive.reasons_of(archive_dir)
    for row in rows:
        bits = row["final"]["reasons"]
        found[row["user_agent"]].add(frozenset(
            name for name in oracle.AGENT_REASONS if bits >> symbols.index(name) & 1))
    told, extra = {}, collections.Counter()
    for agent, sets in found.items():
        check(len(sets) == 1, f"two answers about one agent: {agent}: {sets}")
        told[agent] = set(next(iter(sets)))
        plain = oracle.agent_reasons(agent)
        if not agent.strip():
            check(told[agent] == {"empty_agent"}, f"an empty agent: {told[agent]}")
        elif re.search(WORDS, agent, re.I) or "non_browser_agent" in plain:
            check(told[agent], f"not seen as a bot: {agent}")
        elif told[agent]:
            extra[agent] = 1
    print(f"{len(found)} agents; {len(extra)} more are bots by name than by the words {WORDS}:")
    for agent in sorted(extra)[:40]:
        print("   ", agent[:110])
    return told


def table(judged):
    counts = collections.Counter((j.verdict, j.reason) for j in judged)
    print(f"\n{'verdict':12} {'reason':22} {'clicks':>7}")
    for (verdict, reason), n in counts.most_common():
        print(f"{verdict:12} {reason:22} {n:7}")
    print(f"{'all':35} {len(judged):7}\n")
    return counts


def greps(path, judged):
    """What a reader can count in the file itself."""
    name = "../shared/data/web-logs/apache_logs"
    agent = "awk -F'\"' '{print $6}' " + name
    bots = sum(bool(re.search(WORDS, j, re.I)) for j in judged)
    empty = sum(j == "" for j in judged)
    other = sum(bool(j) and not j.startswith(("Mozilla/", "Opera/")) for j in judged)
    for command, ours in (
            (f"wc -l < {name}", len(judged)),
            (f"{agent} | grep -icE '{WORDS}'", bots),
            (f"{agent} | grep -c '^-$'", empty),
            (f"{agent} | grep -v '^-$' | grep -cvE '^(Mozilla|Opera)/'", other)):
        done = subprocess.run(command.replace(name, path), shell=True, capture_output=True,
                              text=True, check=False)
        print(f"  {command}\n      {done.stdout.strip()} (posted as clicks: {ours})")


def run(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        clicks, unread = clicks_of(file.read().splitlines())
    step(f"{len(clicks)} clicks of {os.path.basename(path)}, {unread} lines of another form")
    stack = harness.Stack()
    stack.servers_start()
    stack.run_start()
    text = campaigns_csv(clicks)
    stack.campaigns_import(text)
    stack.key_create("demo")
    time.sleep(1.0)
    post(stack, clicks)
    stack.live_wait(len(clicks))
    days = sorted({oracle.local_day(oracle.ms_of(c["timestamp"]), "Europe/Berlin") for c in clicks})
    for day in days:
        stack.cli("close", "--day", day, "--force")
    rows = archive.clicks(stack.archive)
    told = agents_held_against_words(rows, stack.archive)
    campaigns = oracle.campaigns_load(text)
    lines = []
    for i, click in enumerate(clicks):
        click = oracle.click_of(oracle.click_loads(json.dumps(click)))
        order = (i // BATCH, oracle.partition_of(click["campaign_id"]), i % BATCH)
        lines.append((order, None, 0, click))
    judge = oracle.Judge(campaigns, agent_rule=lambda agent: told[agent])
    judged = oracle.judge_lines(judge, lines, "demo")
    ledger.clicks_equal(rows, judged)
    ledger.stats_equal(stack, judged)
    ledger.ledger_equal(stack, judged, campaigns)
    ledger.certificates_equal(stack, judged)
    ledger.live_equal(stack, rows, campaigns)
    for day in days:
        got = json.loads(stack.cli("reconcile", "--day", day, "--json").stdout)
        check(got["unexplained"] == 0, f"{day}: {got}")
    table(judged)
    greps(path, [c["user_agent"] for c in clicks])
    check(stack.run_stop() == 0, "clickledger stops cleanly")


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--log", default=log_path())
    path = args.parse_args().log
    if not os.path.exists(path):
        print("skipped: no shared data")
        sys.exit(harness.SKIPPED)
    harness.main(lambda: run(path), 170)


if __name__ == "__main__":
    main()
