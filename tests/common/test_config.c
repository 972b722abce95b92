/* Each source of a value, their order, and what a slip of the pen is told. */
#include "common/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/file.h"

static char path[] = "/tmp/clickledger-config-XXXXXX";

static int
make_file(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int
remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static enum err
load_yaml(struct config *config, const char *yaml, struct why *why)
{
    assert_int_equal(file_write(path, yaml, strlen(yaml), NULL), ERR_OK);
    return config_load(config, path, NULL, NULL, why);
}

static void
without_a_file_every_key_has_its_default(void **state)
{
    struct config config;

    (void)state;
    assert_int_equal(config_load(&config, NULL, NULL, NULL, NULL), ERR_OK);
#define TEXT(section, key, fallback, prose) \
    assert_string_equal(config.section##_##key, fallback);
#define NUMBER(section, key, fallback, min, max, prose) \
    assert_int_equal(config.section##_##key, fallback); \
    assert_true((int64_t)(fallback) >= (int64_t)(min)); \
    assert_true((int64_t)(fallback) <= (int64_t)(max));
    CONFIG_MAP(TEXT, NUMBER)
#undef TEXT
#undef NUMBER
    config_free(&config);
    config_free(&config);
}

static void
good_files_are_taken(void **state)
{
    static const struct {
        const char *yaml;
        int64_t port;
        const char *level;
    } cases[] = {
        {"", 8080, "info"},
        {"# only a comment\n", 8080, "info"},
        {"ingest:\n", 8080, "info"},
        {"ingest:\n  # port: 1\n", 8080, "info"},
        {"ingest:\n  port: 0\n", 0, "info"},
        {"ingest:\n  port: 65535", 65535, "info"},
        {"ingest: {port: 81}\nlog: {level: warn}\n", 81, "warn"},
        {"kafka: {replication: 1}\n", 8080, "info"}, /* of no use without brokers */
        {"ingest: {ack: local}\n", 8080, "info"},
        {"ingest: {ack: ''}\nkafka: {brokers: 'b:1'}\n", 8080, "info"},
        {"ingest: {ack: replicated}\nkafka: {brokers: b}\n", 8080, "info"},
        {"---\nlog:\n  level: \"debug\"\ningest:\n  port: '82'\n", 82, "debug"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config config;
        struct why why = {""};

        if (load_yaml(&config, cases[i].yaml, &why) != ERR_OK)
            fail_msg("case %zu: %s", i, why.text);
        assert_int_equal(config.ingest_port, cases[i].port);
        assert_string_equal(config.log_level, cases[i].level);
        config_free(&config);
    }
}

static void
bad_files_are_refused_with_key_line_and_what_is_allowed(void **state)
{
    static const struct {
        const char *yaml;
        const char *says[3];
    } cases[] = {
        {"ingest:\n  prot: 1\n",
         {"line 2", "unknown key ingest.prot", "config show"}},
        {"log:\n  level: info\nfoo:\n  a: 1\n", {"line 3", "unknown key foo"}},
        {"ingest:\n  port: 65536\n",
         {"line 2", "ingest.port is \"65536\"", "0 to 65535"}},
        {"ingest:\n  port: -1\n", {"line 2", "\"-1\"", "0 to 65535"}},
        {"ingest:\n  port: 80x\n", {"line 2", "\"80x\""}},
        {"ingest:\n  port:\n", {"line 2", "ingest.port is \"\""}},
        {"ingest:\n  port: 1.5\n", {"line 2", "\"1.5\""}},
        {"dashboard:\n  port: 1\n\ningest:\n\n  port: 99999999999999999999\n",
         {"line 6", "ingest.port"}},
        {"log:\n  level: loud\n",
         {"line 2", "log.level is \"loud\"", "warn or error"}},
        {"log:\n  format: xml\n", {"line 2", "log.format", "logfmt or json"}},
        {"ingest:\n  port: [1]\n", {"line 2", "ingest"}},
        {"ingest: 5\n", {"line 1", "MAPPING"}},
        {"ingest:\n  port: 1\n  port: 2\n", {"already seen"}},
        {"ingest:\n  port: 1\ningest:\n  port: 2\n", {"already seen"}},
        {"ingest:\n\tport: 1\n", {"line", "cannot start any token"}},
        {"- a\n", {"MAPPING"}},
        {"aggregate:\n  flush_ms: 2000\n", {"flush_ms is 2000", "flush_ms_max"}},
        {"clicklog:\n  map_bytes: 1048576\n", {"clicklog.bytes_max", "map_bytes"}},
        {"ingest:\n  ack: all\n",
         {"line 2", "ingest.ack is \"all\"",
          "local (202 after fsync), replicated"}},
        {"ingest:\n  ack: replicated\n", {"kafka.brokers is empty", "local"}},
        {"kafka:\n  brokers: b:1\n  replication: 1\n",
         {"kafka.min_insync is 2", "kafka.replication, 1", "lower it"}},
        {"kafka:\n  brokers: b:1\n  group: ''\n", {"kafka.group is empty"}},
        {"kafka:\n  brokers: b:1\n  batch_bytes: 2000000\n"
         "  queue_bytes_max: 1048576\n",
         {"kafka.batch_bytes is 2000000", "kafka.queue_bytes_max, 1048576"}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config config;
        struct why why = {""};

        assert_int_equal(load_yaml(&config, cases[i].yaml, &why), ERR_INVALID);
        for (size_t j = 0; j < 3 && cases[i].says[j] != NULL; j++)
            if (strstr(why.text, cases[i].says[j]) == NULL)
                fail_msg("case %zu: \"%s\" lacks \"%s\"", i, why.text,
                         cases[i].says[j]);
        config_free(&config);
    }
}

static void
a_missing_file_is_said_to_be_missing(void **state)
{
    struct config config;
    struct why why;

    (void)state;
    assert_int_equal(config_load(&config, "/nonexistent.yaml", NULL, NULL, &why),
                     ERR_NOTFOUND);
    assert_non_null(strstr(why.text, "/nonexistent.yaml"));
}

static void
flag_beats_environment_beats_file_beats_default(void **state)
{
    char prog[] = "clickledger", command[] = "run", flag[] = "--ingest.port=4";
    char other[] = "--demo", data[] = "--data=a.b", stop[] = "--",
         late[] = "--ingest.port=5";
    char *argv[] = {prog, flag, command, other, data, stop, late, NULL};
    int argc = 7;
    struct config config;
    struct why why = {""};

    (void)state;
    (void)setenv("CLICKLEDGER_INGEST_PORT", "3", 1);
    (void)setenv("CLICKLEDGER_INGEST_THREADS", "3", 1);
    (void)setenv("CLICKLEDGER_TEST_REDIS", "not configuration", 1);
    assert_int_equal(
        file_write(path, "ingest: {port: 2, threads: 2, clicks_max: 2}", 44, NULL),
        ERR_OK);
    if (config_load(&config, path, &argc, argv, &why) != ERR_OK)
        fail_msg("%s", why.text);
    assert_int_equal(config.ingest_port, 4);
    assert_int_equal(config.ingest_threads, 3);
    assert_int_equal(config.ingest_clicks_max, 2);
    assert_int_equal(config.ingest_connections_max, 2000);
    assert_int_equal(argc, 6);
    assert_string_equal(argv[1], "run");
    assert_string_equal(argv[2], "--demo");
    assert_string_equal(argv[5], "--ingest.port=5");
    assert_null(argv[6]);
    config_free(&config);
    (void)unsetenv("CLICKLEDGER_INGEST_PORT");
    (void)unsetenv("CLICKLEDGER_INGEST_THREADS");
    (void)unsetenv("CLICKLEDGER_TEST_REDIS");
}

static void
bad_flags_and_variables_are_refused_by_name(void **state)
{
    static const struct {
        const char *flag;
        const char *says;
    } cases[] = {
        {"--ingest.prot=1", "--ingest.prot"},
        {"--ingest.port", "--ingest.port=VALUE"},
        {"--ingest.port=", "0 to 65535"},
        {"--ingest.port=1e3", "\"1e3\""},
        {"--nowhere.port=1", "--nowhere.port"},
        {"--log.level=x", "debug, info, warn or error"},
    };
    struct config config;
    struct why why;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char prog[] = "clickledger", flag[64];
        char *argv[] = {prog, flag, NULL};
        int argc = 2;

        (void)snprintf(flag, sizeof(flag), "%s", cases[i].flag);
        assert_int_equal(config_load(&config, NULL, &argc, argv, &why),
                         ERR_INVALID);
        assert_non_null(strstr(why.text, cases[i].says));
    }
    (void)setenv("CLICKLEDGER_INGEST_PROT", "1", 1);
    assert_int_equal(config_load(&config, NULL, NULL, NULL, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "CLICKLEDGER_INGEST_PROT"));
    (void)unsetenv("CLICKLEDGER_INGEST_PROT");
    (void)setenv("CLICKLEDGER_INGEST_PORT", "x", 1);
    assert_int_equal(config_load(&config, NULL, NULL, NULL, &why), ERR_INVALID);
    assert_non_null(
        strstr(why.text, "CLICKLEDGER_INGEST_PORT: ingest.port is \"x\""));
    (void)unsetenv("CLICKLEDGER_INGEST_PORT");
}

static void
what_is_shown_loads_back_the_same(void **state)
{
    struct buf shown = BUF_MAX(100000), again = BUF_MAX(100000);
    char prog[] = "x", flag[] = "--postgres.conninfo=host='a b' \"\\ \t# é: {[";
    char *argv[] = {prog, flag, NULL};
    int argc = 2;
    struct config config, back;
    struct why why = {""};

    (void)state;
    assert_int_equal(config_load(&config, NULL, &argc, argv, &why), ERR_OK);
    config_show(&config, &shown);
    assert_int_equal(file_write(path, shown.p, shown.n, NULL), ERR_OK);
    if (config_load(&back, path, NULL, NULL, &why) != ERR_OK)
        fail_msg("%s", why.text);
    assert_string_equal(back.postgres_conninfo, config.postgres_conninfo);
    config_show(&back, &again);
    assert_int_equal(again.n, shown.n);
    assert_memory_equal(again.p, shown.p, shown.n);
    buf_reset(&shown);
    config_document(&shown);
    buf_add(&shown, "", 1);
    assert_non_null(
        strstr((char *)shown.p, "| `ingest.port` | `8080` | 0 to 65535 |"));
    config_free(&config);
    config_free(&back);
    buf_free(&shown);
    buf_free(&again);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_file_every_key_has_its_default),
        cmocka_unit_test(good_files_are_taken),
        cmocka_unit_test(bad_files_are_refused_with_key_line_and_what_is_allowed),
        cmocka_unit_test(a_missing_file_is_said_to_be_missing),
        cmocka_unit_test(flag_beats_environment_beats_file_beats_default),
        cmocka_unit_test(bad_flags_and_variables_are_refused_by_name),
        cmocka_unit_test(what_is_shown_loads_back_the_same),
    };

    return cmocka_run_group_tests(tests, make_file, remove_file);
}
