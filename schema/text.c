#include "schema/text.h"

#include <assert.h>
#include <stdio.h>

#include "common/clock.h"

enum { UUID_TEXT = UUID_TEXT_SIZE - 1, V6_GROUPS = 8, DATE_TEXT = 10 };

/* ---- UUID ---- */

/* A hex digit's value with the flag HEX; 0 for all other bytes. */
enum { HEX = 16 };

static const uint8_t hex_value[256] = {
    ['0'] = HEX | 0,  ['1'] = HEX | 1,  ['2'] = HEX | 2,  ['3'] = HEX | 3,
    ['4'] = HEX | 4,  ['5'] = HEX | 5,  ['6'] = HEX | 6,  ['7'] = HEX | 7,
    ['8'] = HEX | 8,  ['9'] = HEX | 9,  ['a'] = HEX | 10, ['b'] = HEX | 11,
    ['c'] = HEX | 12, ['d'] = HEX | 13, ['e'] = HEX | 14, ['f'] = HEX | 15,
    ['A'] = HEX | 10, ['B'] = HEX | 11, ['C'] = HEX | 12, ['D'] = HEX | 13,
    ['E'] = HEX | 14, ['F'] = HEX | 15};

bool
uuid_parse(struct str text, uint8_t out[16])
{
    static const uint8_t at[16] = {0,  2,  4,  6,  9,  11, 14, 16,
                                   19, 21, 24, 26, 28, 30, 32, 34};
    const uint8_t *p = (const uint8_t *)text.p;
    uint8_t id[16], good = HEX, any = 0;

    if (text.n != UUID_TEXT || p[8] != '-' || p[13] != '-' || p[18] != '-' ||
        p[23] != '-')
        return false;
    for (int i = 0; i < 16; i++) {
        uint8_t high = hex_value[p[at[i]]], low = hex_value[p[at[i] + 1]];

        id[i] = (uint8_t)(high << 4 | (low & 15));
        good &= (uint8_t)(high & low);
        any |= id[i];
    }
    if (good != HEX || any == 0)
        return false;
    memcpy(out, id, sizeof(id));
    return true;
}

char *
uuid_format(const uint8_t id[16], char text[UUID_TEXT_SIZE])
{
    static const char hex[] = "0123456789abcdef";
    char *p = text;

    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        *p++ = hex[id[i] >> 4];
        *p++ = hex[id[i] & 15];
    }
    *p = '\0';
    return text;
}

/* ---- IP addresses ---- */

static bool
v4_parse(const char *p, const char *end, uint8_t out[4])
{
    for (int i = 0; i < 4; i++) {
        unsigned value = 0;
        const char *from = p;

        if (i > 0 && (p == end || *p++ != '.'))
            return false;
        from = p;
        while (p < end && *p >= '0' && *p <= '9' && p - from < 3)
            value = value * 10 + (unsigned)(*p++ - '0');
        if (p == from || value > 255 || (*from == '0' && p - from > 1))
            return false;
        out[i] = (uint8_t)value;
    }
    return p == end;
}

/* One to four hex digits; NULL if there are none or more. */
static const char *
group_parse(const char *p, const char *end, uint16_t *out)
{
    const char *from = p;
    unsigned value = 0;

    while (p < end && hex_value[(uint8_t)*p] != 0) {
        if (p - from == 4)
            return NULL;
        value = value << 4 | (hex_value[(uint8_t)*p++] & 15U);
    }
    *out = (uint16_t)value;
    return p == from ? NULL : p;
}

/* The groups before the end go right of the gap. */
static void
v6_close_gap(uint8_t out[16], int n, int gap)
{
    int right = n - gap;

    memmove(out + 16 - right, out + gap, (size_t)right);
    memset(out + gap, 0, (size_t)(16 - n));
}

static bool
v6_parse(const char *p, const char *end, uint8_t out[16])
{
    int n = 0, gap = -1; /* bytes */

    if (end - p >= 2 && p[0] == ':' && p[1] == ':') {
        gap = 0;
        p += 2;
    }
    while (p < end) {
        const char *from = p;
        uint16_t group;

        if (n == 16)
            return false;
        p = group_parse(p, end, &group);
        if (p == NULL)
            return false;
        if (p < end && *p == '.') {
            if (n > 12 || !v4_parse(from, end, out + n))
                return false;
            n += 4;
            break;
        }
        out[n++] = (uint8_t)(group >> 8);
        out[n++] = (uint8_t)group;
        if (p == end)
            break;
        if (*p++ != ':' || p == end)
            return false;
        if (*p == ':') {
            if (gap >= 0)
                return false;
            gap = n;
            p++;
        }
    }
    if (gap < 0)
        return n == 16;
    if (n == 16)
        return false;
    v6_close_gap(out, n, gap);
    return true;
}

static const uint8_t v4_mapped[12] = {[10] = 0xFF, [11] = 0xFF};

bool
ip_parse(struct str text, uint8_t out[IP_SIZE_MAX], uint32_t *size)
{
    const char *end = text.p + text.n;
    uint8_t ip[16];

    if (text.n < 2 || text.n >= IP_TEXT_SIZE)
        return false;
    if (memchr(text.p, ':', text.n < 5 ? text.n : 5) == NULL) {
        if (!v4_parse(text.p, end, ip))
            return false;
        memcpy(out, ip, 4);
        *size = 4;
        return true;
    }
    if (!v6_parse(text.p, end, ip))
        return false;
    if (memcmp(ip, v4_mapped, sizeof(v4_mapped)) == 0) {
        memcpy(out, ip + 12, 4);
        *size = 4;
        return true;
    }
    memcpy(out, ip, 16);
    *size = 16;
    return true;
}

/* The first of the longest runs of zero groups: [*from, *from + length), length >= 2 or
 * 0. */
static int
zero_run(const uint16_t groups[V6_GROUPS], int *from)
{
    int best = 1;

    for (int i = 0; i < V6_GROUPS; i++) {
        int n = 0;

        while (i + n < V6_GROUPS && groups[i + n] == 0)
            n++;
        if (n > best) {
            best = n;
            *from = i;
        }
        i += n;
    }
    return best == 1 ? 0 : best;
}

static void
v6_format(const uint8_t *p, char text[IP_TEXT_SIZE])
{
    uint16_t groups[V6_GROUPS];
    int from = V6_GROUPS, zeros, n = 0;

    for (int i = 0; i < V6_GROUPS; i++)
        groups[i] = (uint16_t)(p[2 * i] << 8 | p[2 * i + 1]);
    zeros = zero_run(groups, &from);
    for (int i = 0; i < V6_GROUPS; i++) {
        if (zeros > 0 && i == from) {
            n += snprintf(text + n, (size_t)(IP_TEXT_SIZE - n), "::");
            i += zeros - 1;
            continue;
        }
        n += snprintf(text + n, (size_t)(IP_TEXT_SIZE - n), "%s%x",
                      i == 0 || (zeros > 0 && i == from + zeros) ? "" : ":",
                      (unsigned)groups[i]);
    }
}

char *
ip_format(struct str ip, char text[IP_TEXT_SIZE])
{
    const uint8_t *p = (const uint8_t *)ip.p;

    text[0] = '\0';
    if (ip.n == 4)
        (void)snprintf(text, IP_TEXT_SIZE, "%u.%u.%u.%u", p[0], p[1], p[2], p[3]);
    else if (ip.n == 16 && memcmp(p, v4_mapped, sizeof(v4_mapped)) == 0)
        (void)snprintf(text, IP_TEXT_SIZE, "::ffff:%u.%u.%u.%u", p[12], p[13],
                       p[14], p[15]);
    else if (ip.n == 16)
        v6_format(p, text);
    return text;
}

/* ---- dates and times ---- */

static bool
is_leap(int year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* Days since 1970-01-01. Years are counted from March, so that the leap day is last. */
static int32_t
day_of(int year, int month, int day)
{
    int y = month <= 2 ? year - 1 : year;
    int era = (y >= 0 ? y : y - 399) / 400;
    int year_of_era = y - era * 400;
    int day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 +
           day_of_year - 719468;
}

/* The value of two digits, or a large number. */
static inline unsigned
two_digits(const char *p)
{
    unsigned tens = (unsigned)(uint8_t)p[0] - '0',
             ones = (unsigned)(uint8_t)p[1] - '0';

    return tens > 9 || ones > 9 ? 10000 : tens * 10 + ones;
}

/* "YYYY-MM-DD" at p, DATE_TEXT bytes. */
static bool
date_read(const char *p, int32_t *out_day)
{
    static const uint8_t days[13] = {0,  31, 28, 31, 30, 31, 30,
                                     31, 31, 30, 31, 30, 31};
    unsigned year = two_digits(p) * 100 + two_digits(p + 2);
    unsigned month = two_digits(p + 5), day = two_digits(p + 8);
    unsigned last;

    if (year > 9999 || month < 1 || month > 12 || p[4] != '-' || p[7] != '-')
        return false;
    last = days[month] + (month == 2 && is_leap((int)year) ? 1U : 0U);
    if (day < 1 || day > last)
        return false;
    *out_day = day_of((int)year, (int)month, (int)day);
    return true;
}

bool
date_parse(struct str text, int32_t *out_day)
{
    return text.n == DATE_TEXT && date_read(text.p, out_day);
}

char *
date_format(int32_t day, char text[12])
{
    int32_t z = day + 719468;
    int32_t era = (z >= 0 ? z : z - 146096) / 146097;
    int32_t doe = z - era * 146097; /* day of the 400 years' era */
    int32_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int32_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int32_t mp = (5 * doy + 2) / 153;
    int32_t month = mp < 10 ? mp + 3 : mp - 9;
    int32_t year = yoe + era * 400 + (month <= 2 ? 1 : 0);

    assert(year >= 0 && year <= 9999);
    (void)snprintf(text, 12, "%04u-%02u-%02u", (unsigned)year % 10000U,
                   (unsigned)month % 100U,
                   (unsigned)(doy - (153 * mp + 2) / 5 + 1) % 100U);
    return text;
}

/* Fraction of a second as ms, digits beyond cut; NULL if no digit follows the point. */
static const char *
fraction_read(const char *p, const char *end, int64_t *ms)
{
    const char *from = p;
    int64_t scale = 100;

    while (p < end && *p >= '0' && *p <= '9') {
        *ms += (*p++ - '0') * scale;
        scale /= 10;
    }
    return p == from ? NULL : p;
}

/* "Z" or "+hh:mm", to the text's end. */
static bool
offset_read(const char *p, const char *end, int64_t *offset_ms)
{
    unsigned hours, minutes;

    *offset_ms = 0;
    if (end - p == 1)
        return *p == 'Z' || *p == 'z';
    if (end - p != 6 || (*p != '+' && *p != '-') || p[3] != ':')
        return false;
    hours = two_digits(p + 1);
    minutes = two_digits(p + 4);
    if (hours > 23 || minutes > 59)
        return false;
    *offset_ms = (int64_t)(hours * 60 + minutes) * CLOCK_MINUTE_MS;
    if (*p == '-')
        *offset_ms = -*offset_ms;
    return true;
}

bool
rfc3339_parse(struct str text, int64_t *out_ms)
{
    const int64_t end_ms = INT64_C(9214646400000); /* 2262-01-01 */
    const char *p = text.p, *end = text.p + text.n;
    unsigned hour, minute, second;
    int64_t ms = 0, offset_ms, minute_ms;
    int32_t day;

    if (text.n < 20 || !date_read(p, &day) || (p[10] | 0x20) != 't' ||
        p[13] != ':' || p[16] != ':')
        return false;
    hour = two_digits(p + 11);
    minute = two_digits(p + 14);
    second = two_digits(p + 17);
    if (hour > 23 || minute > 59 || second > 60)
        return false;
    p += 19;
    if (*p == '.' && (p = fraction_read(p + 1, end, &ms)) == NULL)
        return false;
    if (!offset_read(p, end, &offset_ms))
        return false;
    minute_ms = day * CLOCK_DAY_MS +
                (int64_t)(hour * 60 + minute) * CLOCK_MINUTE_MS - offset_ms;
    /* A leap second can only be the last of a UTC day. */
    if (second == 60 && clock_floor(minute_ms, CLOCK_DAY_MS) + CLOCK_DAY_MS !=
                            minute_ms + CLOCK_MINUTE_MS)
        return false;
    ms += minute_ms + (int64_t)second * 1000;
    if (ms < 0 || ms >= end_ms)
        return false;
    *out_ms = ms;
    return true;
}

/* ---- countries ---- */

/* Second letters by the first: the 249 codes officially assigned. */
bool
country_known(struct str code)
{
    static const char *const seconds[26] = {"DEFGILMOQRSTUWXZ",
                                            "ABDEFGHIJLMNOQRSTVWYZ",
                                            "ACDFGHIKLMNORUVWXYZ",
                                            "EJKMOZ",
                                            "CEGHRST",
                                            "IJKMOR",
                                            "ABDEFGHILMNPQRSTUWY",
                                            "KMNRTU",
                                            "DELMNOQRST",
                                            "EMOP",
                                            "EGHIMNPRWYZ",
                                            "ABCIKRSTUVY",
                                            "ACDEFGHKLMNOPQRSTUVWXYZ",
                                            "ACEFGILOPRUZ",
                                            "M",
                                            "AEFGHKLMNRSTWY",
                                            "A",
                                            "EOSUW",
                                            "ABCDEGHIJKLMNORSTVXYZ",
                                            "CDFGHJKLMNORTVWZ",
                                            "AGMSYZ",
                                            "ACEGINU",
                                            "FS",
                                            "",
                                            "ET",
                                            "AMW"};
    unsigned row, column;

    if (code.n != 2)
        return false;
    row = (unsigned)(uint8_t)code.p[0] - 'A';
    column = (unsigned)(uint8_t)code.p[1] - 'A';
    return row < 26 && column < 26 && strchr(seconds[row], code.p[1]) != NULL;
}
