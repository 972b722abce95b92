"""The command line as a user meets it: help, wrong use, configuration. No servers.

    CLICKLEDGER_BIN=build/dev/clickledger tests/deploy/test_command_line.py
"""
import os
import re
import subprocess
import tempfile
import unittest

BIN = os.environ.get("CLICKLEDGER_BIN", "build/dev/clickledger")


def run(*words, env=None, cwd=None):
    done = subprocess.run([BIN, *words], capture_output=True, text=True, timeout=30, cwd=cwd,
                          env={**{k: v for k, v in os.environ.items()
                                  if not k.startswith("CLICKLEDGER_")}, **(env or {})})
    return done.returncode, done.stdout, done.stderr


def commands():
    code, out, err = run("--help")
    assert code == 0 and err == "", err
    return re.findall(r"^  ([a-z]+) +\S", out, re.MULTILINE)


class CommandLine(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="clickledger-cli-")
        self.addCleanup(self.dir.cleanup)

    def file(self, name, text):
        path = os.path.join(self.dir.name, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def sentence(self, text):
        self.assertEqual(text.count("\n"), 1, text)
        self.assertTrue(text.startswith("clickledger"), text)
        self.assertGreater(len(text.split()), 3, text)

    def test_help_lists_every_command_and_each_has_its_own(self):
        names = commands()
        for name in ("run", "judge", "close", "reconcile", "invoice", "campaign", "key", "click",
                     "dlq", "gen", "doctor", "topics", "config", "version", "schema"):
            self.assertIn(name, names)
        for name in names:
            for words in ((name, "--help"), (name, "-h"), (name, "whatever", "--help")):
                code, out, err = run(*words)
                self.assertEqual((code, err), (0, ""), words)
                self.assertTrue(out.startswith(f"Usage: clickledger {name}"), out)
                self.assertIn("Example: clickledger ", out)

    def test_nothing_at_all_is_a_usage_error_with_the_help(self):
        code, out, err = run()
        self.assertEqual((code, out), (2, ""))
        self.assertIn("Usage: clickledger COMMAND", err)

    def test_unknown_commands_and_flags(self):
        code, out, err = run("frobnicate")
        self.assertEqual((code, out), (2, ""))
        self.sentence(err)
        self.assertIn("'frobnicate'", err)
        for name in commands():
            day = ["--day", "2026-11-20"] if name in ("close", "reconcile") else []
            code, out, err = run(name, *day, "--frobnicate")
            self.assertEqual((code, out), (2, ""), name)
            self.sentence(err)
            self.assertIn("--frobnicate", err)

    def test_topics_need_kafka_and_a_configuration_that_can_work(self):
        for words, named in (
                (["topics", "create"], "kafka.brokers"), (["topics", "check", "--json"], "kafka.brokers"),
                (["topics", "check", "--kafka.brokers=127.0.0.1:1", "--kafka.replication=1"], "kafka.min_insync")):
            code, out, err = run(*words)
            self.assertEqual((code, out.strip()), (78, "[]" if "--json" in words else ""), words)
            self.sentence(err)
            self.assertIn(named, err)
        code, out, err = run("topics", "--kafka.brokers=127.0.0.1:1")
        self.assertEqual((code, out), (2, ""))
        self.sentence(err)

    def test_wrong_values_are_named_before_anything_is_opened(self):
        for words, named in (
                (["close"], "--day"), (["close", "--day", "tomorrow"], "--day"),
                (["close", "--day"], "--day"), (["reconcile", "--day", "2026-02-30"], "--day"),
                (["judge", "--until", "noon"], "--until"),
                (["invoice"], "draft"), (["invoice", "draft"], "--month"),
                (["invoice", "draft", "--month", "2026-13"], "--month"),
                (["invoice", "export", "--month", "2026-11", "--format", "pdf"], "--format"),
                (["gen", "--clicks", "0"], "--clicks"), (["gen", "--days", "many"], "--days"),
                (["gen", "--end", "soon"], "--end"),
                (["dlq"], "list"), (["dlq", "list", "--limit", "-1"], "--limit"),
                (["click", "show", "no-uuid"], "UUID"), (["click"], "show"),
                (["config"], "check"), (["config", "frob"], "check"),
                (["schema"], "avro"), (["campaign"], "import"), (["key"], "create"),
                (["key", "create"], "--account"), (["key", "revoke", "x"], "number"),
                (["key", "list", "3"], "revoke")):
            code, out, err = run(*words)
            self.assertEqual((code, out), (2, ""), (words, out, err))
            self.sentence(err)
            self.assertIn(named, err, words)

    def test_a_wrong_configuration_is_78_and_names_the_place(self):
        for text, named in (("ingest:\n  prot: 8080\n", "prot"),
                            ("ingest:\n  port: many\n", "ingest.port"),
                            ("ingest:\n  port: 99999999\n", "ingest.port"),
                            ("log:\n  level: loud\n", "log.level"),
                            ("log:\n  format: xml\n", "log.format"),
                            ("ingest:\n  ack: all\n", "ingest.ack"),
                            ("ingest:\n  ack: replicated\n", "kafka.brokers"),
                            ("kafka:\n  brokers: b:1\n  replication: 1\n", "kafka.min_insync"),
                            ("nonsense", ""), ("a: [", "")):
            path = self.file("bad.yaml", text)
            for words in (("config", "check"), ("version",), ("judge",)):
                code, out, err = run(*words, "--config", path)
                self.assertEqual((code, out), (78, ""), (text, words, err))
                self.assertIn("configuration", err)
                self.assertIn(named, err)
        for words in (("--ingest.port=x",), ("--config", os.path.join(self.dir.name, "none"))):
            code, _, err = run("config", "check", *words)
            self.assertEqual(code, 78, err)
        code, _, err = run("config", "check", env={"CLICKLEDGER_INGEST_PORT": "x"})
        self.assertEqual(code, 78, err)
        self.assertIn("CLICKLEDGER_INGEST_PORT", err)

    def test_relay_and_run_say_how_they_are_used(self):
        kafka = "--kafka.brokers=127.0.0.1:1"
        none = f"--data.dir={self.dir.name}/none"
        for words, code, named in (
                (["relay"], 78, "kafka.brokers"),
                (["relay", "nonsense"], 2, "status, rewind or forget"),
                (["relay", "status"], 2, "kafka.brokers"),
                (["relay", "status", "more", kafka], 2, "more"),
                (["relay", "rewind", "more", kafka], 2, "more"),
                (["relay", "rewind", "--partition", "x"], 2, "--partition"),
                (["relay", "rewind", "--offset", "-1"], 2, "--offset"),
                (["relay", "forget", kafka], 2, "16 hexadecimal"),
                (["relay", "forget", "xyz", kafka], 2, "16 hexadecimal"),
                (["relay", "forget", "0123456789abcdef", "more", kafka], 2, "more"),
                (["relay", "status", kafka, none], 1, "no log"),
                (["relay", "rewind", "--partition", "0", kafka, none], 1, "no log"),
                (["run", "--without", "nonsense"], 2, "nonsense"),
                (["run", "--without", "archive,,relay"], 2, "--without"),
                (["run", "--without"], 2, "--without")):
            got, out, err = run(*words)
            self.assertEqual((got, out), (code, ""), (words, err))
            self.sentence(err)
            self.assertIn(named, err, words)

    def test_config_check_looks_at_all_of_kafkas_settings(self):
        self.assertEqual(run("config", "check", "--kafka.brokers=a:1,b:2")[:2], (0, "configuration is good\n"))
        bad = self.file("properties", "ssl.key.location=/x\nacks=0\n")
        for words, named in ((["--kafka.brokers=a:1,b:x"], "b:x"),
                             (["--kafka.brokers=a:1", "--kafka.topic_prefix=a/b"], "kafka.topic_prefix"),
                             (["--kafka.brokers=a:1", "--kafka.properties_file=/none"], "/none"),
                             (["--kafka.brokers=a:1", f"--kafka.properties_file={bad}"], f"{bad}:2: acks")):
            code, out, err = run("config", "check", *words)
            self.assertEqual((code, out), (78, ""), (words, err))
            self.sentence(err)
            self.assertIn(named, err)

    def test_show_goes_round_through_check_and_show(self):
        code, first, err = run("config", "show", "--ingest.port=8123")
        self.assertEqual((code, err), (0, ""))
        path = self.file("shown.yaml", first)
        self.assertEqual(run("config", "check", "--config", path)[:2],
                         (0, "configuration is good\n"))
        self.assertEqual(run("config", "show", "--config", path), (0, first, ""))
        self.assertIn("8123", first)
        code, second, _ = run("config", "show", "--config", path, "--ingest.port=8124")
        self.assertEqual(code, 0)
        self.assertNotEqual(first, second)
        self.assertEqual(run("config", "show", env={"CLICKLEDGER_CONFIG": path})[1], first)

    def test_documents_are_for_reading(self):
        for words, part in ((("schema", "avro"), '"type"'), (("schema", "fields"), "campaign_id"),
                            (("config", "document"), "ingest.port"),
                            (("version",), "clickledger "), (("--version",), "clickledger ")):
            code, out, err = run(*words)
            self.assertEqual((code, err), (0, ""), words)
            self.assertIn(part, out)

    def test_gen_writes_the_same_campaigns_for_the_same_seed(self):
        texts = []
        for seed in ("1", "1", "2"):
            path = os.path.join(self.dir.name, "c.csv")
            code, _, err = run("gen", "--seed", seed, "--clicks", "100", "--campaigns", "20",
                               "--campaigns-out", path)
            self.assertEqual(code, 0, err)
            with open(path, encoding="utf-8", newline="") as file:
                texts.append(file.read())
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])
        self.assertGreaterEqual(texts[0].count("\r\n"), 21)

    def test_a_database_that_is_away_is_one_sentence_and_1(self):
        env = {"CLICKLEDGER_POSTGRES_CONNINFO": f"host={self.dir.name} dbname=none",
               "CLICKLEDGER_DATA_DIR": self.dir.name}
        for words in (("judge",), ("close", "--day", "yesterday"), ("key", "list"),
                      ("invoice", "list", "--month", "2026-11"), ("campaign", "export"),
                      ("reconcile", "--day", "yesterday")):
            code, out, err = run(*words, env=env)
            self.assertEqual((code, out), (1, ""), (words, err))
            self.assertIn("clickledger", err)
            self.assertLess(err.count("\n"), 6)


if __name__ == "__main__":
    unittest.main()
