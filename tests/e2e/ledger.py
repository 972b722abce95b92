"""What the product posted, in the oracle's shapes, and the demand that both be equal."""
import csv
import io

import archive
from harness import check, oracle, same

STATS_SQL = """SELECT s.day, s.campaign_id, a.name, s.ad_id, s.country, s.device_type,
 s.publisher_id, s.verdict, s.reason, s.unit_price_micros, sum(s.clicks), sum(s.cost_micros)
 FROM campaign_daily_stats s JOIN billing_run r ON r.id = s.run_id AND r.status = 'posted'
 JOIN account a ON a.id = s.account_id WHERE {where} GROUP BY 1,2,3,4,5,6,7,8,9,10"""
LEDGER_SQL = """SELECT substr(e.ledger_account, 10), e.campaign_id, e.currency, sum(e.micros),
 sum(e.clicks) FROM ledger_entry e JOIN ledger_transaction t ON t.id = e.transaction_id
 WHERE t.run_id IS NOT NULL AND e.ledger_account LIKE 'unbilled:%' GROUP BY 1, 2, 3"""
CERTIFICATE_NAMES = ("received", "archived", "billable", "suspicious", "over_budget", "invalid",
                     "duplicate", "quarantined", "conflicts")
CERTIFICATES_SQL = f"""SELECT r.time_zone, r.day, {', '.join(f'sum(c.{n})' for n in CERTIFICATE_NAMES)}
 FROM certificate c JOIN billing_run r ON r.id = c.run_id WHERE r.status = 'posted'
 GROUP BY 1, 2 HAVING sum(c.received) > 0"""


def stats(stack, where="true"):
    return {(*row[:9], int(row[9])): [int(row[10]), int(row[11])]
            for row in stack.psql(STATS_SQL.format(where=where))}


def stats_equal(stack, judged):
    same("campaign_daily_stats", stats(stack), oracle.stats_of(judged))


def ledger_equal(stack, judged, campaigns):
    expected = {k: v for k, v in oracle.ledger_of(judged, campaigns).items() if v}
    rows = stack.psql(LEDGER_SQL)
    same("the ledger", {tuple(r[:3]): int(r[3]) for r in rows if int(r[3])}, expected)
    total = stack.psql("SELECT currency, sum(micros) FROM ledger_entry GROUP BY 1 "
                       "HAVING sum(micros) <> 0")
    check(not total, f"the ledger does not balance: {total}")
    revenue = stack.psql("SELECT e.currency, -sum(e.micros) FROM ledger_entry e "
                         "WHERE e.ledger_account LIKE 'revenue:%' GROUP BY 1")
    by_currency = {}
    for (_, _, currency), micros in expected.items():
        by_currency[currency] = by_currency.get(currency, 0) + micros
    same("revenue", {c: int(n) for c, n in revenue if int(n)}, by_currency)


def certificates_equal(stack, judged):
    got = {(row[0], row[1]): {n: int(v) for n, v in zip(CERTIFICATE_NAMES, row[2:])}
           for row in stack.psql(CERTIFICATES_SQL)}
    expected = {}
    for key, counts in oracle.certificates_of(judged).items():
        expected[key] = {n: counts.get(n, 0) for n in CERTIFICATE_NAMES}
        expected[key]["archived"] = counts["received"]
    same("certificates", got, expected)
    for row in got.values():
        parts = sum(row[n] for n in ("billable", "over_budget", "invalid", "duplicate",
                                     "quarantined"))
        check(row["received"] == row["archived"] == parts, f"the identity fails: {row}")


def invoice_lines(text):
    """CSV bytes -> {(month, advertiser, currency): {(campaign, unit price): [clicks, minor]}},
    numbers in order."""
    check("\r\n" in text and "\n" not in text.replace("\r\n", ""), "CSV lines end in CR LF")
    invoices, numbers = {}, []
    for row in csv.DictReader(io.StringIO(text, newline="")):
        places = oracle.PLACES[row["currency"]]
        whole, _, fraction = row["amount"].partition(".")
        check(len(fraction) == places, f"amount {row['amount']} of {row['currency']}")
        key = (row["month"], row["advertiser_id"], row["currency"])
        line = (row["campaign_id"], oracle.micros_of(row["unit_price"]))
        invoices.setdefault(key, {})
        check(line not in invoices[key], f"{key}: line {line} stands twice")
        invoices[key][line] = [int(row["clicks"]), int(whole + fraction)]
        if row["invoice_number"] not in numbers:
            numbers.append(row["invoice_number"])
    return invoices, numbers


def invoices_equal(text, judged, campaigns):
    got, numbers = invoice_lines(text)
    expected = {key: {line: [n, minor] for line, (n, _, minor) in invoice["lines"].items()}
                for key, invoice in oracle.invoices_of(judged, campaigns).items()}
    same("invoices", {(*k, *line): v for k, lines in got.items() for line, v in lines.items()},
         {(*k, *line): v for k, lines in expected.items() for line, v in lines.items()})
    return numbers


def clicks_equal(rows, judged):
    """Click by click, in order of receipt: the archive's rows against the oracle's."""
    check(len(rows) == len(judged), f"{len(rows)} clicks in the archive, {len(judged)} accepted")
    bad = []
    for at, (row, want) in enumerate(zip(rows, judged)):
        final = row["final"]
        got = (row["id"], row["campaign_id"], final["verdict"], final["reason"], final["price"])
        if got != (want.event_id, want.campaign, want.verdict, want.reason, want.unit_price):
            bad.append(f"  click {at}: is {got}, should be {want}; request, partition, index "
                       f"{want.line}")
        elif bool(final["flags"] & 1) != want.conflict:
            bad.append(f"  click {at} {row['id']}: conflict {final['flags']}, {want.conflict}")
    check(not bad, f"{len(bad)} final verdicts differ from the oracle's:\n" + "\n".join(bad[:8]))


def live_expected(rows, zone_of, reason_names):
    """(campaign, local day) -> (totals, reasons) of the recorded live verdicts; campaigns
    that nobody knows have no live rows."""
    days = {}
    for row in rows:
        kind, reason, _ = row["live"]
        check(kind != "none", f"{row['id']}: no live verdict is recorded")
        if row["campaign_id"] not in zone_of:
            continue
        key = (row["campaign_id"],
               oracle.local_day(row["timestamp"], zone_of[row["campaign_id"]]))
        counts, reasons = days.setdefault(key, ([0] * 5, {}))
        counts[("billable", "suspicious", "invalid", "duplicate", "quarantined").index(kind)] += 1
        if kind not in ("billable", "suspicious"):
            name = reason_names[reason]
            reasons[name] = reasons.get(name, 0) + 1
    # As Redis has them: clicks (suspicious ones too), flagged, invalid, duplicate, quarantined.
    return {key: ((c[0] + c[1], c[1], c[2], c[3], c[4]), reasons)
            for key, (c, reasons) in days.items()}


def live_equal(stack, rows, campaigns):
    """Redis against the recorded verdicts, campaign and local day."""
    zones = {c.id: c.zone for c in campaigns.values()}
    expected = live_expected(rows, zones, archive.reasons_of(stack.archive))
    for window in ("1d", "1h"):  # hours add up to their day
        got = {}
        for (campaign, start), (t, reasons) in stack.live_rows(window).items():
            key = (campaign, oracle.local_day(start * 1000, zones.get(campaign, "UTC")))
            check(window == "1h" or key not in got, f"two live rows of {key}")
            counts, names = got.get(key, ((0,) * 5, {}))
            got[key] = (tuple(a + b for a, b in zip(counts, (t[0], *t[2:]))),
                        {n: names.get(n, 0) + reasons.get(n, 0) for n in {*names, *reasons}})
        same(f"live counts, {window}", got, expected)


def identity_of_runs(stack):
    """Stats of the runs add up to their certificates."""
    rows = stack.psql("""SELECT r.id, c.archived, coalesce(s.n, 0) FROM billing_run r
        JOIN certificate c ON c.run_id = r.id LEFT JOIN (SELECT run_id, sum(clicks) AS n
        FROM campaign_daily_stats GROUP BY 1) s ON s.run_id = r.id WHERE r.status = 'posted'""")
    for run, archived, summed in rows:
        check(archived == summed, f"run {run}: {archived} archived, {summed} in the statistics")
