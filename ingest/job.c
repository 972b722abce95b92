#include "ingest/job.h"

#include <assert.h>
#include <stdlib.h>

enum {
    CHUNK_BYTES_MIN = 1024,
    ANSWER_BYTES = 64,
    CLICK_BYTES_MORE =
        48, /* a short click's record may be longer than half its text */
};

struct job_chunk {
    struct job_chunk *next;
    _Alignas(16) uint8_t bytes[];
};

static bool
chunk_add(struct job *job, size_t bytes)
{
    struct job_chunk *chunk = malloc(sizeof(*chunk) + bytes);

    if (chunk == NULL)
        return false;
    chunk->next = job->chunks;
    job->chunks = chunk;
    job->commit.bytes += sizeof(*chunk) + bytes;
    job->p = chunk->bytes;
    job->left = bytes;
    return true;
}

struct job *
job_new(size_t text_bytes, unsigned clicks_guess)
{
    size_t entries_bytes = clicks_guess * sizeof(struct clicklog_entry);
    size_t bytes = entries_bytes + clicks_guess * (size_t)CLICK_BYTES_MORE +
                   text_bytes * 3 / 4 + ANSWER_BYTES;
    struct job *job = calloc(1, sizeof(*job));

    assert(clicks_guess > 0);
    if (job == NULL || !chunk_add(job, bytes)) {
        free(job);
        return NULL;
    }
    job->commit.bytes += sizeof(*job);
    job->entries = (struct clicklog_entry *)(void *)job->p;
    job->commit.entries = job->entries;
    job->entries_cap = clicks_guess;
    job->p += entries_bytes;
    job->left -= entries_bytes;
    return job;
}

void
job_free(void *data)
{
    struct job *job = data;

    if (job == NULL)
        return;
    while (job->chunks != NULL) {
        struct job_chunk *next = job->chunks->next;

        free(job->chunks);
        job->chunks = next;
    }
    free(job);
}

static uint8_t *
room(struct job *job, size_t n)
{
    size_t more = n > job->commit.bytes ? n : job->commit.bytes; /* doubles */
    uint8_t *p;

    if (n > job->left &&
        !chunk_add(job, more < CHUNK_BYTES_MIN ? CHUNK_BYTES_MIN : more))
        return NULL;
    p = job->p;
    job->p += n;
    job->left -= n;
    return p;
}

/* The old entries stay in their chunk until the job is freed. */
static bool
entries_grow(struct job *job)
{
    const size_t align = _Alignof(struct clicklog_entry);
    unsigned cap = job->entries_cap * 2;
    uint8_t *p = room(job, cap * sizeof(*job->entries) + align);

    if (p == NULL)
        return false;
    p += (align - (uintptr_t)p % align) % align;
    memcpy(p, job->entries, job->commit.entries_n * sizeof(*job->entries));
    job->entries = (struct clicklog_entry *)(void *)p;
    job->commit.entries = job->entries;
    job->entries_cap = cap;
    return true;
}

bool
job_add(struct job *job, const struct click *click, struct str record,
        uint32_t partition)
{
    struct str campaign = click->campaign_id;
    uint8_t *p;

    if (job->commit.entries_n == job->entries_cap && !entries_grow(job))
        return false;
    p = room(job, (size_t)record.n + campaign.n);
    if (p == NULL)
        return false;
    memcpy(p, record.p, record.n);
    memcpy(p + record.n, campaign.p, campaign.n);
    job->entries[job->commit.entries_n++] = (struct clicklog_entry){
        .account = click->account,
        .campaign = {(const char *)p + record.n, campaign.n},
        .event_ms = click->timestamp_ms,
        .partition = partition,
        .version = CLICK_VERSION,
        .body = {(const char *)p, record.n},
    };
    return true;
}

bool
job_answer(struct job *job, struct str json)
{
    uint8_t *p = room(job, json.n);

    if (p == NULL)
        return false;
    memcpy(p, json.p, json.n);
    job->commit.answer = (struct str){(const char *)p, json.n};
    return true;
}
