/* ingest/job.h - one request's clicks, encoded, until their answer is out.
 *
 *   job | entries... | campaign and body bytes... (more chunks, if the guess was short)
 *
 * Memory   Mostly one allocation, guessed from the size of the text; never one a click.
 * Errors   false: no memory.
 * Threads  Filled by an HTTP thread, read by the committer, freed with the request.
 */
#ifndef INGEST_JOB_H
#define INGEST_JOB_H

#include "ingest/commit.h"
#include "schema/click.h"

struct job_chunk;

struct job {
    struct commit_job commit; /* first, so that the committer's pointer is ours */
    struct clicklog_entry *entries;
    unsigned entries_cap;
    struct job_chunk *chunks;
    size_t left; /* in the newest chunk */
    uint8_t *p;
};

struct job *job_new(size_t text_bytes, unsigned clicks_guess);
void job_free(void *job);
/* record is the click's encoded body; both are copied. */
bool job_add(struct job *job, const struct click *click, struct str record,
             uint32_t partition);
/* Copied. */
bool job_answer(struct job *job, struct str json);

#endif
