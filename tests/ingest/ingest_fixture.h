/* tests/ingest/ingest_fixture.h - the whole stage in one process: a real click log in a
 * temporary folder, keys made in memory, clicks to post, and a look into the log.
 */
#ifndef TESTS_INGEST_FIXTURE_H
#define TESTS_INGEST_FIXTURE_H

#define _XOPEN_SOURCE 700 /* nftw */

#include "ingest/ingest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>
#include <ftw.h>

#include "common/clock.h"
#include "common/hash.h"
#include "schema/click.h"
#include "schema/text.h"
#include "tests/http_client.h"

enum { BODY_MAX = 200000, CLICKS_MAX = 50, PATH_SIZE = 128, IDS_MAX = 20000 };

#define AUTH      "Authorization: Bearer poster\r\n"
#define AUTH_SLOW "Authorization: Bearer slow\r\n"

struct fixture {
    char dir[64];
    struct config config;
    struct clicklog *log;
    struct master_source *master;
    struct ingest *ingest;
    uint16_t port;
    unsigned serial; /* of event ids */
};

static inline struct master_key
key_of(uint32_t id, const char *text, uint32_t scopes, uint32_t rate, bool revoked)
{
    struct master_key key = {.id = id,
                             .account = 10 + id,
                             .scopes = scopes,
                             .rate_clicks_per_s = rate,
                             .revoked = revoked};

    hash_sha256_of(text, strlen(text), key.sha256);
    return key;
}

static inline void
log_start(struct fixture *f, uint64_t bytes_max)
{
    char path[PATH_SIZE];
    const struct clicklog_config cfg = {.dir = path,
                                        .partitions = 4,
                                        .map_bytes = UINT64_C(1) << 30,
                                        .bytes_max = bytes_max,
                                        .no_sync = true};
    struct why why = {{0}};

    (void)snprintf(path, sizeof(path), "%s/log", f->dir);
    if (clicklog_open(&f->log, &cfg, &why) != ERR_OK)
        fail_msg("%s", why.text);
}

static inline void
stage_start(struct fixture *f)
{
    struct why why = {{0}};

    if (ingest_start(&f->ingest, &f->config, f->log, f->master, &why) != ERR_OK)
        fail_msg("%s", why.text);
    f->port = ingest_port(f->ingest);
}

static inline int
setup_log(void **state, uint64_t log_bytes_max)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct master_key keys[] = {
        key_of(1, "poster", MASTER_INGEST, 1000000, false),
        key_of(2, "reader", MASTER_READ, 0, false),
        key_of(3, "gone", MASTER_INGEST, 0, true),
        key_of(4, "slow", MASTER_INGEST, 0, false),
    };
    char name[] = "test", dir_flag[80];
    char proxies[] = "--ingest.trusted_proxies=127.0.0.1, 10.0.0.9";
    char *argv[] = {name, dir_flag, proxies, NULL};
    int argc = 3;
    struct why why = {{0}};

    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/clickledger-ingest-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(dir_flag, sizeof(dir_flag), "--data.dir=%s", f->dir);
    if (config_load(&f->config, NULL, &argc, argv, &why) != ERR_OK)
        fail_msg("%s", why.text);
    f->config.ingest_port = 0;
    f->config.ingest_body_bytes_max = BODY_MAX;
    f->config.ingest_clicks_max = CLICKS_MAX;
    f->config.ingest_rate_clicks_per_s = 10;
    f->config.ingest_rate_burst_clicks = 20;
    f->master = master_fixed(NULL, 0, keys, 4);
    assert_non_null(f->master);
    log_start(f, log_bytes_max);
    stage_start(f);
    *state = f;
    return 0;
}

static inline int
setup(void **state)
{
    return setup_log(state, UINT64_C(1) << 29);
}

static inline int
setup_small(void **state)
{
    return setup_log(state, 400000);
}

static inline int
tree_visit(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static inline void
tree_remove(const char *dir)
{
    assert_int_equal(nftw(dir, tree_visit, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static inline int
teardown(void **state)
{
    struct fixture *f = *state;
    ingest_stop(&f->ingest);
    clicklog_close(&f->log);
    master_close(&f->master);
    config_free(&f->config);
    tree_remove(f->dir);
    free(f);
    return 0;
}

/* --- clicks --- */

/* Appends one click's JSON; ad NULL leaves the required ad_id out. */
static inline void
click_add(struct fixture *f, struct buf *out, const char *ad)
{
    char time[CLOCK_TEXT_SIZE];

    f->serial++;
    buf_printf(
        out,
        "{\"event_id\":\"00000000-0000-4000-8000-%012x\",\"timestamp\":\"%s\","
        "\"campaign_id\":\"c%u\",\"publisher_id\":\"p\",\"user_id\":\"u\","
        "\"ip_address\":\"9.8.7.6\",\"user_agent\":\"Mozilla/"
        "5.0\",\"referer\":\"\","
        "\"device_type\":\"mobile\",\"os\":\"\",\"country\":\"DE\",\"city\":\"\","
        "\"cost_per_click\":\"0.5\"",
        f->serial, clock_format_ms(clock_now_us() / 1000, time), f->serial % 7);
    if (ad != NULL)
        buf_printf(out, ",\"ad_id\":\"%s\"", ad);
    buf_add_text(out, "}");
}

enum shape { ARRAY, LINES };

/* bad of the n clicks, the first ones, lack a field. */
static inline struct buf
batch(struct fixture *f, enum shape shape, unsigned n, unsigned bad)
{
    struct buf out = BUF_MAX(8 << 20);

    if (shape == ARRAY)
        buf_add_text(&out, "[");
    for (unsigned i = 0; i < n; i++) {
        if (i > 0)
            buf_add_text(&out, shape == ARRAY ? "," : "\n");
        click_add(f, &out, i < bad ? NULL : "a");
    }
    if (shape == ARRAY)
        buf_add_text(&out, "]");
    return out;
}

static inline struct client_answer
post(const struct fixture *f, const char *path, const char *headers,
     const struct buf *body)
{
    return client_ask(f->port, "POST", path, headers, body->p, body->n);
}

static inline uint64_t
log_records(struct fixture *f)
{
    uint64_t records = 0, first, next;

    for (uint32_t p = 0; p < clicklog_partitions(f->log); p++) {
        assert_int_equal(clicklog_range(f->log, p, &first, &next, NULL), ERR_OK);
        records += next - first;
    }
    return records;
}

/* Sets seen[serial] for every record, and checks the fields that ingest adds. */
static inline void
log_read(struct fixture *f, uint8_t *seen, struct click *last)
{
    struct clicklog_reader *reader;
    struct clicklog_record record;

    assert_int_equal(clicklog_reader_open(&reader, f->log, NULL), ERR_OK);
    for (uint32_t p = 0; p < clicklog_partitions(f->log); p++) {
        assert_int_equal(clicklog_seek(reader, p, 0, NULL), ERR_OK);
        while (clicklog_next(reader, &record, NULL) == ERR_OK) {
            char id[UUID_TEXT_SIZE];
            struct click click;
            size_t used;

            assert_int_equal(click_decode(&click, record.p, record.n,
                                          record.version, &used, NULL),
                             ERR_OK);
            assert_int_equal(
                hash_partition(click.campaign_id.p, click.campaign_id.n, 4), p);
            assert_int_equal(click.account, 10 + click.key);
            (void)uuid_format(click.event_id, id);
            seen[strtoul(id + 24, NULL, 16) % IDS_MAX]++;
            *last = click;
            if (last->remote.n == 4 && memcmp(last->remote.p, "\x7F\0\0\1", 4) != 0)
                assert_memory_equal(last->remote.p, "\x05\x06\x07\x08", 4);
        }
        clicklog_release(reader);
    }
    clicklog_reader_close(&reader);
}

static inline uint64_t
seen_count(struct fixture *f)
{
    uint8_t *seen = calloc(1, IDS_MAX);
    struct click last;
    uint64_t n = 0;

    log_read(f, seen, &last);
    for (int i = 0; i < IDS_MAX; i++) {
        assert_true(seen[i] <= 1);
        n += seen[i];
    }
    free(seen);
    return n;
}

#endif
