/* ingest/relay.h - the spool to Kafka: one record a click, in order, as often as it takes.
 *
 *   LMDB spool --read from the cursor--> producer --acknowledged--> cursor (mapped file)
 *
 * On any delivery error the producer is thrown away and sending goes on from the cursor:
 * records that come twice are dropped by readers by (incarnation, seq). The cursor is a
 * file of P numbers, mapped shared, so that ingest in another process sees it: below it,
 * the brokers have all. It is only ever behind; losing it costs sending again. A file that
 * is damaged, or of another spool, begins anew at the first offset that the spool holds;
 * one that is ahead of the spool (a restored image) is set back to where the incarnation ends
 * that it counted last.
 *
 * Also says on click_control how far the spool is (common/control.h), about every 200 ms
 * when that has changed.
 *
 * Units    Offsets of the spool.
 * Errors   Broker away: tries for ever; metrics and one log line tell. ERR_CONFLICT: the
 *          topics belong to another spool; nothing is sent.
 * Threads  relay_start makes its own: one that sends, one that says how far.
 */
#ifndef INGEST_RELAY_H
#define INGEST_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/clicklog.h"
#include "common/config.h"
#include "common/control.h"
#include "common/err.h"

struct relay;

/* DATA/relay, where the cursor is; out has FILE_PATH_MAX bytes. */
void relay_dir(const struct config *config, char *out);

/* log is the spool (read-only will do); dir holds the cursor. control NULL: nothing is said
 * there, and nobody asks whose topics they are. The topics have been checked. */
enum err relay_start(struct relay **out, const struct config *config,
                     struct clicklog *log, struct control *control, const char *dir,
                     struct why *why);
/* Sends what there is for up to kafka.delivery_ms_max, says so, then stops. */
void relay_stop(struct relay **relay);

/* The cursor as others see it; the file is made if there is none. log, whose cursor it is,
 * need not outlive the call. */
struct relay_cursor;
enum err relay_cursor_open(struct relay_cursor **out, const char *dir,
                           struct clicklog *log, struct why *why);
void relay_cursor_close(struct relay_cursor **cursor);
/* All below it is acknowledged. */
uint64_t relay_cursor_get(const struct relay_cursor *cursor, uint32_t partition);
/* The brokers have what the spool received before *sent_us: 0 when they cannot be told to have
 * anything, being away or far behind. Waits up to a second or two. */
enum err relay_sent(const char *dir, struct clicklog *log, int64_t *sent_us,
                    struct why *why);
/* Asks the relay, running or not, to send again from offset (or from the first that the
 * spool holds, if later; or from where it is, if earlier). *from gets it. The running relay
 * does so within a second. */
enum err relay_rewind(const char *dir, struct clicklog *log, uint32_t partition,
                      uint64_t offset, uint64_t *from, struct why *why);

#endif
