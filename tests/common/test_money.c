/* Parsing by table; rounding against a model that works on decimal text. */
#include "common/money.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void
good_amounts_become_micros(void **state)
{
    static const struct {
        const char *text;
        int64_t want;
    } cases[] = {
        {"0", 0},
        {"0.0", 0},
        {"1", 1000000},
        {"0.25", 250000},
        {"12", 12000000},
        {"0.000001", 1},
        {"0.123456", 123456},
        {"007.5", 7500000},
        {"9223372036854.775807", INT64_MAX},
        {"0.1", 100000},
        {"1.10", 1100000},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t got = -1;

        assert_int_equal(money_parse(str_of(cases[i].text), &got, NULL), ERR_OK);
        assert_int_equal(got, cases[i].want);
    }
}

static void
bad_amounts_are_refused_by_name_and_change_nothing(void **state)
{
    static const char *const cases[] = {
        "",
        ".",
        ".5",
        "5.",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1e3",
        "1,5",
        "0x10",
        "1.2.3",
        "1..2",
        "0.1234567",
        "0.0000000",
        "NaN",
        "inf",
        "१",
        "1_000",
        "9223372036854.775808",
        "1\t",
        "--1",
        "1.-2",
        "9223372036855",
        "99999999999999999999999999999999999999999999999999999999999999",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t got = 4711;
        struct why why = {""};

        assert_int_equal(money_parse(str_of(cases[i]), &got, &why), ERR_INVALID);
        assert_int_equal(got, 4711);
        assert_non_null(strstr(why.text, "amount \""));
    }
    int64_t got = 4711;
    assert_int_equal(money_parse((struct str){"1\0002", 3}, &got, NULL),
                     ERR_INVALID);
    assert_int_equal(money_parse((struct str){NULL, 0}, &got, NULL), ERR_INVALID);
}

static void
formatting_and_parsing_are_inverse(void **state)
{
    (void)state;
    srand(3);
    for (int i = 0; i < 100000; i++) {
        int64_t micros = ((int64_t)rand() << 31 | rand()) >> (rand() % 62),
                back = -1;
        char text[MONEY_TEXT_SIZE];

        (void)money_format(micros, 6, text);
        assert_int_equal(money_parse(str_of(text), &back, NULL), ERR_OK);
        assert_int_equal(back, micros);
    }
}

static void
minor_units_have_their_point(void **state)
{
    const money_wide max = (((money_wide)1 << 126) - 1) * 2 + 1;
    static const struct {
        int64_t minor;
        int places;
        const char *want;
    } cases[] = {
        {0, 0, "0"},         {0, 2, "0.00"},
        {5, 2, "0.05"},      {12, 2, "0.12"},
        {-5, 3, "-0.005"},   {12345, 2, "123.45"},
        {12345, 0, "12345"}, {-100, 2, "-1.00"},
        {1, 6, "0.000001"},  {-99999, 4, "-9.9999"},
    };
    char text[MONEY_TEXT_SIZE];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(
            money_minor_format(cases[i].minor, cases[i].places, text),
            cases[i].want);
    assert_string_equal(money_minor_format(max, 6, text),
                        "170141183460469231731687303715884.105727");
    assert_string_equal(money_minor_format(-max - 1, 0, text),
                        "-170141183460469231731687303715884105728");
    assert_string_equal(money_format(-250000, 2, text), "-0.25");
    assert_string_equal(money_format(12000000, 0, text), "12");
}

/* Rounds as on paper: cut the text, and add one in its last place if the first digit
 * cut off is 5 or more. Sign aside, that is half away from zero. */
static int64_t
round_on_paper(int64_t micros, int places)
{
    char digits[32];
    int n = snprintf(digits, sizeof(digits), "%020lld",
                     micros < 0 ? -(long long)micros : (long long)micros);
    int keep = n - (MONEY_PLACES_MAX - places);
    bool up = keep < n && digits[keep] >= '5';
    int64_t minor;

    digits[keep] = '\0';
    minor = strtoll(digits, NULL, 10) + (up ? 1 : 0);
    return micros < 0 ? -minor : minor;
}

static void
rounding_agrees_with_paper_for_every_number_of_places(void **state)
{
    static const int64_t near[] = {0,      1,      4999,   5000,   5001,
                                   499999, 500000, 500001, 1500000};

    (void)state;
    srand(4);
    for (int places = 0; places <= MONEY_PLACES_MAX; places++) {
        for (size_t i = 0; i < sizeof(near) / sizeof(near[0]); i++) {
            assert_int_equal(money_round(near[i], places),
                             round_on_paper(near[i], places));
            assert_int_equal(money_round(-near[i], places),
                             round_on_paper(-near[i], places));
        }
        for (int i = 0; i < 50000; i++) {
            int64_t micros = ((int64_t)rand() << 31 | rand()) >> (rand() % 62);

            micros = rand() % 2 == 0 ? micros : -micros;
            assert_int_equal(money_round(micros, places),
                             round_on_paper(micros, places));
        }
    }
}

static void
sums_past_64_bits_are_rounded_too(void **state)
{
    money_wide micros = (money_wide)INT64_MAX * 1000000 + 500000;
    char text[MONEY_TEXT_SIZE];

    (void)state;
    (void)money_minor_format(money_round(micros, 0), 0, text);
    assert_string_equal(text, "9223372036854775808");
    (void)money_minor_format(money_round(-micros, 0), 0, text);
    assert_string_equal(text, "-9223372036854775808");
}

static void
every_active_currency_has_its_places(void **state)
{
    static const struct {
        int places;
        const char *codes;
    } cases[] = {
        {0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"},
        {2, "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL "
            "BSD BTN "
            "BWP BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP "
            "DZD EGP "
            "ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR "
            "ILS INR "
            "IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD "
            "MMK MNT "
            "MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN "
            "PGK PHP "
            "PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP "
            "STN SVC "
            "SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES "
            "WST XAD "
            "XCD XCG YER ZAR ZMW ZWG"},
        {3, "BHD IQD JOD KWD LYD OMR TND"},
        {4, "CLF UYW"},
        {-1, "XXX XAU XTS DEM AAA ZZZ eur Eur"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (const char *code = cases[i].codes; *code != '\0';
             code += code[3] ? 4 : 3)
            assert_int_equal(money_currency_places((struct str){code, 3}),
                             cases[i].places);
    assert_int_equal(money_currency_places(STR("EURO")), -1);
    assert_int_equal(money_currency_places(STR("EU")), -1);
    assert_int_equal(money_currency_places((struct str){NULL, 0}), -1);
}

static void
sums_as_text_are_read_to_the_last_of_128_bits(void **state)
{
    static const char *const good[] = {
        "0",
        "7",
        "-7",
        "1250000",
        "9223372036854775808",
        "-9223372036854775809",
        "170141183460469231731687303715884105727",
        "-170141183460469231731687303715884105728",
    };
    static const char *const bad[] = {
        "",
        "-",
        "--1",
        "+1",
        " 1",
        "1 ",
        "1.5",
        "1e3",
        "0x10",
        "170141183460469231731687303715884105728",
        "-170141183460469231731687303715884105729",
        "99999999999999999999999999999999999999990",
    };
    char text[MONEY_TEXT_SIZE];
    struct why why;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        money_wide value = 99;

        assert_int_equal(money_wide_parse(str_of(good[i]), &value, &why), ERR_OK);
        assert_string_equal(money_minor_format(value, 0, text), good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        money_wide value = 99;

        assert_int_equal(money_wide_parse(str_of(bad[i]), &value, &why),
                         ERR_CORRUPT);
        assert_true(value == 99);
        assert_non_null(strstr(why.text, "is no sum of micros"));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_amounts_become_micros),
        cmocka_unit_test(bad_amounts_are_refused_by_name_and_change_nothing),
        cmocka_unit_test(formatting_and_parsing_are_inverse),
        cmocka_unit_test(minor_units_have_their_point),
        cmocka_unit_test(rounding_agrees_with_paper_for_every_number_of_places),
        cmocka_unit_test(sums_past_64_bits_are_rounded_too),
        cmocka_unit_test(sums_as_text_are_read_to_the_last_of_128_bits),
        cmocka_unit_test(every_active_currency_has_its_places),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
