/* common/control.h - topic click_control: how far the spool has gone, and the archive.
 *
 * Compacted, one partition, one message a second and less. What is said is repeated from
 * the newest message of each key, so a reader that starts knows all of it soon.
 *
 *   key "spool:<id, 16 hex digits>"   JSON {"incarnation","floor_us","last":[...],
 *                                     "before":[...],"closed"}: struct clicklog_mark
 *   key "archive"                     JSON {"last":[...]}: so far each partition is in listed
 *                                     archive files
 *
 * A partition is ["<incarnation, 16 hex digits>", count] in each (struct clicklog_last): never an
 * offset, which would mean something else in the spool that replaces a lost one.
 *
 * One spool a set of topics: a second one is refused (ERR_CONFLICT) while the first is
 * known; `clickledger relay forget SPOOL` lets it go.
 *
 * Threads  control_open makes one that follows the topic; all functions from any.
 */
#ifndef COMMON_CONTROL_H
#define COMMON_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/clicklog.h"
#include "common/config.h"
#include "common/err.h"

struct control;

struct control_spool {
    uint64_t spool_id;
    struct clicklog_mark mark; /* its spool_id and next are not said */
    bool closed; /* it stopped cleanly; the next start opens it again */
};

/* config outlives it. Needs no broker: the topic is followed once one answers. */
enum err control_open(struct control **out, const struct config *config,
                      uint32_t partitions, struct why *why);
void control_close(struct control **control);
/* Waits until all that the topic had on entry is known. */
enum err control_sync(struct control *control, int64_t timeout_us, struct why *why);
/* ERR_CONFLICT names the other spool. Returns when the brokers have it. */
enum err control_spool_put(struct control *control,
                           const struct control_spool *spool, struct why *why);
/* ERR_NOTFOUND: none heard of yet. mark.spool_id is set, mark.next is 0. */
enum err control_spool_get(struct control *control, struct control_spool *out,
                           struct why *why);
enum err control_spool_forget(struct control *control, uint64_t spool_id,
                              struct why *why);
enum err control_archived_put(struct control *control,
                              const struct clicklog_last *archived,
                              struct why *why);
/* One a partition, {0, 0} where nothing was heard of. */
void control_archived_get(struct control *control, struct clicklog_last *archived);

#endif
