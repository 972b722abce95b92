/* Settings without a broker: the properties file, names, error codes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/file.h"
#include "common/kafka.h"
#include "common/kafka_impl.h"
#include "tests/common/clicklog_fixture.h"
#include "tests/common/kafka_fixture.h"

static struct config config;
static struct folder folder;
static char path[128];

static int
setup(void **state)
{
    (void)state;
    fixture_config(&config, "127.0.0.1:1");
    folder = folder_make();
    (void)snprintf(path, sizeof(path), "%s/properties", folder.path);
    fixture_set(&config.kafka_properties_file, path);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    folder_remove(&folder);
    config_free(&config);
    return 0;
}

static enum err
conf_of(const char *text, size_t n, rd_kafka_conf_t **out, struct why *why)
{
    static const struct kafka_setting own[] = {{"linger.ms", "7"}};
    struct kafka_watch watch;

    if (file_write(path, text, n, why) != ERR_OK)
        exit(1);
    return kafka_conf(out, &config, "test", &watch, own, 1, why);
}

static void
check(const rd_kafka_conf_t *conf, const char *key, const char *want)
{
    char value[256];
    size_t size = sizeof(value);

    assert_int_equal(rd_kafka_conf_get(conf, key, value, &size), RD_KAFKA_CONF_OK);
    assert_string_equal(value, want);
}

static void
a_properties_file_is_laid_over_what_we_set(void **state)
{
    static const char text[] = "# comment = not one\n"
                               "\n"
                               "  \t\r\n"
                               "security.protocol=sasl_plaintext\r\n"
                               " sasl.username = name with = in it \n"
                               "linger.ms=99\n"
                               "sasl.password=secret#no comment";
    rd_kafka_conf_t *conf;
    struct why said = {""};

    (void)state;
    assert_int_equal(conf_of(text, sizeof(text) - 1, &conf, &said), ERR_OK);
    check(conf, "security.protocol", "sasl_plaintext");
    check(conf, "sasl.username", "name with = in it");
    check(conf, "sasl.password", "secret#no comment");
    check(conf, "linger.ms", "99");
    check(conf, "log.connection.close", "false");
    check(conf, "client.id", "clickledger-test");
    check(conf, "bootstrap.servers", "127.0.0.1:1");
    rd_kafka_conf_destroy(conf);
    assert_int_equal(conf_of("", 0, &conf, &said), ERR_OK);
    check(conf, "linger.ms", "7");
    rd_kafka_conf_destroy(conf);
}

static void
errors_name_file_line_and_key_and_never_a_value(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"a line", ":1: not key=value"},
        {"\n\n=hunter2", ":3: no key"},
        {"no.such.thing=hunter2", ":1: no.such.thing: not a property"},
        {"#\nsecurity.protocol=hunter2", ":2: security.protocol: its value"},
        {"linger.ms=hunter2", ":1: linger.ms: its value"},
        {"socket.timeout.ms=999999999", ":1: socket.timeout.ms: its value"},
        {"bootstrap.servers=hunter2", ": set kafka.brokers instead"},
        {"group.id=hunter2", ": set kafka.group instead"},
        {"acks=hunter2", ":1: acks: not to be set"},
        {" enable.idempotence = false", "not to be set"},
        {"auto.offset.reset=latest", "not to be set"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        rd_kafka_conf_t *conf;
        struct why said = {""};

        assert_int_equal(conf_of(bad[i].text, strlen(bad[i].text), &conf, &said),
                         ERR_INVALID);
        assert_null(conf);
        assert_non_null(strstr(said.text, path));
        if (strstr(said.text, bad[i].says) == NULL)
            fail_msg("%s: %s", bad[i].text, said.text);
        assert_null(strstr(said.text, "hunter2"));
    }
}

static void
a_file_that_is_missing_binary_or_too_long_is_refused(void **state)
{
    rd_kafka_conf_t *conf;
    struct why said = {""};
    struct kafka_watch watch;
    char *text = calloc(1, KAFKA_PROPERTIES_MAX + 1);

    (void)state;
    assert_non_null(text);
    memset(text, '#', KAFKA_PROPERTIES_MAX);
    assert_int_equal(conf_of("a=\0b", 4, &conf, &said), ERR_INVALID);
    assert_non_null(strstr(said.text, "not a text file"));
    assert_int_not_equal(conf_of(text, KAFKA_PROPERTIES_MAX, &conf, &said), ERR_OK);
    assert_int_equal(conf_of(text, KAFKA_PROPERTIES_MAX - 1, &conf, &said), ERR_OK);
    rd_kafka_conf_destroy(conf);
    free(text);
    (void)unlink(path);
    assert_int_equal(kafka_conf(&conf, &config, "test", &watch, NULL, 0, &said),
                     ERR_NOTFOUND);
    assert_non_null(strstr(said.text, path));
}

static void
names_are_prefix_and_name(void **state)
{
    static const char *const bad[] = {"a b", "a/b", "\xc3\xa4", "a,b"};
    char name[KAFKA_NAME_MAX + 1], longest[202];
    rd_kafka_conf_t *conf;
    struct why said = {""};

    (void)state;
    fixture_set(&config.kafka_topic_prefix, "eu.");
    kafka_topic_name(&config, "raw_clicks", name);
    assert_string_equal(name, "eu.raw_clicks");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        fixture_set(&config.kafka_topic_prefix, bad[i]);
        assert_int_equal(conf_of("", 0, &conf, &said), ERR_INVALID);
        assert_non_null(strstr(said.text, "kafka.topic_prefix"));
    }
    memset(longest, 'a', sizeof(longest));
    longest[201] = '\0';
    fixture_set(&config.kafka_topic_prefix, longest);
    assert_int_equal(conf_of("", 0, &conf, &said), ERR_INVALID);
    longest[200] = '\0';
    fixture_set(&config.kafka_topic_prefix, longest);
    assert_int_equal(conf_of("", 0, &conf, &said), ERR_OK);
    rd_kafka_conf_destroy(conf);
}

static void
no_brokers_is_no_kafka(void **state)
{
    rd_kafka_conf_t *conf;
    struct why said = {""};

    (void)state;
    assert_true(kafka_wanted(&config));
    fixture_set(&config.kafka_brokers, "");
    assert_false(kafka_wanted(&config));
    assert_int_equal(conf_of("", 0, &conf, &said), ERR_INVALID);
    assert_non_null(strstr(said.text, "kafka.brokers"));
}

static void
codes_say_whether_to_try_again(void **state)
{
    struct why said = {""};

    (void)state;
    assert_int_equal(kafka_code(RD_KAFKA_RESP_ERR_NO_ERROR), ERR_OK);
    assert_int_equal(kafka_code(RD_KAFKA_RESP_ERR__TRANSPORT), ERR_AGAIN);
    assert_int_equal(kafka_code(RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS), ERR_AGAIN);
    assert_int_equal(kafka_code(RD_KAFKA_RESP_ERR__QUEUE_FULL), ERR_FULL);
    assert_int_equal(kafka_code(RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE),
                     ERR_NOTFOUND);
    assert_int_equal(kafka_code(RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED),
                     ERR_FATAL);
    assert_int_equal(
        kafka_error(RD_KAFKA_RESP_ERR__TIMED_OUT, "clicks", "asked", &said),
        ERR_AGAIN);
    assert_string_equal(said.text, "kafka: clicks: asked: Local: Timed out");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* What `clickledger config check` says, without asking anybody. */
static void
the_section_is_checked_without_a_broker(void **state)
{
    static const struct {
        const char *brokers;
        bool good;
    } table[] = {
        {"a", true},
        {"a:9092", true},
        {"a:1,b:65535", true},
        {"[::1]:9092", true},
        {"SSL://a:9092", true},
        {"a:", false},
        {":1", false},
        {"a:0", false},
        {"a:65536", false},
        {"a:9092x", false},
        {"a,,b", false},
        {"a:1,", false},
        {",", false},
        {"a b:1", false},
        {"a:1;b:1", false},
        {"[::1]:x", false},
        {"a:99999999999999999999", false},
        {"", true}, /* no Kafka */
    };
    struct why why = {""};

    (void)state;
    fixture_set(&config.kafka_properties_file, "");
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        fixture_set(&config.kafka_brokers, table[i].brokers);
        if ((kafka_settings_check(&config, &why) == ERR_OK) != table[i].good)
            fail_msg("%s: %s", table[i].brokers, why.text);
        if (!table[i].good)
            assert_non_null(strstr(why.text, "kafka.brokers has"));
    }
    fixture_set(&config.kafka_brokers, "a:1");
    fixture_set(&config.kafka_topic_prefix, "a/b");
    assert_int_equal(kafka_settings_check(&config, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "kafka.topic_prefix"));
    fixture_set(&config.kafka_topic_prefix, "");
    fixture_set(&config.kafka_properties_file, path);
    assert_int_equal(file_write(path, "acks=0\n", 7, &why), ERR_OK);
    assert_int_equal(kafka_settings_check(&config, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, ":1: acks"));
    fixture_set(&config.kafka_properties_file, "/nonexistent");
    assert_int_equal(kafka_settings_check(&config, &why), ERR_NOTFOUND);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_properties_file_is_laid_over_what_we_set),
        TEST(errors_name_file_line_and_key_and_never_a_value),
        TEST(a_file_that_is_missing_binary_or_too_long_is_refused),
        TEST(names_are_prefix_and_name),
        TEST(no_brokers_is_no_kafka),
        TEST(the_section_is_checked_without_a_broker),
        TEST(codes_say_whether_to_try_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
