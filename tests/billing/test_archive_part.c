/* One partition of the archive over a log that repeats clicks and loses some for a while. */
#include "billing/archive_part.h"
#include "tests/billing/view_fixture.h"

static void
part_start(struct part *part, struct view *v, uint32_t p)
{
    MUST(archive_part_open(part, v->f.archive, p, 1 << 20, &v->log, why));
    MUST(archive_part_reset(part, why));
}

static enum err
part_read(struct part *part, struct view *v, int64_t limit_us, struct why *why)
{
    struct clicklog_reader *reader;
    enum err err;

    CHECK(clicklog_reader_open(&reader, &v->log, why) == ERR_OK);
    err = archive_part_read(part, &v->log, reader, limit_us, &v->log.mark, why);
    clicklog_reader_close(&reader);
    return err;
}

static void
test_a_partition_is_complete_when_it_met_the_limit_or_counted_to_the_mark(
    struct view *v)
{
    struct part part;

    spool(v, 0, 7, 10, T0_US);
    spool(v, 0, 7, 10, T0_US + 2 * SECOND);
    send_range(v, 0, 0, 5);
    mark(v, T0_US + 3 * SECOND);
    part_start(&part, v, 0);
    MUST(part_read(&part, v, T0_US + SECOND, why));
    CHECK(part.next == 5 && !part.complete); /* five are on their way */
    send_range(v, 0, 5, 11);
    MUST(part_read(&part, v, T0_US + SECOND, why));
    CHECK(part.next == 10 && part.complete && part.holding); /* met */
    send_range(v, 0, 11, 20);
    MUST(part_read(&part, v, T0_US + 3 * SECOND, why));
    CHECK(part.next == 20 && part.complete && !part.holding); /* counted */
    MUST(part_roll(&part, why));
    archive_part_close(&part);
}

static void
test_what_comes_again_is_dropped_and_ends_a_file(struct view *v)
{
    struct part part;

    spool(v, 0, 7, 10, T0_US);
    spool(v, 0, 9, 10, T0_US + SECOND); /* a new incarnation */
    send_range(v, 0, 0, 8);
    send_range(v, 0, 2, 12); /* 2..7 again */
    send_range(v, 0, 0, 20);
    mark(v, T0_US + 2 * SECOND);
    part_start(&part, v, 0);
    MUST(part_read(&part, v, T0_US + 2 * SECOND, why));
    CHECK(part.next == 20 && part.complete);
    MUST(part_roll(&part, why));
    archive_part_close(&part);
    for (uint32_t p = 1; p < PARTS; p++) {
        part_start(&part, v, p);
        archive_part_close(&part);
    }
    check(v, (uint64_t[]){20, 0, 0});
}

static void
test_an_unknown_incarnation_must_begin_with_0_or_be_an_old_one(struct view *v)
{
    struct part part;
    struct why said;

    for (uint64_t i = 0; i < ARCHIVE_SEQS_MAX + 4; i++)
        spool(v, 0, 100 + i, 2, T0_US + (int64_t)i * SECOND);
    send_range(v, 0, 0, v->spooled[0]);
    send_range(v, 0, 1, 4); /* of incarnations long forgotten */
    send_range(v, 0, 0, v->spooled[0]);
    mark(v, T0_US + HOUR / 2);
    part_start(&part, v, 0);
    MUST(part_read(&part, v, T0_US + HOUR / 2, why));
    CHECK(part.next == v->spooled[0] && part.complete);
    spool(v, 0, 5, 3, T0_US + HOUR / 2);
    send_range(v, 0, v->spooled[0] - 2, v->spooled[0]);
    mark(v, T0_US + HOUR);
    CHECK(part_read(&part, v, T0_US + HOUR, &said) == ERR_CORRUPT && part.stalled);
    CHECK(strstr(said.text, "seq 1 instead of 0") != NULL);
    CHECK(part.gap.incarnation == 5 && part.gap.seq == 0 && !part.complete);
    archive_part_close(&part);
}

/* Finds what is missing, as archive_side.h does, and reads on. */
static void
part_heal(struct part *part, struct view *v)
{
    uint64_t offset;

    CHECK(part->stalled);
    MUST(clicklog_find(&v->log, part->partition, part->gap.log_offset,
                       part->gap.incarnation, part->gap.seq, &offset, why));
    archive_part_heal(part, offset);
}

static void
test_clicks_lost_at_an_incarnations_end_are_missed_and_taken_when_sent_again(
    struct view *v)
{
    struct part part;
    struct why said;

    spool(v, 0, 7, 10, T0_US);
    spool(v, 0, 9, 10, T0_US + SECOND);
    spool(v, 0, 9, 1, T0_US + 9 * SECOND);
    send_range(v, 0, 0, 8);
    send_range(v, 0, 10, 21);
    mark(v, T0_US + 9 * SECOND); /* 10 of 7, then 10 of 9 */
    part_start(&part, v, 0);
    CHECK(part_read(&part, v, T0_US + 9 * SECOND, &said) == ERR_CORRUPT);
    CHECK(strstr(said.text, "ends with 8 clicks, the spool has 10") != NULL);
    CHECK(part.stalled && !part.complete && part.next == 8);
    CHECK(part.gap.incarnation == 7 && part.gap.seq == 8);
    send_range(v, 0, 5, 21); /* rewound */
    part_heal(&part, v);
    MUST(part_read(&part, v, T0_US + 9 * SECOND, why));
    CHECK(part.next == 20 && part.complete);
    MUST(part_read(&part, v, T0_US + 10 * SECOND, why));
    MUST(part_roll(&part, why));
    archive_part_close(&part);
    for (uint32_t p = 1; p < PARTS; p++) {
        part_start(&part, v, p);
        archive_part_close(&part);
    }
    check(v, (uint64_t[]){21, 0, 0});
}

/* Before 9's first click is in the mark: it is what the mark ends with that is short. */
static void
test_an_older_mark_is_enough_to_miss_what_came_before_a_new_incarnation(
    struct view *v)
{
    struct part part;
    struct why said;

    spool(v, 0, 7, 10, T0_US);
    mark(v, T0_US + SECOND / 2);
    spool(v, 0, 9, 10, T0_US + SECOND);
    send_range(v, 0, 0, 8);
    send_range(v, 0, 10, 20);
    part_start(&part, v, 0);
    CHECK(part_read(&part, v, T0_US + SECOND / 2, &said) == ERR_CORRUPT);
    CHECK(part.stalled && part.gap.incarnation == 7 && part.gap.seq == 8);
    send_range(v, 0, 8, 20);
    part_heal(&part, v);
    MUST(part_read(&part, v, T0_US + SECOND / 2, why));
    CHECK(part.next == 10 && part.complete && part.holding);
    archive_part_close(&part);
}

/* Nothing comes behind them that would show it: the log's end, asked for a while after. */
static void
test_clicks_lost_at_the_very_end_are_missed_after_a_while(struct view *v)
{
    struct part part;
    struct why said;

    spool(v, 0, 7, 10, T0_US);
    send_range(v, 0, 0, 8);
    mark(v, T0_US + SECOND);
    part_start(&part, v, 0);
    MUST(part_read(&part, v, T0_US + SECOND, why));
    CHECK(part.next == 8 && !part.complete);
    v->log.tracks[0].fetched = 8;
    send_range(v, 0, 0, 1);
    v->log.tracks[0].fetched = 8; /* there is more than was fetched */
    part.still_mono_us -= PART_STILL_US;
    MUST(part_read(&part, v, T0_US + SECOND, why));
    v->log.tracks[0].fetched = 9;
    MUST(part_read(&part, v, T0_US + SECOND, why));
    part.still_mono_us -= PART_STILL_US;
    CHECK(part_read(&part, v, T0_US + SECOND, &said) == ERR_CORRUPT);
    CHECK(part.stalled && !part.complete && part.gap.seq == 8);
    CHECK(strstr(said.text, "relay rewind") != NULL);
    send_range(v, 0, 0, 10);
    part_heal(&part, v);
    MUST(part_read(&part, v, T0_US + SECOND, why));
    CHECK(part.next == 10 && part.complete);
    archive_part_close(&part);
}

/* The lost spool's clicks are on their way yet when its heir speaks: 3 of them in partition 0,
 * in which the heir has none, and all in partition 1, where its own come behind. */
static void
test_a_mark_of_a_spool_that_replaces_a_lost_one_waits_for_the_lost_ones_clicks(
    struct view *v)
{
    int64_t us = T0_US + 10 * SECOND;
    struct clicklog_mark heir;
    uint64_t from[PARTS];
    struct part part[2];

    spool(v, 0, 7, 10, T0_US);
    spool(v, 1, 7, 10, T0_US);
    send_range(v, 0, 0, 10);
    send_range(v, 1, 0, 10);
    mark(v, T0_US + SECOND);
    memcpy(from, v->spooled, sizeof(from));
    spool(v, 1, 9, 4, T0_US + 5 * SECOND);
    send_range(v, 1, 10, 14);
    heir = mark_of(v, us, 2, 9, from);
    CHECK(heir.last[0].count == 0 && heir.last[1].count == 4);
    CHECK(heir.before[1].count == 0);
    mark_set(v, &heir);
    v->log.tracks[0].fetched = 7;
    v->log.tracks[1].fetched = 4;
    for (uint32_t p = 0; p < 2; p++) {
        part_start(&part[p], v, p);
        MUST(part_read(&part[p], v, us, why));
        CHECK(!part[p].complete && part[p].next == (p == 0 ? 7 : 4));
        v->log.tracks[p].fetched = v->log.tracks[p].n - 1;
        MUST(part_read(&part[p], v, us, why));
        CHECK(!part[p].complete);
        v->log.tracks[p].fetched = v->log.tracks[p].n;
        MUST(part_read(&part[p], v, us, why));
        CHECK(part[p].complete && part[p].next == v->spooled[p]);
        MUST(part_roll(&part[p], why));
    }
    CHECK(archive_part_archived(&part[0]).incarnation == 7);
    CHECK(archive_part_archived(&part[1]).incarnation == 9);
    CHECK(archive_part_archived(&part[1]).count == 4);
    archive_part_close(&part[0]);
    archive_part_close(&part[1]);
    part_start(&part[0], v, 2);
    archive_part_close(&part[0]);
    check(v, (uint64_t[]){10, 14, 0});
}

/* The image has 6 of 7's 10 clicks, and its next incarnation none here yet. */
static void
test_a_mark_of_a_restored_spool_waits_for_what_it_has_forgotten(struct view *v)
{
    int64_t us = T0_US + 10 * SECOND;
    struct clicklog_mark mark = {
        .spool_id = 1, .incarnation = 9, .floor_us = us, .last = {{7, 6}}};
    struct part part;

    spool(v, 0, 7, 6, T0_US);
    spool(v, 0, 7, 4, T0_US + SECOND);
    send_range(v, 0, 0, 10);
    mark_set(v, &mark);
    v->log.tracks[0].fetched = 8;
    part_start(&part, v, 0);
    MUST(part_read(&part, v, us, why));
    CHECK(part.next == 8 && !part.complete); /* more than the spool knows */
    v->log.tracks[0].fetched = 10;
    MUST(part_read(&part, v, us, why));
    CHECK(part.next == 10 && part.complete);
    spool(v, 0, 9, 3, us + 1);
    send_range(v, 0, 4, 6); /* its relay begins before its image's end */
    send_range(v, 0, 10, 13);
    mark.floor_us = us + SECOND;
    mark.last[0] = (struct clicklog_last){9, 3};
    mark.before[0] = (struct clicklog_last){7, 6};
    mark_set(v, &mark);
    MUST(part_read(&part, v, us + SECOND, why));
    CHECK(part.next == 13 && part.complete);
    archive_part_close(&part);
}

static void
test_a_spool_whose_clock_is_behind_what_is_archived_is_an_error(struct view *v)
{
    struct part part;
    struct why said;

    spool(v, 0, 7, 10, T0_US + 5 * SECOND);
    spool(v, 0, 9, 10, T0_US);
    send_range(v, 0, 0, 20);
    mark(v, T0_US + 9 * SECOND);
    part_start(&part, v, 0);
    CHECK(part_read(&part, v, T0_US + 9 * SECOND, &said) == ERR_CORRUPT);
    CHECK(!part.stalled && part.next == 10 && strstr(said.text, "clock") != NULL);
    archive_part_close(&part);
}

/* Pushed out of the list by newer ones, or never there: not complete, and said so. */
static void
test_an_incarnation_that_is_not_known_is_never_complete(struct view *v)
{
    struct clicklog_mark mark = {.spool_id = 1,
                                 .incarnation = 99,
                                 .floor_us = T0_US + HOUR,
                                 .last = {{100, 2}}};
    struct part part;
    struct why said;

    for (uint64_t i = 0; i <= ARCHIVE_SEQS_MAX; i++)
        spool(v, 0, 100 + i, 2, T0_US + (int64_t)i * SECOND);
    send_range(v, 0, 0, v->spooled[0]);
    mark_set(v, &mark);
    part_start(&part, v, 0);
    MUST(part_read(&part, v, T0_US + HOUR, why));
    CHECK(part.next == v->spooled[0] && !part.complete);
    part.still_mono_us -= PART_STILL_US;
    CHECK(part_read(&part, v, T0_US + HOUR, &said) == ERR_CORRUPT);
    CHECK(!part.complete && !part.stalled);
    spool(v, 0, 99, 1, T0_US + HOUR);
    send_range(v, 0, v->spooled[0] - 1, v->spooled[0]);
    MUST(part_read(&part, v, T0_US + HOUR, why));
    CHECK(part.complete && part.holding);
    archive_part_close(&part);
}

static void
test_what_retention_took_is_an_error_and_never_a_jump(struct view *v)
{
    struct part part;
    struct why said;

    spool(v, 0, 7, 20, T0_US);
    send_range(v, 0, 0, 10);
    mark(v, T0_US + SECOND);
    part_start(&part, v, 0);
    MUST(part_read(&part, v, T0_US + SECOND, why));
    send_range(v, 0, 10, 20);
    v->log.tracks[0].first = 15;
    CHECK(part_read(&part, v, T0_US + SECOND, &said) == ERR_NOTFOUND);
    CHECK(strstr(said.text, "kafka.retention_h") != NULL && part.next == 10);
    MUST(archive_part_reset(&part, why)); /* from its list: nothing is listed */
    CHECK(part_read(&part, v, T0_US + SECOND, &said) == ERR_CORRUPT &&
          part.stalled);
    CHECK(part.next == 0);
    archive_part_close(&part);
}

/* Sends all of a spool in order, now and then some of it again, now and then losing some
 * that come again after a rewind. */
static void
send_badly(struct view *v, uint32_t p, uint64_t *seed)
{
    uint64_t at = 0, end = v->spooled[p];

    while (at < end) {
        uint64_t n = 1 + random_below(seed, 40), to = at + n < end ? at + n : end;
        uint64_t lost = random_below(seed, 8) == 0 ? 1 + random_below(seed, 20) : 0;

        send_range(v, p, at, to);
        at = to;
        if (random_below(seed, 5) == 0)
            at -= random_below(seed, at < 60 ? at + 1 : 60);
        if (lost > 0 && at + lost + 30 < end) {
            uint64_t from = at + lost;

            while (v->spool[p][from].seq == 0)
                from++;
            send_range(v, p, from, from + random_below(seed, 20) + 1);
            at -= random_below(seed, at < 9 ? at + 1 : 9); /* rewound */
        }
    }
}

/* A partition that forgets all but its list now and then, as after a kill. */
static void
test_any_repeats_gaps_and_restarts_make_the_same_rows(struct view *v)
{
    uint64_t seed = 11;

    for (int round = 0; round < 40; round++) {
        struct part part;
        struct track *track = &v->log.tracks[0];
        uint64_t n = 0, offset;

        if (round > 0) {
            view_close(v);
            view_open(v);
        }
        for (int g = 0; g < 40; g++) {
            n += random_below(&seed, 4) == 0;
            spool(v, 0, 1 + n, 1 + random_below(&seed, 15), T0_US + g * HOUR / 12);
        }
        send_badly(v, 0, &seed);
        track->fetched = 0;
        mark(v, T0_US + 5 * HOUR);
        part_start(&part, v, 0);
        for (int step = 0; part.next < v->spooled[0] && step < 10000; step++) {
            int64_t limit_us =
                T0_US + (int64_t)(track->fetched * 5 / track->n) * HOUR;

            track->fetched += random_below(&seed, 30);
            track->fetched = track->fetched < track->n ? track->fetched : track->n;
            if (part_read(&part, v, limit_us, NULL) != ERR_OK) {
                CHECK(part.stalled);
                MUST(part_roll(&part, why));
                MUST(clicklog_find(&v->log, 0, part.gap.log_offset,
                                   part.gap.incarnation, part.gap.seq, &offset,
                                   why));
                archive_part_heal(&part, offset);
            }
            if (random_below(&seed, 10) == 0)
                MUST(part_roll(&part, why));
            if (random_below(&seed, 10) == 0)
                MUST(archive_part_reset(&part, why));
        }
        CHECK(part.next == v->spooled[0]);
        MUST(part_roll(&part, why));
        archive_part_close(&part);
        for (uint32_t p = 1; p < PARTS; p++) {
            part_start(&part, v, p);
            archive_part_close(&part);
        }
        check(v, (uint64_t[]){v->spooled[0], 0, 0});
    }
}

int
main(void)
{
    static void (*const tests[])(struct view *) = {
        test_a_partition_is_complete_when_it_met_the_limit_or_counted_to_the_mark,
        test_what_comes_again_is_dropped_and_ends_a_file,
        test_an_unknown_incarnation_must_begin_with_0_or_be_an_old_one,
        test_clicks_lost_at_an_incarnations_end_are_missed_and_taken_when_sent_again,
        test_an_older_mark_is_enough_to_miss_what_came_before_a_new_incarnation,
        test_clicks_lost_at_the_very_end_are_missed_after_a_while,
        test_a_mark_of_a_spool_that_replaces_a_lost_one_waits_for_the_lost_ones_clicks,
        test_a_mark_of_a_restored_spool_waits_for_what_it_has_forgotten,
        test_a_spool_whose_clock_is_behind_what_is_archived_is_an_error,
        test_an_incarnation_that_is_not_known_is_never_complete,
        test_what_retention_took_is_an_error_and_never_a_jump,
        test_any_repeats_gaps_and_restarts_make_the_same_rows,
    };

    views_run(tests, sizeof(tests) / sizeof(tests[0]));
    return 0;
}
