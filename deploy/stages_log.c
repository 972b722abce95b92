/* The log as the stages of this process need it: the spool, Kafka views of it, and the
 * verdicts beside it. */
#include "deploy/stages.h"

#include <stdio.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/kafka.h"
#include "common/log.h"
#include "schema/click.h"
#include "schema/topics.h"

enum { VERDICTS_MAP_GIB = 1024, RETRY_US = 500000, REPORT_MAX = 1 << 16 };

enum err
stages_spool_open(const struct config *config, bool read_only,
                  struct clicklog **out, struct why *why)
{
    char path[FILE_PATH_MAX];

    (void)snprintf(path, sizeof(path), "%s/log", config->data_dir);
    const struct clicklog_config cfg = {
        .dir = path,
        .partitions = (uint32_t)config->clicklog_partitions,
        .map_bytes = (uint64_t)config->clicklog_map_bytes,
        .bytes_max = (uint64_t)config->clicklog_bytes_max,
        .read_only = read_only,
        .no_sync = config->clicklog_no_sync != 0,
    };
    return clicklog_open(out, &cfg, why);
}

/* The archive alone keeps a copy of its own: LMDB has one writer. */
static enum err
verdicts_open(struct stages *stages, struct why *why)
{
    const struct config *config = stages->config;
    bool aggregates = (stages->which & STAGE_AGGREGATE) != 0;
    bool kafka = kafka_wanted(config);
    uint64_t map_bytes = (uint64_t)VERDICTS_MAP_GIB << 30;
    char path[FILE_PATH_MAX];

    /* Ingest and relay have nothing to say about verdicts, nor to wait for them. */
    if ((stages->which & (STAGE_AGGREGATE | STAGE_ARCHIVE)) == 0)
        return ERR_OK;
    (void)snprintf(path, sizeof(path), "%s/%s", config->data_dir,
                   kafka && !aggregates ? "verdicts-archive" : "verdicts");
    return kafka ? verdictlog_open_kafka(&stages->verdicts, config, path, map_bytes,
                                         why)
                 : verdictlog_open(&stages->verdicts, path, map_bytes, !aggregates,
                                   why);
}

/* Topics that would break the promise are refused; brokers that are away are waited for. */
static enum err
topics_wait(struct stages *stages, struct why *why)
{
    int64_t until_us = clock_mono_us() + STAGES_KAFKA_WAIT_S * CLOCK_SECOND_US;
    bool told = false;
    enum err err;

    for (;;) {
        struct buf report = BUF_MAX(REPORT_MAX);

        err = topics_check(stages->config, false, &report, why);
        if (err == ERR_INVALID) {
            buf_add(&report, "", 1);
            log_event(LOG_ERROR, "topics_refused",
                      LOG_TEXT("report", report.failed ? "" : (char *)report.p));
        }
        buf_free(&report);
        if (err != ERR_AGAIN || clock_mono_us() >= until_us)
            return err;
        if (!told)
            log_event(LOG_WARN, "kafka_away", LOG_TEXT("why", why->text));
        told = true;
        clock_sleep_us(RETRY_US);
    }
}

static enum err
view_open(struct stages *stages, const char *stage, struct clicklog **out,
          struct why *why)
{
    const struct clicklog_kafka_config cfg = {
        .config = stages->config, .stage = stage, .control = stages->control};

    char topic[KAFKA_NAME_MAX + 1];
    uint32_t ids[CLICK_VERSION + 1] = {0};
    enum err err = clicklog_open_kafka(out, &cfg, why);

    kafka_topic_name(stages->config, "raw_clicks", topic);
    if (err == ERR_OK)
        err = registry_register(stages->config, topic, ids, why);
    if (err == ERR_OK)
        clicklog_schema_ids(*out, ids, CLICK_VERSION + 1);
    return err;
}

static enum err
views_open(struct stages *stages, struct why *why)
{
    uint32_t partitions = (uint32_t)stages->config->clicklog_partitions;
    enum err err = ERR_OK;

    /* Ingest alone takes clicks whether or not there are brokers. */
    if ((stages->which & (STAGE_RELAY | STAGE_AGGREGATE | STAGE_ARCHIVE)) != 0)
        err = topics_wait(stages, why);
    if (err == ERR_OK)
        err = control_open(&stages->control, stages->config, partitions, why);
    if (err == ERR_OK && (stages->which & STAGE_AGGREGATE) != 0)
        err = view_open(stages, "aggregate", &stages->aggregate_log, why);
    if (err == ERR_OK && (stages->which & STAGE_ARCHIVE) != 0)
        err = view_open(stages, "archive", &stages->archive_log, why);
    return err;
}

enum err
stages_log_open(struct stages *stages, struct why *why)
{
    bool kafka = kafka_wanted(stages->config);
    enum err err = ERR_OK;

    if (!kafka || (stages->which & (STAGE_INGEST | STAGE_RELAY)) != 0)
        err = stages_spool_open(stages->config, (stages->which & STAGE_INGEST) == 0,
                                &stages->log, why);
    if (err == ERR_OK && !kafka)
        stages->aggregate_log = stages->archive_log = stages->log;
    if (err == ERR_OK && kafka)
        err = views_open(stages, why);
    return err == ERR_OK ? verdicts_open(stages, why) : err;
}

enum err
stages_sent(const struct stages *stages, int64_t *sent_us, struct why *why)
{
    *sent_us = INT64_MAX;
    if (!kafka_wanted(stages->config) || stages->log == NULL)
        return ERR_OK;
    enum err err = relay_sent(stages->relay_dir, stages->log, sent_us, why);
    if (*sent_us == 0)
        *sent_us = 1; /* nothing; 0 would say that there is no Kafka */
    return err;
}

void
stages_log_close(struct stages *stages)
{
    verdictlog_close(&stages->verdicts);
    if (stages->aggregate_log != stages->log)
        clicklog_close(&stages->aggregate_log);
    if (stages->archive_log != stages->log)
        clicklog_close(&stages->archive_log);
    stages->aggregate_log = stages->archive_log = NULL;
    control_close(&stages->control);
    clicklog_close(&stages->log);
}
