#!/usr/bin/env python3
"""What the ledger and the invoices must be, computed a second time.

It shares no code with the product: it reads the campaigns that were imported and the clicks
that were posted, in order of posting, and applies the rules as the documents state them, as
plainly as they can be written. The end-to-end tests demand equality to the micro-unit.

    oracle.py --campaigns FILE.csv --truth FILE.ndjson [--account demo] [--hour-of-receipt]

Truth: NDJSON, a line a click posted: {"request": n, "index": i, "status": "accepted" or
"rejected", "pattern": ..., "click": {...}}; optional: "account" (of the key, if another),
"hour" (of receipt, a number that grows). Within one request the order of receipt is by
partition (murmur2 of the campaign's id, mod 16), then by index.

Units: money is an integer of micros; times are ms; days are local days of the campaign.
"""
import argparse
import bisect
import collections
import csv
import datetime
import io
import ipaddress
import json
import re
import sys
import zoneinfo

PARTITIONS = 16
MICROS = 1_000_000
DOUBLE_MS, REPEAT_MS = 10_000, 3_600_000
MINUTE_MAX, SECOND_MAX = 100, 10
PLACES = {"EUR": 2, "USD": 2, "GBP": 2, "JPY": 0, "BHD": 3, "INR": 2}

# Reasons in order: the first that matched is the primary. The verdict that each gives, and
# whether its clicks feed the rules that count.
REASONS = [
    ("unknown_campaign", "quarantined", False),
    ("foreign_campaign", "quarantined", False),
    ("currency_mismatch", "quarantined", False),
    ("duplicate", "duplicate", False),
    ("bad_signature", "invalid", True),
    ("test_traffic", "invalid", False),
    ("inactive_campaign", "invalid", True),
    ("prefetch", "invalid", True),
    ("empty_agent", "invalid", True),
    ("non_browser_agent", "invalid", True),
    ("known_bot_agent", "invalid", True),
    ("bad_address", "invalid", True),
    ("honeypot", "invalid", True),
    ("double_click", "invalid", True),
    ("repeat_click", "invalid", True),
    ("address_minute_rate", "invalid", True),
    ("address_second_rate", "invalid", True),
]
VERDICT_OF = {name: verdict for name, verdict, _ in REASONS}
FEEDS = {name: feeds for name, _, feeds in REASONS}
RANK = {name: i for i, (name, _, _) in enumerate(REASONS)}
AGENT_REASONS = {"empty_agent", "non_browser_agent", "known_bot_agent"}


class Refused(Exception):
    """A click that ingest must refuse; the text is the field."""


# ---- small texts ------------------------------------------------------------------------

def murmur2(data):
    """As Apache Kafka's Java client computes it (32 bits, seed 0x9747b28c)."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i:i + 4], "little") * m & mask
        k ^= k >> 24
        h = (h * m & mask) ^ (k * m & mask)
    rest = data[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h ^= h >> 13
    h = h * m & mask
    return h ^ h >> 15


def partition_of(campaign_id):
    return (murmur2(campaign_id.encode()) & 0x7FFFFFFF) % PARTITIONS


def micros_of(text):
    """Decimal text, at most 6 places, to micros; never through a double."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]{1,6})?", text):
        raise ValueError(f"'{text}' is no amount of at most 6 places")
    whole, _, fraction = text.partition(".")
    return int(whole) * MICROS + int(fraction.ljust(6, "0") or "0")


def decimal_of(micros):
    sign = "-" if micros < 0 else ""
    return f"{sign}{abs(micros) // MICROS}.{abs(micros) % MICROS:06d}"


def rounded_minor(micros, places):
    """Half away from zero, in whole numbers."""
    unit = 10 ** (6 - places)
    whole, rest = divmod(abs(micros), unit)
    whole += rest * 2 >= unit
    return -whole if micros < 0 else whole


TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?"
                  r"(?:[Zz]|([+-])(\d\d):(\d\d))")


def ms_of(text):
    """RFC 3339 to UTC ms; what is finer than a ms is cut."""
    found = TIME.fullmatch(text)
    if not found:
        raise ValueError(f"'{text}' is no RFC 3339 time")
    year, month, day, hour, minute, second = (int(found[i]) for i in range(1, 7))
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError(text)
    days = datetime.date(year, month, day).toordinal() - 719163
    ms = ((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000
    ms += int(((found[7] or "") + "000")[:3])
    if found[8]:
        if int(found[9]) > 23 or int(found[10]) > 59:
            raise ValueError(text)
        off = (int(found[9]) * 60 + int(found[10])) * 60_000
        ms -= off if found[8] == "+" else -off
    return ms


UTC = datetime.timezone.utc
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)
zones = {}


def local_day(ms, zone):
    """The calendar day that the zone's clocks show."""
    info = zones.get(zone)
    if info is None:
        info = zones[zone] = UTC if zone == "UTC" else zoneinfo.ZoneInfo(zone)
    at = EPOCH + datetime.timedelta(milliseconds=ms)
    return at.astimezone(info).date().isoformat()


# ---- the click --------------------------------------------------------------------------

TOKEN = re.compile(r'[!#-\[\]-~]+')  # printable ASCII without blank, quote, backslash
FIELDS = [  # name, kind, required, longest
    ("event_id", "uuid", 1, 36), ("timestamp", "time", 1, 35),
    ("campaign_id", "token", 1, 64), ("ad_id", "token", 1, 64),
    ("publisher_id", "token", 1, 64), ("user_id", "token", 1, 128),
    ("ip_address", "ip", 1, 45), ("user_agent", "text", 1, 1024),
    ("referer", "text", 1, 2048), ("device_type", "device", 1, 16),
    ("os", "text", 1, 64), ("country", "country", 1, 2), ("city", "text", 1, 128),
    ("cost_per_click", "money", 1, 20), ("ad_group_id", "token", 0, 64),
    ("creative_id", "token", 0, 64), ("variant_id", "token", 0, 64),
    ("click_x", "integer", 0, 65535), ("click_y", "integer", 0, 65535),
    ("impression_id", "token", 0, 64), ("impression_ts", "time", 0, 35),
    ("currency", "currency", 0, 3), ("test", "bool", 0, 1), ("tcf", "token", 0, 4096),
    ("gpp", "token", 0, 4096), ("purpose", "token", 0, 32),
]


class Number(str):
    """A JSON number's text."""


def click_loads(text):
    def pairs(items):
        if len(dict(items)) != len(items):
            raise Refused("duplicate key")
        return dict(items)
    return json.loads(text, parse_float=Number, parse_int=Number, object_pairs_hook=pairs)


def address_of(text):
    """4 or 16 bytes; a v4 address inside v6 is that v4 address."""
    address = ipaddress.ip_address(text)
    if address.version == 6 and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.packed


def field_value(name, kind, longest, value):
    if kind == "bool":
        if not isinstance(value, bool):
            raise ValueError(name)
        return value
    if kind == "integer":
        if not isinstance(value, Number) or not re.fullmatch("[0-9]+", value):
            raise ValueError(name)
        if int(value) > longest:
            raise ValueError(name)
        return int(value)
    if kind == "money":
        if not isinstance(value, str):
            raise ValueError(name)
        micros = micros_of(str(value))
        if micros > 1_000_000_000_000:
            raise ValueError(name)
        return micros
    if not isinstance(value, str) or isinstance(value, Number):
        raise ValueError(name)
    if len(value.encode()) > longest:
        raise ValueError(name)
    if kind == "uuid":
        if not re.fullmatch("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value):
            raise ValueError(name)
        if not int(value.replace("-", ""), 16):
            raise ValueError(name)
        return value.lower()
    if kind == "time":
        return ms_of(value)
    if kind == "token" and not TOKEN.fullmatch(value):
        raise ValueError(name)
    if kind == "ip":
        return address_of(value)
    if kind == "device" and value not in ("desktop", "mobile", "tablet", "tv", "other"):
        raise ValueError(name)
    if kind == "country" and not re.fullmatch("[A-Z]{2}", value):
        raise ValueError(name)
    if kind == "currency" and not re.fullmatch("[A-Z]{3}", value):
        raise ValueError(name)
    if kind == "text" and re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
        raise ValueError(name)
    return value


def click_of(raw):
    """Checks each field; returns {name: value}. Unknown fields are no part of the click."""
    click = {}
    for name, kind, required, longest in FIELDS:
        if name not in raw:
            if required:
                raise Refused(name)
            continue
        try:
            click[name] = field_value(name, kind, longest, raw[name])
        except ValueError:
            raise Refused(name) from None
    if not click.get("test"):
        click.pop("test", None)  # false says what absence says
    return click


# ---- campaigns --------------------------------------------------------------------------

class Campaign:
    def __init__(self, row):
        self.id = row["campaign_id"]
        self.account = row["account"]
        self.advertiser = row["advertiser_id"]
        self.currency = row["currency"]
        self.zone = row["time_zone"]
        self.active = row["status"] == "active"
        self.cap = micros_of(row["price_cap"]) if row["price_cap"] else 0
        self.rates = {}
        self.budgets = {}
        self.add(row)

    def add(self, row):
        """A further line of the campaign: another rate, or another budget."""
        since = ms_of(row["cpc_from"]) if row["cpc_from"] else 0
        self.rates[since] = None if row["cpc"] == "event" else micros_of(row["cpc"])
        budget = row["daily_budget"]
        self.budgets[row["budget_from"] or "1970-01-01"] = \
            micros_of(budget) if budget else None

    @staticmethod
    def in_force(table, at):
        keys = sorted(table)
        i = bisect.bisect_right(keys, at) - 1
        return keys, i

    def price(self, ms, event_micros):
        keys, i = self.in_force(self.rates, ms)
        rate = self.rates[keys[max(i, 0)]]
        return min(event_micros, self.cap) if rate is None else rate

    def budget(self, day):
        keys, i = self.in_force(self.budgets, day)
        return None if i < 0 else self.budgets[keys[i]]


def campaigns_load(text):
    campaigns = {}
    for row in csv.DictReader(io.StringIO(text, newline="")):
        if row["campaign_id"] in campaigns:
            campaigns[row["campaign_id"]].add(row)
        else:
            campaigns[row["campaign_id"]] = Campaign(row)
    return campaigns


# ---- the rules --------------------------------------------------------------------------

BOT = re.compile("bot|crawl|spider|slurp|headless|monitor|preview", re.I)


def agent_reasons(agent):
    """Plain words only; a test with other agents gives its own function."""
    if not agent.strip():
        return {"empty_agent"}
    if not agent.startswith(("Mozilla/", "Opera/")):
        return {"non_browser_agent"}
    return {"known_bot_agent"} if BOT.search(agent) else set()


def client_of(address):
    return address[:8] if len(address) == 16 else address


Judged = collections.namedtuple(
    "Judged", "event_id account campaign zone day ad country device publisher verdict "
              "reason reasons unit_price list_price conflict line")


class Judge:
    """Clicks in order of receipt to final verdicts."""

    def __init__(self, campaigns, agent_rule=agent_reasons, hours=False):
        self.campaigns = campaigns
        self.agent_rule = agent_rule
        self.hours = hours
        self.ids = {}      # (account, event id) -> the first payload
        self.users = {}    # (campaign, user, ad) -> (event ms, hour of receipt)
        self.minutes = collections.defaultdict(collections.Counter)
        self.seconds = collections.defaultdict(collections.Counter)
        self.spent = collections.Counter()
        self.exhausted = set()

    def alone(self, click, account, campaign):
        """What the click says by itself."""
        found = set(self.agent_rule(click["user_agent"]))
        if campaign is None:
            found.add("unknown_campaign")
        else:
            if campaign.account != account:
                found.add("foreign_campaign")
            if click.get("currency", campaign.currency) != campaign.currency:
                found.add("currency_mismatch")
            if not campaign.active:
                found.add("inactive_campaign")
        if click.get("test"):
            found.add("test_traffic")
        if re.search("prefetch|prerender|preview", click.get("purpose", ""), re.I):
            found.add("prefetch")
        if click["ad_id"].startswith("honeypot"):
            found.add("honeypot")
        return found

    def in_sight(self, hour, then):
        return not self.hours or then >= hour - 1

    def counted(self, table, key, hour):
        """This click included; the hour of receipt and the one before."""
        table[key][hour] += 1
        return sum(n for then, n in table[key].items() if self.in_sight(hour, then))

    def stateful(self, click, hour):
        """For a click that feeds: what it says beside those received before it."""
        found, t = set(), click["timestamp"]
        key = (click["campaign_id"], click["user_id"], click["ad_id"])
        last = self.users.get(key)
        if last is not None and self.in_sight(hour, last[1]):
            apart = abs(t - last[0])
            if apart < DOUBLE_MS:
                found.add("double_click")
            elif apart < REPEAT_MS:
                found.add("repeat_click")
        self.users[key] = (t, hour)
        client = client_of(click["ip_address"])
        if self.counted(self.minutes, (client, t // 60_000), hour) > MINUTE_MAX:
            found.add("address_minute_rate")
        if self.counted(self.seconds, (client, t // 1000), hour) > SECOND_MAX:
            found.add("address_second_rate")
        return found

    def fits(self, campaign, day, price):
        budget = campaign.budget(day)
        key = (campaign.id, day)
        if budget is None:
            return True
        if key in self.exhausted or self.spent[key] + price > budget:
            self.exhausted.add(key)
            return False
        self.spent[key] += price
        return True

    def one(self, click, account, hour=0, line=None):
        campaign = self.campaigns.get(click["campaign_id"])
        found = self.alone(click, account, campaign)
        key, conflict = (account, click["event_id"]), False
        if key in self.ids:
            found.add("duplicate")
            conflict = self.ids[key] != click
        else:
            self.ids[key] = click
        if all(FEEDS[name] for name in found):
            found |= self.stateful(click, hour)
        reason = min(found, key=RANK.get) if found else "none"
        verdict = VERDICT_OF.get(reason, "billable")
        zone = campaign.zone if campaign else "UTC"
        day = local_day(click["timestamp"], zone)
        listed = campaign.price(click["timestamp"], click["cost_per_click"]) if campaign else 0
        price = 0
        if verdict == "billable":
            if self.fits(campaign, day, listed):
                price = listed
            else:
                verdict = reason = "over_budget"
        return Judged(click["event_id"], account, click["campaign_id"], zone, day,
                      click["ad_id"], click["country"], click["device_type"],
                      click["publisher_id"], verdict, reason, frozenset(found), price,
                      listed, conflict, line)


def lines_load(text):
    """Truth lines as (order, account or None, hour, click), refused ones checked and left out."""
    lines = []
    for number, text_line in enumerate(text.splitlines(), 1):
        if not text_line.strip():
            continue
        line = json.loads(text_line, parse_float=Number, parse_int=Number)
        try:
            click = click_of(line["click"])
        except Refused as why:
            if line["status"] != "rejected":
                raise SystemExit(f"truth line {number}: accepted, but {why} is bad") from None
            continue
        if line["status"] != "accepted":
            raise SystemExit(f"truth line {number}: refused, but each field is good")
        order = (int(line["request"]), partition_of(click["campaign_id"]), int(line["index"]))
        lines.append((order, line.get("account"), int(line.get("hour", 0)), click))
    return lines


def judge_lines(judge, lines, account):
    """In order of receipt."""
    return [judge.one(click, other or account, hour, order)
            for order, other, hour, click in sorted(lines, key=lambda line: line[0])]


# ---- sums -------------------------------------------------------------------------------

def nested(rows):
    return [dict(key, **values) for key, values in rows]


def days_of(judged):
    """(zone, day, account, campaign) -> counts by verdict and by reason, conflicts, cost."""
    days = {}
    for j in judged:
        key = (j.zone, j.day, j.account, j.campaign)
        row = days.setdefault(key, {
            "received": 0, "verdicts": collections.Counter(),
            "reasons": collections.Counter(), "conflicts": 0, "cost_micros": 0})
        row["received"] += 1
        row["verdicts"][j.verdict] += 1
        row["reasons"][j.reason] += 1
        row["conflicts"] += j.conflict
        row["cost_micros"] += j.unit_price
    return days


def stats_of(judged):
    """Rows of campaign_daily_stats: key -> [clicks, cost micros]."""
    rows = {}
    for j in judged:
        key = (j.day, j.campaign, j.account, j.ad, j.country, j.device, j.publisher,
               j.verdict, j.reason, j.unit_price)
        row = rows.setdefault(key, [0, 0])
        row[0] += 1
        row[1] += j.unit_price
    return rows


def ledger_of(judged, campaigns):
    """(advertiser, campaign, currency) -> micros owed."""
    ledger = collections.Counter()
    for j in judged:
        if j.verdict == "billable":
            campaign = campaigns[j.campaign]
            ledger[campaign.advertiser, j.campaign, campaign.currency] += j.unit_price
    return ledger


def invoices_of(judged, campaigns):
    """(month, advertiser, currency) -> {"lines": {(campaign, unit price): [clicks, micros,
    minor]}, "total_minor", "micros"}. One rounding a line, then lines are added."""
    invoices = {}
    for j in judged:
        if j.verdict != "billable":
            continue
        campaign = campaigns[j.campaign]
        key = (j.day[:7], campaign.advertiser, campaign.currency)
        lines = invoices.setdefault(key, {})
        line = lines.setdefault((j.campaign, j.unit_price), [0, 0])
        line[0] += 1
        line[1] += j.unit_price
    result = {}
    for key, lines in invoices.items():
        places = PLACES[key[2]]
        full = {at: [n, micros, rounded_minor(micros, places)]
                for at, (n, micros) in lines.items()}
        result[key] = {"lines": full, "total_minor": sum(v[2] for v in full.values()),
                       "micros": sum(v[1] for v in full.values())}
    return result


def certificates_of(judged):
    """(zone, day) -> the counts of the run's certificate."""
    runs = {}
    for j in judged:
        row = runs.setdefault((j.zone, j.day), collections.Counter())
        row["received"] += 1
        row[j.verdict] += 1
        row["conflicts"] += j.conflict
    return runs


def report(judged, campaigns):
    """Everything, for JSON."""
    keys = ("zone", "day", "account", "campaign")
    stats = ("day", "campaign", "account", "ad", "country", "device", "publisher",
             "verdict", "reason", "unit_price_micros")
    return {
        "days": nested((dict(zip(keys, key)), row)
                       for key, row in sorted(days_of(judged).items())),
        "stats": nested((dict(zip(stats, key)), {"clicks": n, "cost_micros": micros})
                        for key, (n, micros) in sorted(stats_of(judged).items())),
        "ledger": [{"advertiser": a, "campaign": c, "currency": money, "micros": micros}
                   for (a, c, money), micros in sorted(ledger_of(judged, campaigns).items())],
        "invoices": [
            {"month": month, "advertiser": advertiser, "currency": money,
             "total_minor": invoice["total_minor"], "micros": invoice["micros"],
             "lines": [{"campaign": c, "unit_price_micros": price, "clicks": n,
                        "micros": micros, "minor": minor}
                       for (c, price), (n, micros, minor) in sorted(invoice["lines"].items())]}
            for (month, advertiser, money), invoice
            in sorted(invoices_of(judged, campaigns).items())],
        "certificates": [dict({"zone": zone, "day": day}, **row)
                         for (zone, day), row in sorted(certificates_of(judged).items())],
    }


# ---- without an order -------------------------------------------------------------------

def check_sets(attempts, copies, verdicts):
    """For tests in which nobody knows the order of posting. Returns complaints.

    attempts: event id -> [tried, acknowledged]; copies: event id -> how often it is in the
    archive; verdicts: event id -> list of its final verdicts. Each 202 is one copy, each
    copy was tried, one copy counts and every other is a duplicate.
    """
    bad = []
    for event, n in copies.items():
        if event not in attempts:
            bad.append(f"{event}: accounted {n} times, never attempted")
    for event, (tried, acknowledged) in attempts.items():
        n = copies.get(event, 0)
        if n < acknowledged:
            bad.append(f"{event}: acknowledged {acknowledged} times, accounted {n}: lost")
        if n > tried:
            bad.append(f"{event}: attempted {tried} times, accounted {n}: made twice")
        found = verdicts.get(event, [])
        if len(found) != n:
            bad.append(f"{event}: {n} in the archive, {len(found)} final verdicts")
        firsts = [v for v in found if v != "duplicate"]
        if n and len(firsts) != 1:
            bad.append(f"{event}: counts {len(firsts)} times, not once ({found})")
    return bad


def main():
    args = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--campaigns", required=True)
    args.add_argument("--truth", required=True)
    args.add_argument("--account", default="demo", help="of the key that posted")
    args.add_argument("--hour-of-receipt", action="store_true",
                      help="rules look back to the hour of receipt before (\"hour\" of a line)")
    args = args.parse_args()
    with open(args.campaigns, encoding="utf-8", newline="") as file:
        campaigns = campaigns_load(file.read())
    with open(args.truth, encoding="utf-8") as file:
        lines = lines_load(file.read())
    judge = Judge(campaigns, hours=args.hour_of_receipt)
    json.dump(report(judge_lines(judge, lines, args.account), campaigns), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
