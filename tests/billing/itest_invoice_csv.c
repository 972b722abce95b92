/* Invoices as CSV, read back by a strict reader of RFC 4180. */
#include "billing/invoice.h"

#include "tests/billing/invoice_fixture.h"

enum { FIELDS_MAX = 20, ROWS_MAX = 64 };

struct csv {
    char *fields[ROWS_MAX][FIELDS_MAX];
    int counts[ROWS_MAX];
    int rows;
};

/* RFC 4180, strictly: CRLF, quotes only around a whole field. */
static void
csv_parse(char *p, struct csv *out)
{
    out->rows = 0;
    while (*p != '\0') {
        int n = 0;
        bool more = true;
        CHECK(out->rows < ROWS_MAX);
        while (more) {
            char *to = p;
            CHECK(n < FIELDS_MAX);
            out->fields[out->rows][n++] = p;
            if (*p == '"') {
                for (p++; *p != '"' || p[1] == '"'; p++) {
                    CHECK(*p != '\0');
                    p += *p == '"';
                    *to++ = *p;
                }
                p++;
            } else {
                for (; *p != ',' && *p != '\r'; p++) {
                    CHECK(*p != '\0' && *p != '"' && *p != '\n');
                    *to++ = *p;
                }
            }
            CHECK(*p == ',' || (*p == '\r' && p[1] == '\n'));
            more = *p == ',';
            p += more ? 1 : 2;
            *to = '\0';
        }
        out->counts[out->rows++] = n;
    }
}

static void
csv_export(struct house *h, const char *month, const char *number, struct buf *text,
           struct csv *csv)
{
    MUST(invoice_export_csv(h->pg, month, number, text, why));
    buf_add(text, "", 1);
    csv_parse((char *)text->p, csv);
}

static void
test_csv_is_read_back_as_it_was_meant(void)
{
    static const struct {
        const char *sql, *read;
    } names[] = {
        {"plain", "plain"},
        {"a,b", "a,b"},
        {"say \"hi\"", "say \"hi\""},
        {"two\nlines", "two\nlines"},
        {"two\r\nlines\"", "two\r\nlines\""},
        {"=1+1", "'=1+1"},
        {"+1", "'+1"},
        {"-1", "'-1"},
        {"@SUM(A1)", "'@SUM(A1)"},
        {"\t=1", "'\t=1"},
        {"=\"a\",b", "'=\"a\",b"},
        {"M\xc3\xbcller \xe2\x82\xac", "M\xc3\xbcller \xe2\x82\xac"},
    };
    static struct csv csv;
    struct house h;
    size_t n = sizeof(names) / sizeof(names[0]);

    desk_open(&h);
    for (size_t i = 0; i < n; i++) {
        char month[16], day[16], now[32];
        struct buf text = BUF_MAX(1 << 20);
        const char *params[] = {names[i].sql};
        MUST(pg_exec(h.pg, "UPDATE advertiser SET name = $1 WHERE id = 'bh'",
                     params, 1, NULL, why));
        MUST(pg_exec(h.pg, "UPDATE campaign SET name = $1 WHERE id = 'fils'",
                     params, 1, NULL, why));
        (void)snprintf(month, sizeof(month), "2025-%02zu", i + 1);
        (void)snprintf(day, sizeof(day), "2025-%02zu-07", i + 1);
        (void)snprintf(now, sizeof(now), "2026-02-%02zuT00:00:00Z", i + 1);
        run_post(&h, "UTC", day, "posted");
        clicks_post(&h, "fils", 1499, 7);
        struct invoice_result drafted;
        MUST(invoice_draft(h.pg, month, "bh", NULL, &drafted, why));
        csv_export(&h, month, NULL, &text, &csv);
        CHECK(csv.rows == 2 && strcmp(csv.fields[1][0], "") == 0 &&
              strcmp(csv.fields[1][1], "draft") == 0);
        buf_free(&text);
        text = BUF_MAX(1 << 20);
        (void)finalised(&h, month, now);
        csv_export(&h, month, NULL, &text, &csv);
        CHECK(csv.rows == 2 && csv.counts[0] == 14 && csv.counts[1] == 14);
        CHECK(strcmp(csv.fields[0][0], "invoice_number") == 0);
        CHECK(strcmp(csv.fields[1][1], "final") == 0);
        CHECK(strcmp(csv.fields[1][2], month) == 0);
        CHECK(strcmp(csv.fields[1][4], names[i].read) == 0);
        CHECK(strncmp(csv.fields[1][8], "Clicks, ", 8) == 0);
        CHECK(strcmp(csv.fields[1][8] + 8, names[i].sql) == 0);
        CHECK(strcmp(csv.fields[1][11], "0.001499") == 0);
        CHECK(strcmp(csv.fields[1][12], "7") == 0);
        CHECK(strcmp(csv.fields[1][13], "0.010") == 0);
        char number[64];
        (void)snprintf(number, sizeof(number), "%s", csv.fields[1][0]);
        buf_free(&text);
        text = BUF_MAX(1 << 20);
        csv_export(&h, month, number, &text, &csv);
        CHECK(csv.rows == 2 && strcmp(csv.fields[1][0], number) == 0);
        buf_free(&text);
    }
    struct buf text = BUF_MAX(1 << 20);
    CHECK(invoice_export_csv(h.pg, "2025-01", "INV-1999-000001", &text, NULL) ==
          ERR_NOTFOUND);
    buf_free(&text);
    desk_close(&h);
}

/* A campaign name as long as the table lets it be, cut nowhere. */
static void
test_a_long_name_is_not_cut(void)
{
    static struct csv csv;
    struct house h;
    struct buf text = BUF_MAX(1 << 20);

    desk_open(&h);
    house_sql(&h, "UPDATE campaign SET name = repeat('\xc3\xbc', 300) WHERE id = "
                  "'shoes'");
    run_post(&h, "UTC", "2026-03-05", "posted");
    clicks_post(&h, "shoes", 250000, 4);
    (void)finalised(&h, "2026-03", "2026-04-10T00:00:00Z");
    csv_export(&h, "2026-03", NULL, &text, &csv);
    CHECK(strlen(csv.fields[1][8]) == 8 + 600);
    buf_free(&text);
    desk_close(&h);
}

int
main(void)
{
    test_csv_is_read_back_as_it_was_meant();
    test_a_long_name_is_not_cut();
    return 0;
}
