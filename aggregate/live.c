#include "aggregate/live.h"

#include <assert.h>

bool
live_count(struct live *live, int64_t event_ms, int64_t cost_micros)
{
    int64_t step = event_ms / 1000 / LIVE_STEP_S;
    unsigned k = (unsigned)(step % LIVE_STEPS);

    assert(step > 0 && step <= UINT32_MAX);
    if (live->steps[k].step > (uint32_t)step)
        return false;
    if (live->steps[k].step < (uint32_t)step) {
        live->steps[k].step = (uint32_t)step;
        live->steps[k].clicks = 0;
        live->steps[k].cost_micros = 0;
    }
    live->steps[k].clicks++;
    live->steps[k].cost_micros += cost_micros;
    live->dirty |= UINT64_C(1) << k;
    return true;
}

uint32_t
live_format(const struct live *live, unsigned k, char out[LIVE_TEXT_MAX])
{
    const int64_t numbers[3] = {(int64_t)live->steps[k].step * LIVE_STEP_S,
                                live->steps[k].clicks, live->steps[k].cost_micros};

    static_assert(3 * 21 <= LIVE_TEXT_MAX, "three numbers fit");
    return numbers_format(out, numbers, 3);
}

bool
live_load(struct live *live, struct str field, struct str value)
{
    int64_t k, numbers[3];

    if (!numbers_parse(field, &k, 1) || k < 0 || k >= LIVE_STEPS ||
        !numbers_parse(value, numbers, 3))
        return false;
    if (numbers[0] < 0 || numbers[0] / LIVE_STEP_S > UINT32_MAX ||
        numbers[0] / LIVE_STEP_S % LIVE_STEPS != k || numbers[1] < 0 ||
        numbers[1] > UINT32_MAX)
        return false;
    live->steps[k].step = (uint32_t)(numbers[0] / LIVE_STEP_S);
    live->steps[k].clicks = (uint32_t)numbers[1];
    live->steps[k].cost_micros = numbers[2];
    return true;
}

bool
numbers_parse(struct str text, int64_t *out, unsigned n)
{
    const char *p = text.p, *end = text.p + text.n;

    for (unsigned i = 0; i < n; i++) {
        bool minus = p < end && *p == '-';
        const char *first = p += minus;
        int64_t v = 0;

        for (; p < end && *p >= '0' && *p <= '9'; p++)
            if (__builtin_mul_overflow(v, 10, &v) ||
                __builtin_add_overflow(v, *p - '0', &v))
                return false;
        if (p == first)
            return false;
        out[i] = minus ? -v : v;
        if (i + 1 < n && (p == end || *p++ != ','))
            return false;
    }
    return p == end;
}

uint32_t
numbers_format(char *out, const int64_t *numbers, unsigned n)
{
    char *to = out;

    for (unsigned i = 0; i < n; i++) {
        uint64_t v = numbers[i] < 0 ? -(uint64_t)numbers[i] : (uint64_t)numbers[i];
        char digits[20];
        int k = 0;

        if (i > 0)
            *to++ = ',';
        if (numbers[i] < 0)
            *to++ = '-';
        do {
            digits[k++] = (char)('0' + v % 10);
            v /= 10;
        } while (v > 0);
        while (k > 0)
            *to++ = digits[--k];
    }
    return (uint32_t)(to - out);
}
