#!/usr/bin/env python3
"""Deliberate bugs in the product, each of which a test must catch.

    mutants.py [--only NAME] [--list] [--keep]

Copies the source tree, builds it (release), shows that the tests pass on it, then puts in one
bug at a time, builds, runs the test that must fail, and takes it out again. A table at the end;
exit code 1 if one survives. An edit whose text is no longer in the source, or there
twice, stops everything: bring the list up to date.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TREE = ("CMakeLists.txt", "CMakePresets.json", "aggregate", "billing", "common", "dashboard",
        "deploy", "fraud", "ingest", "schema", "tests")
TESTS = {
    "pipeline": ["test_pipeline.py", "--clicks", "6000"],
    "powercut": ["test_powercut.py", "--rounds", "6", "--seed", "7"],
    "kill": ["test_kill.py", "--rounds", "6", "--seed", "7"],
    "restore": ["test_restore.py", "--seed", "7"],
}
# Of a line "FAILED: ..." at the test's end: a test that broke some other way caught nothing.
CAUGHT = "FAILED: "

MUTANTS = [  # name, test, [(file, text, replacement)]
    ("fsync_skipped", "powercut", [
        ("common/lmdbenv.c", "if (cfg->no_sync)", "if (cfg->no_sync || !cfg->read_only)")]),
    ("archive_not_synced", "powercut", [
        ("schema/avrofile.c", "fsync(writer->fd) != 0", "writer->fd < 0")]),
    ("manifest_not_synced", "powercut", [
        ("schema/manifest_write.c", "if (err == ERR_OK && fsync(writer->fd) != 0) {",
         "if (err == ERR_OK && writer->fd < 0) {")]),
    ("flush_applied_twice", "pipeline", [  # what a flush carried up is carried up again
        ("aggregate/derive.c", "row->new_totals[k] = 0;", "(void)row;")]),
    ("offset_not_compared", "restore", [
        ("aggregate/flush.c", "else if (!is || number != wanted[i])",
         "else if (i != 1 && (!is || number != wanted[i]))")]),
    ("last_wins", "pipeline", [
        ("billing/judge_batch.c", "mark(click, before->payload);",
         "mark(&judge->clicks[judge->sorted[i].at], click->payload);")]),
    ("rounded_twice", "pipeline", [
        ("billing/invoice.c", "    money_wide rounded = money_round(micros, maker->places);",
         "    money_wide one = money_round(pg_i64(rows, row, 2), maker->places);\n"
         "    for (int p = maker->places; p < 6; p++)\n        one *= 10;\n"
         "    money_wide rounded = money_round(one * pg_i64(rows, row, 5), maker->places);")]),
    ("day_off_by_one", "pipeline", [
        ("schema/zone.c", "int32_t day = day_of(ms + span->offset_ms);",
         "int32_t day = day_of(ms + span->offset_ms - 1);")]),
    ("half_hour_zone_cut", "pipeline", [
        ("schema/zone.c", "int32_t day = day_of(ms + span->offset_ms);",
         "int32_t day = day_of(ms + span->offset_ms / 3600000 * 3600000);")]),
    ("dedup_ignores_account", "pipeline", [
        ("fraud/examine.c", "uint8_t key[20] = {(uint8_t)account,",
         "account = 0;\n    uint8_t key[20] = {(uint8_t)account,"),
        ("billing/judge_batch.c", "return a->account == account && memcmp",
         "(void)account;\n    return memcmp")]),
    ("budget_off_by_one", "pipeline", [
        ("billing/spend.c", "row->spent_micros + price_micros > budget",
         "row->spent_micros > budget")]),
    ("price_ignores_cap", "pipeline", [
        ("schema/master.c", "return event_price_micros < campaign->price_cap_micros",
         "return event_price_micros < INT64_MAX")]),
    ("duplicates_feed_rates", "pipeline", [
        ("billing/judge_state.c", "if (!fraud_feeds(click->reasons))",
         "if (!fraud_feeds(click->reasons & ~REASON_BIT(duplicate)))")]),
    ("received_skipped", "pipeline", [
        ("common/clicklog_append.c", "        if (!tally_add(&log->tally,",
         "        if (i % 100 != 99 && !tally_add(&log->tally,")]),
    ("late_posts_all_again", "pipeline", [
        ("billing/close.c", "        run->after_us = until_us;", "        (void)until_us;")]),
    ("foreign_is_billed", "pipeline", [
        ("fraud/examine.c", "if (campaign->account != click->account)",
         "if (campaign->account == UINT32_MAX)")]),
    ("rate_before_its_time", "pipeline", [
        ("schema/master.c", "while (i > 1 && campaign->rates[i - 1].valid_from_ms > event_ms)",
         "while (i > 1 && i > campaign->rates_n)")]),
    ("counted_live_twice", "pipeline", [
        ("aggregate/count.c", "totals[i] += add[i];", "totals[i] += add[i] * 2;")]),
]


class Bench:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="clickledger-mutants-", dir="/tmp")
        self.source = os.path.join(self.dir, "source")
        self.build = os.path.join(self.dir, "build")
        for name in TREE:
            path = os.path.join(ROOT, name)
            copy = shutil.copytree if os.path.isdir(path) else shutil.copy
            os.makedirs(self.source, exist_ok=True)
            copy(path, os.path.join(self.source, name))
        self.log = open(os.path.join(self.dir, "log"), "w+", encoding="utf-8")
        self.shell("cmake", "-S", self.source, "-B", self.build, "-G", "Ninja",
                   "-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DCLICKLEDGER_HARDEN=ON")

    def shell(self, *words):
        done = subprocess.run(words, stdout=self.log, stderr=self.log, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(words)}: exit code {done.returncode}; see {self.log.name}")

    def make(self):
        self.shell("ninja", "-C", self.build, "clickledger", "powercut")

    def test(self, name):
        """None when it passes, else how it failed."""
        env = dict(os.environ, CLICKLEDGER_BIN=os.path.join(self.build, "clickledger"),
                   CLICKLEDGER_POWERCUT=os.path.join(self.build, "tests/powercut/powercut.so"))
        words = [sys.executable, os.path.join(ROOT, "tests/e2e", TESTS[name][0]), *TESTS[name][1:]]
        done = subprocess.run(words, env=env, text=True, capture_output=True, check=False)
        self.log.write(done.stdout + done.stderr)
        self.log.flush()
        if done.returncode == 0:
            return None
        failed = (done.stderr + "\n").rpartition(CAUGHT)[2].split("\n")
        return " ".join(failed[:2]).strip() or f"exit code {done.returncode}"

    def path(self, name):
        return os.path.join(self.source, name)

    def edit(self, edits):
        """Puts a bug in; returns what was there before."""
        before = {}
        for name, text, replacement in edits:
            with open(self.path(name), encoding="utf-8") as file:
                source = file.read()
            if source.count(text) != 1:
                sys.exit(f"{name}: {source.count(text)} times, not once: {text}")
            before.setdefault(name, source)
            self.write(name, source.replace(text, replacement))
        return before

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def close(self, keep):
        self.log.close()
        if keep:
            print("kept:", self.dir)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


def main():
    args = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--only", metavar="NAME", action="append")
    args.add_argument("--list", action="store_true")
    args.add_argument("--keep", action="store_true", help="leave the directory with its log")
    options = args.parse_args()
    chosen = [m for m in MUTANTS if not options.only or m[0] in options.only]
    if options.list or not chosen:
        print("\n".join(f"{name:24} {test}" for name, test, _ in MUTANTS))
        sys.exit(0 if options.list else 2)
    bench = Bench()
    for _, _, edits in chosen:  # all must apply before time is spent
        for name, text in bench.edit(edits).items():
            bench.write(name, text)
    bench.make()
    for test in sorted({test for _, test, _ in chosen}):
        failed = bench.test(test)
        if failed is not None:
            bench.close(True)
            sys.exit(f"without any bug, {test} fails: {failed}")
        print(f"{'(no bug)':24} {test:10} passes", flush=True)
    survived = 0
    for name, test, edits in chosen:
        began = time.monotonic()
        before = bench.edit(edits)
        bench.make()
        failed = bench.test(test)
        for path, text in before.items():
            bench.write(path, text)
        survived += failed is None
        print(f"{name:24} {test:10} {'SURVIVED' if failed is None else 'caught'} "
              f"{time.monotonic() - began:4.0f} s  {(failed or '')[:120]}", flush=True)
    bench.close(options.keep or survived)
    print(f"{len(chosen) - survived} of {len(chosen)} caught")
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
