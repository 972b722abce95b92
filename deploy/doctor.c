/* clickledger doctor: looks at each part from outside, and says what to do. */
#include "deploy/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "billing/judge.h"
#include "common/buf.h"
#include "common/clicklog.h"
#include "common/clock.h"
#include "common/control.h"
#include "common/file.h"
#include "common/kafka.h"
#include "common/pg.h"
#include "common/redis.h"
#include "deploy/stages.h"
#include "schema/manifest.h"
#include "schema/migrate.h"
#include "schema/rediskeys.h"
#include "schema/topics.h"

enum {
    EVENTS_SHOWN = 10,
    EVENT_TIME_CHARS = 19, /* to the second */
    EVENTS_BYTES_MAX = 64 << 20,
    ARCHIVE_SLACK_S = 120,
    JUDGE_SLACK_S = 7200,
    LAG_MAX = 1000000,
    DISK_FREE_PERCENT_MIN = 5,
    RELAY_SLACK_S = 60,
    RELAY_HEAR_US = 10000000,
};

enum finding { FINDING_GOOD, FINDING_NOTE, FINDING_BAD };

struct doctor {
    const struct config *config;
    struct clicklog *log;
    uint64_t
        ends[CLICKLOG_PARTITIONS_MAX]; /* of what aggregate reads; 0: unknown */
    uint64_t firsts[CLICKLOG_PARTITIONS_MAX]; /* the first that Kafka holds */
    struct buf out;
    bool json;
    unsigned findings, bad;
};

static void
say(struct doctor *doctor, enum finding finding, const char *part, const char *text,
    const char *advice)
{
    static const char *const words[] = {"ok", "note", "BAD"};

    doctor->bad += finding == FINDING_BAD;
    if (doctor->json) {
        buf_add_text(&doctor->out, doctor->findings == 0 ? "[" : ",");
        buf_printf(&doctor->out,
                   "{\"part\":\"%s\",\"state\":\"%s\",\"text\":", part,
                   words[finding]);
        buf_add_json(&doctor->out, str_of(text));
        buf_add_text(&doctor->out, ",\"advice\":");
        buf_add_json(&doctor->out, str_of(advice));
        buf_add_text(&doctor->out, "}");
    } else {
        buf_printf(&doctor->out, "%-5s %-10s %s\n", words[finding], part, text);
        if (advice[0] != '\0')
            buf_printf(&doctor->out, "                 -> %s\n", advice);
    }
    doctor->findings++;
}

static void
disk_look(struct doctor *doctor)
{
    struct statvfs fs;
    char text[256];

    if (statvfs(doctor->config->data_dir, &fs) != 0) {
        say(doctor, FINDING_BAD, "disk", "the data directory is not there",
            "check data.dir, and start `clickledger run`");
        return;
    }
    uint64_t free_mb = (uint64_t)fs.f_bavail * fs.f_frsize >> 20;
    bool low = fs.f_bavail * 100 < fs.f_blocks * DISK_FREE_PERCENT_MIN;
    (void)snprintf(text, sizeof(text), "%llu MB free below %s",
                   (unsigned long long)free_mb, doctor->config->data_dir);
    say(doctor, low ? FINDING_BAD : FINDING_GOOD, "disk", text,
        low ? "free some: when the disk is full, ingest answers 503" : "");
}

static void
ends_take(struct doctor *doctor)
{
    uint64_t first, next;

    for (uint32_t p = 0; p < clicklog_partitions(doctor->log); p++)
        if (clicklog_range(doctor->log, p, &first, &next, NULL) == ERR_OK)
            doctor->ends[p] = next;
}

static void
log_look(struct doctor *doctor)
{
    uint64_t bytes_max = (uint64_t)doctor->config->clicklog_bytes_max;
    char dir[FILE_PATH_MAX], text[512];
    struct clicklog_stats stats;
    struct why why = {{0}};

    (void)snprintf(dir, sizeof(dir), "%s/log", doctor->config->data_dir);
    if (kafka_wanted(doctor->config) && access(dir, F_OK) != 0) {
        say(doctor, FINDING_NOTE, "log", "no spool here: ingest runs elsewhere",
            "");
        return;
    }
    if (stages_spool_open(doctor->config, true, &doctor->log, &why) != ERR_OK) {
        say(doctor, FINDING_BAD, "log", why.text, "start `clickledger run`");
        return;
    }
    if (!kafka_wanted(doctor->config))
        ends_take(doctor);
    clicklog_stats_get(doctor->log, &stats);
    bool full = stats.bytes_used > bytes_max / 10 * 9;
    (void)snprintf(text, sizeof(text), "%llu MB of %llu MB",
                   (unsigned long long)(stats.bytes_used >> 20),
                   (unsigned long long)(bytes_max >> 20));
    say(doctor, full ? FINDING_BAD : FINDING_GOOD, "log", text,
        full ? "the archive does not keep up, or clicklog.bytes_max is too small"
             : "");
}

static void
topics_look(struct doctor *doctor)
{
    struct buf report = BUF_MAX(EVENTS_BYTES_MAX);
    struct why why = {{0}};
    enum err err = topics_check(doctor->config, false, &report, &why);

    if (err == ERR_OK) {
        say(doctor, FINDING_GOOD, "kafka", "the topics keep the promise", "");
    } else if (err == ERR_INVALID) {
        buf_add(&report, "", 1);
        say(doctor, FINDING_BAD, "kafka",
            report.failed ? why.text : (char *)report.p,
            "see `clickledger topics check`");
    } else {
        say(doctor, FINDING_BAD, "kafka", why.text,
            "start the brokers: meanwhile clicks are answered 503, or, with "
            "ingest.ack local, wait in the log");
    }
    buf_free(&report);
}

static void
topic_ends_take(struct doctor *doctor)
{
    struct kafka_consumer *consumer = NULL;
    char topic[KAFKA_NAME_MAX + 1];

    kafka_topic_name(doctor->config, "raw_clicks", topic);
    if (kafka_consumer_open(&consumer, doctor->config, topic, "doctor", NULL) !=
        ERR_OK)
        return;
    for (int32_t p = 0; p < doctor->config->clicklog_partitions; p++)
        if (kafka_consumer_range(consumer, p, &doctor->firsts[p], &doctor->ends[p],
                                 NULL) != ERR_OK)
            break;
    kafka_consumer_close(&consumer);
}

static void
relay_look(struct doctor *doctor)
{
    struct control *control = NULL;
    struct control_spool spool;
    struct why why = {{0}};
    char text[256], until[CLOCK_TEXT_SIZE];
    enum err err =
        control_open(&control, doctor->config,
                     (uint32_t)doctor->config->clicklog_partitions, &why);

    if (err == ERR_OK)
        err = control_sync(control, RELAY_HEAR_US, &why);
    if (err == ERR_OK)
        err = control_spool_get(control, &spool, &why);
    control_close(&control);
    if (err != ERR_OK) {
        say(doctor, FINDING_BAD, "relay", why.text, "start the relay stage");
        return;
    }
    int64_t age_us = clock_now_us() - spool.mark.floor_us;
    (void)snprintf(text, sizeof(text), "all received before %s is in Kafka%s",
                   clock_format_ms(spool.mark.floor_us / 1000, until),
                   spool.closed ? "; it was stopped then" : "");
    bool bad = age_us > RELAY_SLACK_S * CLOCK_SECOND_US;
    say(doctor, bad ? FINDING_BAD : FINDING_GOOD, "relay", text,
        bad ? "no hour is judged past that: start the relay stage, or, if its "
              "machine is gone for good, `clickledger relay forget`"
            : "");
}

static void
kafka_look(struct doctor *doctor)
{
    unsigned bad = doctor->bad;

    if (!kafka_wanted(doctor->config))
        return;
    topics_look(doctor);
    if (doctor->bad > bad)
        return;
    topic_ends_take(doctor);
    relay_look(doctor);
}

/* Since when the archive stage runs: its lock file is written at its start. */
static int64_t
archive_age_us(const struct doctor *doctor)
{
    char path[FILE_PATH_MAX];
    struct stat st;

    (void)snprintf(path, sizeof(path), "%s/archive.pid", doctor->config->data_dir);
    if (stat(path, &st) != 0)
        return INT64_MAX;
    return clock_now_us() - (int64_t)st.st_mtim.tv_sec * CLOCK_SECOND_US;
}

static void
archive_look(struct doctor *doctor)
{
    char dir[FILE_PATH_MAX], text[512], through[CLOCK_TEXT_SIZE];
    struct manifest manifest;
    struct why why = {{0}};
    int64_t now_us = clock_now_us();

    (void)snprintf(dir, sizeof(dir), "%s/archive", doctor->config->data_dir);
    if (manifest_read(&manifest, dir, now_us - CLOCK_DAY_US, &why) != ERR_OK) {
        say(doctor, FINDING_BAD, "archive", why.text, "start the archive stage");
        return;
    }
    int64_t slack_us =
        (doctor->config->archive_roll_s + ARCHIVE_SLACK_S) * CLOCK_SECOND_US;
    /* After a start the first files are closed only when they are old enough. */
    int64_t late_us = archive_age_us(doctor) < slack_us
                          ? 0
                          : now_us - manifest.through_us - slack_us;
    (void)snprintf(text, sizeof(text),
                   "%u files of the last day; complete until %s", manifest.files_n,
                   clock_format_ms(manifest.through_us / 1000, through));
    say(doctor, late_us > 0 ? FINDING_BAD : FINDING_GOOD, "archive", text,
        late_us > 0
            ? "it is behind: is the archive stage running, and its disk writable?"
            : "");
    manifest_free(&manifest);
}

static void
judge_look(struct doctor *doctor)
{
    char dir[FILE_PATH_MAX], text[512], until[CLOCK_TEXT_SIZE];
    struct judge_slice *slices = NULL;
    struct why why = {{0}};
    uint32_t n = 0;

    (void)snprintf(dir, sizeof(dir), "%s/judge", doctor->config->data_dir);
    enum err err = judge_slices(dir, &slices, &n, &why);
    if (err != ERR_OK || n == 0) {
        say(doctor, FINDING_NOTE, "judge", "nothing is judged yet",
            "an hour of receipt is judged when it is over");
        free(slices);
        return;
    }
    int64_t to_us = slices[n - 1].to_us;
    bool behind =
        clock_now_us() - to_us > CLOCK_HOUR_US + JUDGE_SLACK_S * CLOCK_SECOND_US;
    (void)snprintf(text, sizeof(text), "judged until %s",
                   clock_format_ms(to_us / 1000, until));
    say(doctor, behind ? FINDING_BAD : FINDING_GOOD, "judge", text,
        behind ? "run `clickledger judge` and read what it says" : "");
    free(slices);
}

static const char *
field_of(const struct redis_reply *hash, const char *name, char *out, size_t size)
{
    out[0] = '\0';
    for (size_t i = 0; i + 1 < hash->count; i += 2) {
        if (str_equal(hash->items[i]->text, str_of(name)))
            (void)snprintf(out, size, "%.*s", (int)hash->items[i + 1]->text.n,
                           hash->items[i + 1]->text.p);
    }
    return out;
}

struct live {
    uint64_t behind;
    unsigned dirty, building, absent;
};

static void
retention_say(struct doctor *doctor, uint32_t partition, uint64_t offset)
{
    char text[256];

    (void)snprintf(text, sizeof(text),
                   "partition %u is counted up to offset %llu, and Kafka holds it "
                   "from %llu on: live counts stand",
                   partition, (unsigned long long)offset,
                   (unsigned long long)doctor->firsts[partition]);
    say(doctor, FINDING_BAD, "live", text,
        "retention is shorter than the lag: see docs/runbook.md, and raise "
        "kafka.retention_h");
}

static enum err
owner_look(struct doctor *doctor, struct redis *redis, uint32_t partition,
           struct live *live, struct why *why)
{
    char key[REDISKEY_MAX], text[64];
    struct redis_reply *reply = NULL;
    const struct str words[] = {STR("HGETALL"),
                                {key, rediskey_owner(key, partition)}};
    enum err err = redis_command(redis, words, 2, &reply, why);

    if (err != ERR_OK)
        return err;
    live->dirty += strcmp(field_of(reply, "dirty", text, sizeof(text)), "1") == 0;
    bool building = field_of(reply, "building", text, sizeof(text))[0] != '\0';
    uint64_t offset = strtoull(
        field_of(reply, building ? "build_offset" : "offset", text, sizeof(text)),
        NULL, 10);
    live->building += building;
    live->absent += reply->count == 0;
    if (reply->count != 0 && offset < doctor->firsts[partition] && !building)
        retention_say(doctor, partition, offset);
    if (doctor->ends[partition] > offset)
        live->behind += doctor->ends[partition] - offset;
    redis_reply_free(&reply);
    return ERR_OK;
}

static void
redis_look(struct doctor *doctor)
{
    struct redis *redis = NULL;
    struct live live = {0};
    struct why why = {{0}};
    char text[256];
    uint32_t partitions = (uint32_t)doctor->config->clicklog_partitions;

    enum err err = redis_open(&redis, doctor->config->redis_address,
                              doctor->config->redis_timeout_ms * 1000, &why);
    for (uint32_t p = 0; err == ERR_OK && p < partitions; p++)
        err = owner_look(doctor, redis, p, &live, &why);
    redis_close(&redis);
    if (err != ERR_OK) {
        say(doctor, FINDING_BAD, "redis", why.text,
            "start Redis: live counts go on by themselves, nothing is lost");
        return;
    }
    (void)snprintf(
        text, sizeof(text),
        "%llu clicks behind the log; %u partitions rebuilding, %u dirty, %u empty",
        (unsigned long long)live.behind, live.building, live.dirty, live.absent);
    bool bad = live.behind > LAG_MAX || live.absent == partitions;
    say(doctor,
        bad                              ? FINDING_BAD
        : live.dirty + live.building > 0 ? FINDING_NOTE
                                         : FINDING_GOOD,
        "redis", text, bad ? "is the aggregate stage running?" : "");
}

static enum err
blocked_look(struct doctor *doctor, struct pg *pg, struct why *why)
{
    struct pg_result *result = NULL;
    char text[512];
    enum err err =
        pg_exec(pg,
                "SELECT r.time_zone, r.day, left(c.differences, 200) FROM "
                "billing_run r JOIN certificate c ON c.run_id = r.id "
                "WHERE r.status = 'blocked' ORDER BY r.day LIMIT 10",
                NULL, 0, &result, why);

    for (int i = 0; err == ERR_OK && i < pg_rows(result); i++) {
        (void)snprintf(text, sizeof(text), "day %s of %s is blocked: %s",
                       pg_value(result, i, 1), pg_value(result, i, 0),
                       pg_value(result, i, 2));
        say(doctor, FINDING_BAD, "billing", text,
            "received and judged clicks differ: find out why, then close the day "
            "again");
    }
    if (err == ERR_OK && pg_rows(result) == 0)
        say(doctor, FINDING_GOOD, "billing", "no day is blocked", "");
    pg_result_free(&result);
    return err;
}

/* Days wait for the counts of every ingest log that is not retired. */
static enum err
spools_look(struct doctor *doctor, struct pg *pg, struct why *why)
{
    struct pg_result *result = NULL;
    char text[256];
    enum err err = pg_exec(
        pg,
        "SELECT to_hex(spool), reported_until FROM ingest_spool "
        "WHERE NOT retired AND lost_at IS NULL AND reported_until < now() - "
        "interval '2 hours' ORDER BY 2 LIMIT 10",
        NULL, 0, &result, why);

    for (int i = 0; err == ERR_OK && i < pg_rows(result); i++) {
        (void)snprintf(text, sizeof(text),
                       "the ingest log %s has told its counts only until %s",
                       pg_value(result, i, 0), pg_value(result, i, 1));
        say(doctor, FINDING_BAD, "billing", text,
            "no day closes before it has: start its process; or, if it is gone for "
            "good, clickledger relay forget (without Kafka: UPDATE ingest_spool "
            "SET "
            "retired = true)");
    }
    pg_result_free(&result);
    return err;
}

/* Whose last clicks nobody but the archive can count. */
static enum err
lost_look(struct doctor *doctor, struct pg *pg, struct why *why)
{
    struct pg_result *result = NULL;
    char text[256];
    enum err err = pg_exec(
        pg,
        "SELECT lpad(to_hex(s.spool), 16, '0'), s.lost_at, (SELECT "
        "coalesce(sum(clicks), 0) FROM received_recount r WHERE r.spool = "
        "s.spool), "
        "coalesce(s.recounted_until, s.reported_until) >= s.lost_at FROM "
        "ingest_spool s WHERE s.lost_at > now() - interval '35 days' ORDER BY 2 "
        "LIMIT 10",
        NULL, 0, &result, why);

    for (int i = 0; err == ERR_OK && i < pg_rows(result); i++) {
        bool whole = strcmp(pg_value(result, i, 3), "t") == 0;
        (void)snprintf(text, sizeof(text),
                       "the ingest log %s was lost at %s; %s clicks of it are "
                       "counted from the archive%s",
                       pg_value(result, i, 0), pg_value(result, i, 1),
                       pg_value(result, i, 2), whole ? "" : " so far");
        say(doctor, FINDING_NOTE, "billing", text,
            whole ? "" : "the next close counts on, when the hour is judged");
    }
    pg_result_free(&result);
    return err;
}

static void
postgres_look(struct doctor *doctor)
{
    char conninfo[PG_CONNINFO_MAX];
    struct pg *pg = NULL;
    struct why why = {{0}};
    int applied = 0;

    enum err err =
        pg_conninfo(doctor->config->postgres_conninfo,
                    doctor->config->postgres_password_file, conninfo, &why);
    if (err == ERR_OK)
        err = pg_open(&pg, conninfo, &why);
    if (err == ERR_OK)
        err = migrate(pg, &applied, &why);
    if (err == ERR_OK) {
        say(doctor, FINDING_GOOD, "postgres",
            "answers, and its tables are this binary's", "");
        err = blocked_look(doctor, pg, &why);
        if (err == ERR_OK)
            err = spools_look(doctor, pg, &why);
        if (err == ERR_OK)
            err = lost_look(doctor, pg, &why);
    }
    if (err != ERR_OK)
        say(doctor, FINDING_BAD, "postgres", why.text,
            "clicks are accepted and counted meanwhile; billing waits");
    pg_close(&pg);
}

/* "TIME pN WHAT WHY": the same thing at the same second in many partitions is one event. */
struct event {
    const char *line, *what;
    unsigned partitions;
};

static const char *
event_what(const char *line)
{
    const char *partition = strchr(line, ' ');
    const char *what = partition == NULL ? NULL : strchr(partition + 1, ' ');

    return what == NULL ? "" : what + 1;
}

static bool
event_same(const struct event *event, const char *line)
{
    const char *what = event_what(line);

    return event->line != NULL &&
           strncmp(event->line, line, EVENT_TIME_CHARS) == 0 &&
           strncmp(event->what, what, strcspn(what, " ") + 1) == 0;
}

static void
event_say(struct doctor *doctor, const struct event *event)
{
    char text[512];

    if (event->partitions > 1)
        (void)snprintf(text, sizeof(text), "%s (and %u more partitions)",
                       event->line, event->partitions - 1);
    else
        (void)snprintf(text, sizeof(text), "%s", event->line);
    say(doctor, FINDING_NOTE, "live", text, "");
}

/* What the live path did about trouble, by itself: the last events. */
static void
events_look(struct doctor *doctor)
{
    char path[FILE_PATH_MAX];
    struct buf text = BUF_MAX(EVENTS_BYTES_MAX);
    struct event events[EVENTS_SHOWN] = {{0}};
    size_t n = 0;

    (void)snprintf(path, sizeof(path), "%s/aggregate/events.log",
                   doctor->config->data_dir);
    if (file_read(path, &text, NULL) == ERR_OK)
        buf_add(&text, "", 1);
    for (char *at = (char *)text.p; at != NULL && *at != '\0';) {
        char *end = strchr(at, '\n');
        if (end != NULL)
            *end++ = '\0';
        struct event *last = &events[(n + EVENTS_SHOWN - 1) % EVENTS_SHOWN];
        if (event_same(last, at))
            last->partitions++;
        else
            events[n++ % EVENTS_SHOWN] = (struct event){at, event_what(at), 1};
        at = end;
    }
    for (size_t i = n > EVENTS_SHOWN ? n - EVENTS_SHOWN : 0; i < n; i++)
        event_say(doctor, &events[i % EVENTS_SHOWN]);
    buf_free(&text);
}

int
command_doctor(const struct command *c, struct config *config, struct args *args)
{
    struct doctor doctor = {.config = config, .out = BUF_MAX(EVENTS_BYTES_MAX)};

    doctor.json = args_flag(args, "--json");
    if (!args_done(args, c))
        return EXIT_USAGE;
    disk_look(&doctor);
    log_look(&doctor);
    kafka_look(&doctor);
    archive_look(&doctor);
    redis_look(&doctor);
    judge_look(&doctor);
    postgres_look(&doctor);
    events_look(&doctor);
    clicklog_close(&doctor.log);
    if (doctor.json)
        buf_add_text(&doctor.out, "]\n");
    (void)fwrite(doctor.out.p, 1, doctor.out.n, stdout);
    buf_free(&doctor.out);
    return doctor.bad > 0 ? EXIT_FAILED : EXIT_GOOD;
}
