#!/usr/bin/env python3
"""The running stages follow a change of master data within seconds, without a restart.

    test_follow.py

A campaign imported late, paused, and dearer from a given time; a key revoked; a log that
never shows a key; the live prices and the final ones by valid_from.
"""
import datetime
import json
import os
import time
import zoneinfo

import harness
from harness import CAMPAIGN_HEADER, check, make_click, same, step, wait_for

SECONDS = 10  # master.poll_ms and some patience


def campaign(name, status="active", cpc="0.25", cpc_from=""):
    return f"{name},{name},demo,adv,Advertiser,EUR,Europe/Berlin,{status},{cpc},{cpc_from},,,\r\n"


def row(stack, name):
    """Today's live row of a campaign, or {} while nobody knows it."""
    answer = stack.get(f"/v1/campaigns/{name}/stats?granularity=1d")
    return answer.json()["rows"][-1] if answer.status == 200 else {}


def post_until(stack, name, good, what, n):
    """Posts a click every moment until the live row is as wanted."""
    def one():
        one.n += 1
        check(stack.post([make_click(one.n, campaign=name)]).status == 202, "202")
        return good(row(stack, name))
    one.n = n
    wait_for(what, SECONDS, one, 0.3)


def price_follows(stack):
    """Clicks before and after a rate's valid_from, which is in the future when it comes."""
    from_ms = int(time.time() * 1000) + 3000
    stack.campaigns_import(CAMPAIGN_HEADER + campaign("dear", cpc="0.10", cpc_from="") +
                           campaign("dear", cpc="1.00", cpc_from=harness.iso(from_ms)))
    wait_for("campaign dear is known", SECONDS, lambda: row(stack, "dear") != {}, 0.2)
    before = [make_click(5000 + i, from_ms - 1000, "dear") for i in range(3)]
    after = [make_click(6000 + i, from_ms, "dear") for i in range(2)]
    check(stack.post(before + after).status == 202, "202")
    wait_for("both prices are live", SECONDS, lambda: row(stack, "dear").get("cost") == "2.300000",
             0.2)
    day = datetime.datetime.now(zoneinfo.ZoneInfo("Europe/Berlin")).date().isoformat()
    stack.cli("close", "--day", day, "--force", "--zone", "Europe/Berlin")
    same("final prices", stack.psql(
        "SELECT unit_price_micros, sum(clicks), sum(cost_micros) FROM campaign_daily_stats "
        "WHERE campaign_id = 'dear' GROUP BY 1 ORDER BY 1"),
        [["100000", "3", "300000"], ["1000000", "2", "2000000"]])
    step("a rate holds from its valid_from on, live and final")


def follow():
    stack = harness.Stack()
    stack.servers_start()
    stack.campaigns_import(CAMPAIGN_HEADER + campaign("first"))
    stack.run_start()
    stack.key_create()

    post_until(stack, "first", lambda r: r.get("clicks", 0) > 0, "campaign first counts", 0)
    check(stack.post([make_click(900, campaign="second")]).status == 202, "202")
    stack.campaigns_import(CAMPAIGN_HEADER + campaign("second"))
    post_until(stack, "second", lambda r: r.get("clicks", 0) > 0, "a new campaign counts", 1000)
    step("a campaign imported while running is known")

    stack.campaigns_import(CAMPAIGN_HEADER + campaign("second", status="paused"))
    post_until(stack, "second", lambda r: r.get("reasons", {}).get("inactive_campaign", 0) > 0,
               "a paused campaign's clicks are invalid", 2000)
    step("a paused campaign is inactive")
    price_follows(stack)

    second, _ = stack.key_create("demo", "ingest")
    check(stack.post([make_click(3000)], key=second).status == 202, "the second key works")
    newest = max(key["id"] for key in json.loads(stack.cli("key", "list", "--json").stdout))
    stack.cli("key", "revoke", newest)
    wait_for("the revoked key is refused", SECONDS,
             lambda: stack.post([make_click(3001)], key=second).status == 401, 0.2)
    step("a revoked key gets 401")

    check(stack.run_stop() == 0, "clickledger stops cleanly")
    with open(os.path.join(stack.dir, "clickledger.log"), encoding="utf-8") as log:
        text = log.read()
    check(stack.key not in text and second not in text and "ck_" not in text,
          "no key stands in the log")


if __name__ == "__main__":
    harness.main(follow, 120)
