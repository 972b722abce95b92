/* The breaker: every event against every state, then random events against a model that
 * says the same in other words. */
#include "ingest/breaker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum event { ADMIT, FAILED, FAILED_PROBE, ACKED, ACKED_PROBE, LATE, CAUGHT_UP };

/* The event's answer: for ADMIT 1 admitted, 2 as the probe. */
static int
happen(struct breaker *b, enum event event)
{
    bool probe = false, would = breaker_would_admit(b);

    switch (event) {
    case ADMIT:
        if (!breaker_admit(b, &probe)) {
            assert_false(would);
            return 0;
        }
        assert_true(would);
        return probe ? 2 : 1;
    case FAILED:
    case FAILED_PROBE:
        breaker_failed(b, event == FAILED_PROBE);
        return 0;
    case ACKED:
    case ACKED_PROBE:
        return breaker_acknowledged(b, event == ACKED_PROBE);
    case LATE:
        return breaker_late(b);
    case CAUGHT_UP:
        break;
    }
    return breaker_caught_up(b);
}

static void
test_each_event_in_each_state_does_what_the_table_says(void **state)
{
    enum { C = BREAKER_CLOSED, H = BREAKER_HALF_OPEN, O = BREAKER_OPEN };
    static const struct {
        int from;
        bool probing;
        enum event event;
        int answer, to;
        bool to_probing;
    } table[] = {
        {C, 0, ADMIT, 1, C, 0},        {C, 0, FAILED, 0, C, 0},
        {C, 0, FAILED_PROBE, 0, C, 0}, {C, 0, ACKED, 0, C, 0},
        {C, 0, ACKED_PROBE, 0, C, 0},  {C, 0, LATE, 1, O, 0},
        {C, 0, CAUGHT_UP, 0, C, 0},    {O, 0, ADMIT, 0, O, 0},
        {O, 0, FAILED, 0, O, 0},       {O, 0, FAILED_PROBE, 0, O, 0},
        {O, 0, ACKED, 0, O, 0},        {O, 0, ACKED_PROBE, 0, O, 0},
        {O, 0, LATE, 0, O, 0},         {O, 0, CAUGHT_UP, 1, H, 0},
        {H, 0, ADMIT, 2, H, 1},        {H, 0, FAILED, 0, H, 0},
        {H, 0, ACKED, 0, H, 0},        {H, 0, LATE, 1, O, 0},
        {H, 0, CAUGHT_UP, 0, H, 0},    {H, 1, ADMIT, 0, H, 1},
        {H, 1, FAILED, 0, H, 1},       {H, 1, FAILED_PROBE, 0, H, 0},
        {H, 1, ACKED, 0, H, 1},        {H, 1, ACKED_PROBE, 1, C, 0},
        {H, 1, LATE, 1, O, 0},         {H, 1, CAUGHT_UP, 0, H, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct breaker b = {(enum breaker_state)table[i].from, table[i].probing};
        int answer = happen(&b, table[i].event);

        if (answer != table[i].answer || (int)b.state != table[i].to ||
            b.probing != table[i].to_probing)
            fail_msg("row %zu: answer %d, state %d, probing %d", i, answer,
                     (int)b.state, b.probing);
    }
}

static void
test_random_events_do_what_a_plainer_model_does(void **state)
{
    /* Clicks are taken when nothing was late since the last probe came back, else one
     * group at a time once Kafka has everything. */
    bool trouble = false, caught_up = false, out = false;
    struct breaker b = {0};
    uint64_t seed = 7;

    (void)state;
    for (int i = 0; i < 200000; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        enum event event = (enum event)((seed >> 33) % 7);
        int want = 0;

        switch (event) {
        case ADMIT:
            want = !trouble ? 1 : caught_up && !out ? 2 : 0;
            out = out || want == 2;
            break;
        case FAILED_PROBE:
            out = false;
            break;
        case ACKED_PROBE:
            if (!out && trouble)
                continue; /* nobody says this of no probe */
            want = trouble;
            trouble = caught_up = out = false;
            break;
        case LATE:
            want = !trouble || caught_up;
            trouble = true;
            caught_up = out = false;
            break;
        case CAUGHT_UP:
            want = trouble && !caught_up;
            caught_up = trouble;
            break;
        case FAILED:
        case ACKED:
            break;
        }
        assert_int_equal(happen(&b, event), want);
        assert_int_equal(b.state, !trouble    ? BREAKER_CLOSED
                                  : caught_up ? BREAKER_HALF_OPEN
                                              : BREAKER_OPEN);
        assert_int_equal(b.probing, out);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_event_in_each_state_does_what_the_table_says),
        cmocka_unit_test(test_random_events_do_what_a_plainer_model_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
