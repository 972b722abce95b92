#!/usr/bin/env python3
"""The oracle against examples worked by hand."""
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import oracle  # noqa: E402

HEADER = ("campaign_id,name,account,advertiser_id,advertiser_name,currency,time_zone,status,"
          "cpc,cpc_from,price_cap,daily_budget,budget_from\r\n")
CAMPAIGNS = HEADER + "\r\n".join([
    "berlin,B,demo,adv1,One,EUR,Europe/Berlin,active,0.25,,1,,",
    "kolkata,K,demo,adv2,Two,JPY,Asia/Kolkata,active,10.5,,20,,",
    "event,E,demo,adv1,One,EUR,Europe/Berlin,active,event,,0.5,,",
    "rates,R,demo,adv1,One,EUR,Europe/Berlin,active,0.10,,1,,",
    "rates,R,demo,adv1,One,EUR,Europe/Berlin,active,0.20,2026-11-20T12:00:00Z,1,,",
    "budget,L,demo,adv1,One,EUR,Europe/Berlin,active,0.30,,1,1.00,",
    "paused,P,demo,adv1,One,EUR,Europe/Berlin,paused,0.30,,1,,",
    "other,O,rival,adv9,Nine,EUR,Europe/Berlin,active,0.30,,1,,",
]) + "\r\n"
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/144.0"
AT = "2026-11-20T10:00:00.000Z"


def click(n, **changes):
    made = {
        "event_id": f"00000000-0000-4000-8000-{n:012x}", "timestamp": AT,
        "campaign_id": "berlin", "ad_id": "ad1", "publisher_id": "pub", "user_id": f"u{n}",
        "ip_address": f"10.0.{n >> 8}.{n & 255}", "user_agent": BROWSER, "referer": "",
        "device_type": "desktop", "os": "Linux", "country": "DE", "city": "",
        "cost_per_click": "0.4",
    }
    made.update(changes)
    return made


def judged(clicks, request=lambda i: i, **options):
    text = "\n".join(json.dumps({"request": request(i), "index": i, "status": "accepted",
                                 "hour": options.get("hour", lambda i: 0)(i), "click": c})
                     for i, c in enumerate(clicks))
    campaigns = oracle.campaigns_load(CAMPAIGNS)
    judge = oracle.Judge(campaigns, hours="hour" in options)
    return oracle.judge_lines(judge, oracle.lines_load(text), "demo"), campaigns


def reasons(clicks, **options):
    return [j.reason for j in judged(clicks, **options)[0]]


def at(seconds, ms=0):
    return f"2026-11-20T10:{seconds // 60:02d}:{seconds % 60:02d}.{ms:03d}Z"


class SmallTexts(unittest.TestCase):
    def test_murmur2_is_kafkas(self):
        # Examples of Apache Kafka's own UtilsTest.
        for text, value in (("21", -973932308), ("foobar", -790332482),
                            ("a-little-bit-long-string", -985981536),
                            ("a-little-bit-longer-string", -1486304829),
                            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
                            ("abc", 479470107)):
            self.assertEqual(oracle.murmur2(text.encode()), value & 0xFFFFFFFF, text)

    def test_amounts_are_exact(self):
        for text, micros in (("0.25", 250000), ("12", 12000000), ("0.000001", 1)):
            self.assertEqual(oracle.micros_of(text), micros)
        for text in ("-1", "1e3", ".5", "5.", "0.0000001", "", " 1", "+1"):
            with self.assertRaises(ValueError, msg=text):
                oracle.micros_of(text)

    def test_lines_round_half_away_from_zero(self):
        for micros, places, minor in ((4999, 2, 0), (5000, 2, 1), (14999, 2, 1),
                                      (15000, 2, 2), (-5000, 2, -1), (499999, 0, 0),
                                      (500000, 0, 1), (1500, 3, 2), (1499, 3, 1)):
            self.assertEqual(oracle.rounded_minor(micros, places), minor, (micros, places))

    def test_times_are_cut_to_ms_and_know_their_offset(self):
        self.assertEqual(oracle.ms_of("1970-01-01T00:00:00.0019Z"), 1)
        self.assertEqual(oracle.ms_of("1970-01-01T05:30:01+05:30"), 1000)
        self.assertEqual(oracle.ms_of("1969-12-31T23:00:00-01:00"), 0)

    def test_days_are_the_zones_own(self):
        ms = oracle.ms_of("2026-11-20T18:29:59.999Z")
        self.assertEqual(oracle.local_day(ms, "Asia/Kolkata"), "2026-11-20")
        self.assertEqual(oracle.local_day(ms + 1, "Asia/Kolkata"), "2026-11-21")
        ms = oracle.ms_of("2026-07-01T22:00:00Z")  # summer: two hours ahead
        self.assertEqual(oracle.local_day(ms, "Europe/Berlin"), "2026-07-02")
        self.assertEqual(oracle.local_day(ms - 1, "Europe/Berlin"), "2026-07-01")
        self.assertEqual(oracle.local_day(ms, "UTC"), "2026-07-01")

    def test_a_mapped_address_is_its_v4_address(self):
        self.assertEqual(oracle.address_of("::ffff:1.2.3.4"), bytes([1, 2, 3, 4]))


class Rules(unittest.TestCase):
    def test_each_click_rule_has_its_reason(self):
        for change, reason in (
                ({}, "none"), ({"campaign_id": "nobody"}, "unknown_campaign"),
                ({"campaign_id": "other"}, "foreign_campaign"),
                ({"currency": "USD"}, "currency_mismatch"), ({"currency": "EUR"}, "none"),
                ({"test": True}, "test_traffic"), ({"test": False}, "none"),
                ({"campaign_id": "paused"}, "inactive_campaign"),
                ({"purpose": "Prefetch;prerender"}, "prefetch"),
                ({"user_agent": ""}, "empty_agent"), ({"user_agent": " "}, "empty_agent"),
                ({"user_agent": "curl/8.5.0"}, "non_browser_agent"),
                ({"user_agent": "Mozilla/5.0 (compatible; Bingbot/2.0)"}, "known_bot_agent"),
                ({"ad_id": "honeypot-1"}, "honeypot")):
            self.assertEqual(reasons([click(1, **change)]), [reason], change)

    def test_the_first_received_wins_and_another_payload_is_a_conflict(self):
        rows = judged([click(1), click(1), click(1, city="Ulm")])[0]
        self.assertEqual([j.verdict for j in rows], ["billable", "duplicate", "duplicate"])
        self.assertEqual([j.conflict for j in rows], [False, False, True])

    def test_an_upper_case_id_is_the_same_id(self):
        upper = click(0xab, event_id=click(0xab)["event_id"].upper())
        self.assertEqual(reasons([click(0xab), upper]), ["none", "duplicate"])

    def test_within_a_request_the_partition_comes_first(self):
        clicks = [click(1), click(1, campaign_id="kolkata")]
        low = min(("berlin", "kolkata"), key=oracle.partition_of)
        for pair in (clicks, clicks[::-1]):
            rows = judged(pair, request=lambda i: 0)[0]
            self.assertEqual((rows[0].campaign, rows[0].verdict), (low, "billable"))
            self.assertEqual(rows[1].verdict, "duplicate")

    def test_a_user_again_within_10_s_and_within_an_hour(self):
        same = dict(user_id="u")
        clicks = [click(1, timestamp=at(0), **same), click(2, timestamp=at(9, 999), **same),
                  click(3, timestamp=at(19, 999), **same), click(4, timestamp=at(20), ad_id="b", **same),
                  click(5, timestamp="2026-11-20T11:00:19.998Z", **same),
                  click(6, timestamp="2026-11-20T12:00:19.998Z", **same)]
        self.assertEqual(reasons(clicks), ["none", "double_click", "repeat_click", "none",
                                           "repeat_click", "none"])

    def test_last_is_the_click_received_last(self):
        same = dict(user_id="u")
        clicks = [click(1, timestamp=at(1800), **same), click(2, timestamp=at(0), **same),
                  click(3, timestamp=at(5), **same)]
        self.assertEqual(reasons(clicks), ["none", "repeat_click", "double_click"])

    def test_what_feeds_nothing_leaves_no_trace(self):
        same = dict(user_id="u")
        clicks = [click(1, test=True, **same), click(2, **same), click(3, user_agent="", **same),
                  click(2, **same)]
        self.assertEqual(reasons(clicks), ["test_traffic", "none", "empty_agent", "duplicate"])

    def test_the_101st_in_a_minute_and_the_11th_in_a_second(self):
        one = dict(ip_address="2001:db8::1")
        minute = [click(i, timestamp=at(i // 2), **one) for i in range(120)]
        self.assertEqual(reasons(minute).count("address_minute_rate"), 20)
        second = [click(i, timestamp=at(0, i), ip_address=f"2001:db8::{i + 1}") for i in range(12)]
        self.assertEqual(reasons(second), ["none"] * 10 + ["address_second_rate"] * 2)

    def test_duplicates_do_not_count_for_rates(self):
        one = dict(ip_address="10.9.9.9")
        clicks = [click(0, **one)] * 20 + [click(i, **one) for i in range(1, 11)]
        self.assertEqual(reasons(clicks)[20:], ["none"] * 9 + ["address_second_rate"])

    def test_the_look_back_is_this_hour_of_receipt_and_the_one_before(self):
        same = dict(user_id="u")
        clicks = [click(1, timestamp=at(0), **same), click(2, timestamp=at(20), **same),
                  click(3, timestamp=at(40), **same)]
        self.assertEqual(reasons(clicks, hour=lambda i: (5, 6, 8)[i]),
                         ["none", "repeat_click", "none"])


class Money(unittest.TestCase):
    def test_prices_follow_rates_caps_and_events(self):
        rows = judged([click(1, campaign_id="event"), click(2, campaign_id="event", cost_per_click="0.9"),
                       click(3, campaign_id="rates", timestamp="2026-11-20T11:59:59.999Z"),
                       click(4, campaign_id="rates", timestamp="2026-11-20T12:00:00Z")])[0]
        self.assertEqual([j.unit_price for j in rows], [400000, 500000, 100000, 200000])

    def test_the_first_that_does_not_fit_and_all_after_it_are_free(self):
        rows = judged([click(i, campaign_id="budget") for i in range(5)]
                      + [click(9, campaign_id="budget", timestamp="2026-11-20T23:00:00Z")])[0]
        self.assertEqual([j.verdict for j in rows], ["billable"] * 3 + ["over_budget"] * 2
                         + ["billable"])

    def test_an_invoice_rounds_each_line_once(self):
        rows, campaigns = judged([click(i, campaign_id="kolkata") for i in range(3)]
                                 + [click(10 + i) for i in range(3)])
        invoices = oracle.invoices_of(rows, campaigns)
        self.assertEqual(invoices["2026-11", "adv2", "JPY"],
                         {"lines": {("kolkata", 10500000): [3, 31500000, 32]},
                          "total_minor": 32, "micros": 31500000})
        self.assertEqual(invoices["2026-11", "adv1", "EUR"]["total_minor"], 75)
        self.assertEqual(oracle.ledger_of(rows, campaigns),
                         {("adv2", "kolkata", "JPY"): 31500000, ("adv1", "berlin", "EUR"): 750000})

    def test_the_identity_holds_for_each_campaign_and_day(self):
        rows = judged([click(i, campaign_id=c) for i, c in
                       enumerate(["berlin", "nobody", "paused", "kolkata", "other"] * 3)])[0]
        for row in oracle.days_of(rows).values():
            self.assertEqual(row["received"], sum(row["verdicts"].values()))


class Sets(unittest.TestCase):
    def test_acknowledged_is_at_most_accounted_is_at_most_attempted(self):
        good = {"a": [3, 1], "b": [1, 0], "c": [1, 1]}
        copies = {"a": 2, "c": 1}
        verdicts = {"a": ["billable", "duplicate"], "c": ["billable"]}
        self.assertEqual(oracle.check_sets(good, copies, verdicts), [])

    def test_each_breach_is_seen(self):
        for attempts, copies, verdicts in (
                ({"a": [1, 1]}, {}, {}),                                          # lost
                ({"a": [1, 1]}, {"a": 2}, {"a": ["billable", "duplicate"]}),      # made twice
                ({"a": [2, 2]}, {"a": 2}, {"a": ["billable", "billable"]}),       # counted twice
                ({"a": [2, 2]}, {"a": 2}, {"a": ["duplicate", "duplicate"]}),     # counted never
                ({"a": [1, 1]}, {"a": 1}, {}),                                    # not judged
                ({}, {"z": 1}, {"z": ["billable"]})):                             # from nowhere
            self.assertTrue(oracle.check_sets(attempts, copies, verdicts), (attempts, copies))


class Truth(unittest.TestCase):
    def test_a_refused_click_must_be_bad_and_an_accepted_one_good(self):
        for status, change in (("rejected", {}), ("accepted", {"campaign_id": "two words"}),
                               ("accepted", {"ip_address": "1.2.3"}), ("accepted", {"country": "de"}),
                               ("accepted", {"cost_per_click": "1e1"}), ("accepted", {"test": "yes"}),
                               ("accepted", {"event_id": "00000000-0000-0000-0000-000000000000"})):
            line = json.dumps({"request": 0, "index": 0, "status": status, "click": click(1, **change)})
            with self.assertRaises(SystemExit, msg=change):
                oracle.lines_load(line)

    def test_a_number_is_read_as_text(self):
        line = ('{"request":0,"index":0,"status":"accepted","click":%s}'
                % json.dumps(click(1)).replace('"0.4"', "0.400000"))
        self.assertEqual(oracle.lines_load(line)[0][3]["cost_per_click"], 400000)


if __name__ == "__main__":
    unittest.main()
