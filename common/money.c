#include "common/money.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

__extension__ typedef unsigned __int128 wide_unsigned;

enum { CODE_SIZE = 3, QUOTE_MAX = 40 };

static int64_t
power_of_ten(int places)
{
    static const int64_t powers[] = {1, 10, 100, 1000, 10000, 100000, 1000000};

    assert(places >= 0);
    assert(places <= MONEY_PLACES_MAX);
    return powers[places];
}

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static enum err
refuse(struct str text, const char *reason, struct why *why)
{
    int n = text.n < QUOTE_MAX ? (int)text.n : QUOTE_MAX;

    return err_set(why, ERR_INVALID, "amount \"%.*s\": %s", n, n == 0 ? "" : text.p,
                   reason);
}

enum err
money_parse(struct str text, int64_t *out, struct why *why)
{
    int64_t micros = 0;
    int places = 0;
    bool point = false;

    assert(out != NULL);
    if (text.n == 0)
        return refuse(text, "empty; write digits such as 0.25", why);
    for (uint32_t i = 0; i < text.n; i++) {
        char c = text.p[i];

        if (c == '.' && !point && i > 0) {
            point = true;
            continue;
        }
        if (!is_digit(c))
            return refuse(
                text, "only digits and one point between them are allowed", why);
        if (point && ++places > MONEY_PLACES_MAX)
            return refuse(text, "more than 6 decimal places", why);
        if (__builtin_mul_overflow(micros, 10, &micros) ||
            __builtin_add_overflow(micros, c - '0', &micros))
            return refuse(text, "too large", why);
    }
    if (point && places == 0)
        return refuse(text, "a digit must follow the point", why);
    if (__builtin_mul_overflow(micros, power_of_ten(MONEY_PLACES_MAX - places),
                               &micros))
        return refuse(text, "too large", why);
    *out = micros;
    return ERR_OK;
}

char *
money_minor_format(money_wide minor, int places, char *text)
{
    wide_unsigned rest = minor < 0 ? -(wide_unsigned)minor : (wide_unsigned)minor;
    char reversed[MONEY_TEXT_SIZE];
    int n = 0, i = 0;

    assert(places >= 0);
    assert(places <= MONEY_PLACES_MAX);
    do {
        if (n == places && places > 0)
            reversed[n++] = '.';
        reversed[n++] = (char)('0' + (int)(rest % 10));
        rest /= 10;
    } while (rest > 0 || n <= places);
    if (minor < 0)
        reversed[n++] = '-';
    assert(n < MONEY_TEXT_SIZE);
    while (n > 0)
        text[i++] = reversed[--n];
    text[i] = '\0';
    return text;
}

enum err
money_wide_parse(struct str text, money_wide *out, struct why *why)
{
    bool negative = text.n > 0 && text.p[0] == '-';
    bool good = text.n > negative;
    money_wide value = 0;

    for (uint32_t i = negative; i < text.n && good; i++) {
        int digit = text.p[i] - '0';

        /* Downwards for a negative one: there is one more of them. */
        good = digit >= 0 && digit <= 9 &&
               !__builtin_mul_overflow(value, 10, &value) &&
               !__builtin_add_overflow(value, negative ? -digit : digit, &value);
    }
    if (!good)
        return err_set(why, ERR_CORRUPT, "'%.*s' is no sum of micros",
                       text.n > 64 ? 64 : (int)text.n, text.p);
    *out = value;
    return ERR_OK;
}

char *
money_format(money_wide micros, int places, char *text)
{
    int64_t cut = power_of_ten(MONEY_PLACES_MAX - places);

    assert(micros % cut == 0);
    return money_minor_format(micros / cut, places, text);
}

money_wide
money_round(money_wide micros, int places)
{
    int64_t unit = power_of_ten(MONEY_PLACES_MAX - places);
    money_wide minor = micros / unit;
    int64_t rest = (int64_t)(micros % unit);

    if (rest >= unit - rest)
        minor++;
    else if (-rest >= unit + rest)
        minor--;
    return minor;
}

/* The active codes of ISO 4217 with a minor unit, each list sorted; funds codes
 * included, metals and test codes (no minor unit) not. */
static const char places_0[] =
    "BIFCLPDJFGNFISKJPYKMFKRWPYGRWFUGXUYIVNDVUVXAFXOFXPF";
static const char places_2[] =
    "AEDAFNALLAMDAOAARSAUDAWGAZNBAMBBDBDTBMDBNDBOBBOVBRLBSDBTNBWPBYNBZD"
    "CADCDFCHECHFCHWCNYCOPCOUCRCCUPCVECZKDKKDOPDZDEGPERNETBEURFJDFKPGBP"
    "GELGHSGIPGMDGTQGYDHKDHNLHTGHUFIDRILSINRIRRJMDKESKGSKHRKPWKYDKZTLAK"
    "LBPLKRLRDLSLMADMDLMGAMKDMMKMNTMOPMRUMURMVRMWKMXNMXVMYRMZNNADNGNNIO"
    "NOKNPRNZDPABPENPGKPHPPKRPLNQARRONRSDRUBSARSBDSCRSDGSEKSGDSHPSLESOS"
    "SRDSSPSTNSVCSYPSZLTHBTJSTMTTOPTRYTTDTWDTZSUAHUSDUSNUYUUZSVEDVESWST"
    "XADXCDXCGYERZARZMWZWG";
static const char places_3[] = "BHDIQDJODKWDLYDOMRTND";
static const char places_4[] = "CLFUYW";

static bool
is_among(const char *codes, size_t size, const char *code)
{
    size_t low = 0, high = size / CODE_SIZE;

    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = memcmp(codes + middle * CODE_SIZE, code, CODE_SIZE);

        if (order == 0)
            return true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

int
money_currency_places(struct str code)
{
    if (code.n != CODE_SIZE)
        return -1;
    if (is_among(places_2, sizeof(places_2) - 1, code.p))
        return 2;
    if (is_among(places_0, sizeof(places_0) - 1, code.p))
        return 0;
    if (is_among(places_3, sizeof(places_3) - 1, code.p))
        return 3;
    if (is_among(places_4, sizeof(places_4) - 1, code.p))
        return 4;
    return -1;
}
