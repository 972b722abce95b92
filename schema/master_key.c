#include "schema/master_key.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/hash.h"
#include "common/pg.h"
#include "common/utf8.h"
#include "schema/master.h"

enum { KEY_BYTES = 32, KEY_PREFIX_SIZE = 3, NAME_BYTES_MAX = 128 };

static const char key_prefix[KEY_PREFIX_SIZE + 1] = "ck_";

static const struct {
    const char *name;
    uint32_t bit;
} scopes_known[] = {
    {"ingest", MASTER_INGEST},
    {"read", MASTER_READ},
    {"billing", MASTER_BILLING},
    {"admin", MASTER_ADMIN},
};

enum { SCOPES_N = sizeof(scopes_known) / sizeof(*scopes_known), SCOPES_ALL = 15 };

bool
master_key_hash(struct str text, uint8_t sha256[32])
{
    if (text.n != MASTER_KEY_TEXT_SIZE - 1 ||
        memcmp(text.p, key_prefix, KEY_PREFIX_SIZE) != 0)
        return false;
    for (uint32_t i = KEY_PREFIX_SIZE; i < text.n; i++)
        if ((text.p[i] < '0' || text.p[i] > '9') &&
            (text.p[i] < 'a' || text.p[i] > 'f'))
            return false;
    hash_sha256_of(text.p, text.n, sha256);
    return true;
}

static void
key_draw(char text[MASTER_KEY_TEXT_SIZE])
{
    uint8_t bytes[KEY_BYTES];

    static_assert(KEY_PREFIX_SIZE + 2 * KEY_BYTES + 1 == MASTER_KEY_TEXT_SIZE,
                  "fits");
    hash_random_bytes(bytes, sizeof(bytes));
    memcpy(text, key_prefix, KEY_PREFIX_SIZE);
    hash_hex(bytes, sizeof(bytes), text + KEY_PREFIX_SIZE);
}

static struct str
trim(struct str text)
{
    while (text.n > 0 && text.p[0] == ' ')
        text = (struct str){text.p + 1, text.n - 1};
    while (text.n > 0 && text.p[text.n - 1] == ' ')
        text.n--;
    return text;
}

static enum err
scope_add(struct str word, uint32_t *scopes, struct why *why)
{
    for (int i = 0; i < SCOPES_N; i++) {
        if (!str_equal(word, str_of(scopes_known[i].name)))
            continue;
        *scopes |= scopes_known[i].bit;
        return ERR_OK;
    }
    return err_set(why, ERR_INVALID,
                   "scope \"%.*s\" is none of ingest, read, billing and admin",
                   word.n > 32 ? 32 : (int)word.n, word.n == 0 ? "" : word.p);
}

enum err
master_scopes_parse(struct str text, uint32_t *scopes, struct why *why)
{
    uint32_t found = 0, from = 0;

    for (uint32_t i = 0; i <= text.n; i++) {
        if (i < text.n && text.p[i] != ',')
            continue;
        enum err err =
            scope_add(trim((struct str){text.p + from, i - from}), &found, why);
        if (err != ERR_OK)
            return err;
        from = i + 1;
    }
    *scopes = found;
    return ERR_OK;
}

char *
master_scopes_format(uint32_t scopes, char text[MASTER_SCOPES_TEXT_SIZE])
{
    size_t n = 0;

    text[0] = '\0';
    for (int i = 0; i < SCOPES_N; i++) {
        size_t name_n = strlen(scopes_known[i].name);

        if ((scopes & scopes_known[i].bit) == 0)
            continue;
        if (n > 0)
            text[n++] = ',';
        assert(n + name_n < MASTER_SCOPES_TEXT_SIZE);
        memcpy(text + n, scopes_known[i].name, name_n + 1);
        n += name_n;
    }
    return text;
}

static enum err
text_check(const char *what, const char *text, struct why *why)
{
    size_t n = text == NULL ? 0 : strlen(text);

    if (n == 0 || n > NAME_BYTES_MAX)
        return err_set(why, ERR_INVALID, "%s: 1 to %d bytes, please", what,
                       NAME_BYTES_MAX);
    for (size_t i = 0; i < n;) {
        size_t step = utf8_length((const uint8_t *)text + i, n - i);

        if (step == 0 || (unsigned char)text[i] < ' ')
            return err_set(why, ERR_INVALID,
                           "%s: UTF-8 without control characters, please", what);
        i += step;
    }
    return ERR_OK;
}

/* The account's number as text in id. */
static enum err
account_find(struct pg *pg, const struct master_key_new *key, char id[16],
             struct why *why)
{
    const char *const params[] = {key->account};
    struct pg_result *rows = NULL;
    enum err err = pg_exec(pg, "SELECT id FROM account WHERE name = $1", params, 1,
                           &rows, why);

    if (err == ERR_OK && pg_rows(rows) == 0 && key->make_account) {
        pg_result_free(&rows);
        err = pg_exec(pg, "INSERT INTO account (name) VALUES ($1) RETURNING id",
                      params, 1, &rows, why);
    }
    if (err == ERR_OK && pg_rows(rows) == 0)
        err =
            err_set(why, ERR_NOTFOUND,
                    "there is no account \"%.100s\": import a campaign of it first",
                    key->account);
    if (err == ERR_OK)
        (void)snprintf(id, 16, "%" PRId64, pg_i64(rows, 0, 0));
    pg_result_free(&rows);
    return err;
}

static enum err
advertiser_check(struct pg *pg, const char *advertiser, const char *account,
                 struct why *why)
{
    const char *const params[] = {advertiser};
    struct pg_result *rows = NULL;
    enum err err = pg_exec(pg, "SELECT account_id FROM advertiser WHERE id = $1",
                           params, 1, &rows, why);

    if (err == ERR_OK && pg_rows(rows) == 0)
        err = err_set(why, ERR_NOTFOUND, "there is no advertiser \"%.100s\"",
                      advertiser);
    if (err == ERR_OK && strcmp(pg_value(rows, 0, 0), account) != 0)
        err = err_set(why, ERR_CONFLICT,
                      "advertiser \"%.100s\" is another account's", advertiser);
    pg_result_free(&rows);
    return err;
}

static enum err
key_insert(struct pg *pg, const struct master_key_new *key,
           const char text[MASTER_KEY_TEXT_SIZE], uint32_t *id, struct why *why)
{
    char account[16], scopes[16], rate[16], hex[HASH_SHA256_HEX_SIZE];
    const char *advertiser = key->advertiser;
    uint8_t sha256[HASH_SHA256_SIZE];
    struct pg_result *rows = NULL;
    enum err err = account_find(pg, key, account, why);

    if (advertiser != NULL && advertiser[0] == '\0')
        advertiser = NULL;
    if (err == ERR_OK && advertiser != NULL)
        err = advertiser_check(pg, advertiser, account, why);
    if (err != ERR_OK)
        return err;
    (void)master_key_hash((struct str){text, MASTER_KEY_TEXT_SIZE - 1}, sha256);
    hash_hex(sha256, sizeof(sha256), hex);
    (void)snprintf(scopes, sizeof(scopes), "%u", key->scopes);
    (void)snprintf(rate, sizeof(rate), "%u", key->rate_clicks_per_s);
    const char *const params[] = {account, key->name,  hex,
                                  scopes,  advertiser, rate};
    err = pg_exec(
        pg,
        "INSERT INTO api_key (account_id, name, sha256, scopes, advertiser_id, "
        "rate_clicks_per_s) VALUES ($1, $2, decode($3, 'hex'), $4, $5, $6) "
        "RETURNING id",
        params, 6, &rows, why);
    if (err == ERR_OK && id != NULL)
        *id = (uint32_t)pg_i64(rows, 0, 0);
    pg_result_free(&rows);
    return err;
}

enum err
master_key_create(struct pg *pg, const struct master_key_new *key,
                  char text[MASTER_KEY_TEXT_SIZE], uint32_t *id, struct why *why)
{
    enum err err = text_check("account", key->account, why);

    text[0] = '\0';
    if (err == ERR_OK)
        err = text_check("name", key->name, why);
    if (err == ERR_OK && (key->scopes == 0 || key->scopes > SCOPES_ALL))
        err = err_set(why, ERR_INVALID,
                      "scopes: at least one of ingest, read, billing and admin");
    if (err == ERR_OK && key->rate_clicks_per_s > INT32_MAX)
        err = err_set(why, ERR_INVALID, "rate: at most %d clicks a second",
                      INT32_MAX);
    if (err == ERR_OK)
        err = pg_begin(pg, why);
    if (err != ERR_OK)
        return err;
    key_draw(text);
    err = key_insert(pg, key, text, id, why);
    if (err == ERR_OK)
        err = pg_commit(pg, why);
    if (err != ERR_OK) {
        pg_rollback(pg);
        text[0] = '\0';
    }
    return err;
}

static void
row_text(const struct pg_result *rows, int i, struct buf *out)
{
    char scopes[MASTER_SCOPES_TEXT_SIZE];

    buf_printf(out, "%-6s %-20s %-20s %-26s %-16s %8s  %s%s%s\n",
               pg_value(rows, i, 0), pg_value(rows, i, 1), pg_value(rows, i, 2),
               master_scopes_format((uint32_t)pg_i64(rows, i, 3), scopes),
               pg_value(rows, i, 4)[0] == '\0' ? "-" : pg_value(rows, i, 4),
               pg_i64(rows, i, 5) == 0 ? "default" : pg_value(rows, i, 5),
               pg_value(rows, i, 6),
               pg_value(rows, i, 7)[0] == '\0' ? "" : "  revoked ",
               pg_value(rows, i, 7));
}

static void
row_json(const struct pg_result *rows, int i, struct buf *out)
{
    char scopes[MASTER_SCOPES_TEXT_SIZE];
    static const char *const names[] = {"id",         "account",    "name",
                                        "scopes",     "advertiser", "rate",
                                        "created_at", "revoked_at"};

    for (int column = 0; column < 8; column++) {
        buf_printf(out, "%s\"%s\":", column == 0 ? "{" : ",", names[column]);
        if (column == 3)
            buf_add_json(out, str_of(master_scopes_format(
                                  (uint32_t)pg_i64(rows, i, 3), scopes)));
        else if (column == 0 || column == 5)
            buf_add_text(out, pg_value(rows, i, column));
        else if (column == 7 && pg_value(rows, i, column)[0] == '\0')
            buf_add_text(out, "null");
        else
            buf_add_json(out, str_of(pg_value(rows, i, column)));
    }
    buf_add_text(out, "}");
}

enum err
master_key_list(struct pg *pg, bool json, struct buf *out, struct why *why)
{
    static const char sql[] =
        "SELECT k.id, a.name, k.name, k.scopes, coalesce(k.advertiser_id, ''), "
        "k.rate_clicks_per_s, "
        "to_char(k.created_at AT TIME ZONE 'UTC', "
        "'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), "
        "coalesce(to_char(k.revoked_at AT TIME ZONE 'UTC', "
        "'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), '') "
        "FROM api_key k JOIN account a ON a.id = k.account_id ORDER BY k.id";
    struct pg_result *rows = NULL;
    enum err err = pg_exec(pg, sql, NULL, 0, &rows, why);

    if (err != ERR_OK)
        return err;
    if (json)
        buf_add_text(out, "[");
    else
        buf_printf(out, "%-6s %-20s %-20s %-26s %-16s %8s  %s\n", "ID", "ACCOUNT",
                   "NAME", "SCOPES", "ADVERTISER", "CLICKS/S", "CREATED");
    for (int i = 0; i < pg_rows(rows); i++) {
        if (json && i > 0)
            buf_add_text(out, ",");
        if (json)
            row_json(rows, i, out);
        else
            row_text(rows, i, out);
    }
    if (json)
        buf_add_text(out, "]\n");
    pg_result_free(&rows);
    return out->failed ? err_set(why, ERR_NOMEM, "keys: no memory for the list")
                       : ERR_OK;
}

enum err
master_key_revoke(struct pg *pg, uint32_t id, struct why *why)
{
    char number[16];
    const char *const params[] = {number};
    struct pg_result *rows = NULL;
    enum err err;

    (void)snprintf(number, sizeof(number), "%u", id);
    err =
        pg_exec(pg, "SELECT revoked_at IS NULL FROM api_key WHERE id = $1::bigint",
                params, 1, &rows, why);
    if (err == ERR_OK && pg_rows(rows) == 0)
        err = err_set(why, ERR_NOTFOUND,
                      "there is no key %u: see `clickledger key list`", id);
    if (err == ERR_OK && strcmp(pg_value(rows, 0, 0), "t") == 0)
        err = pg_exec(pg,
                      "UPDATE api_key SET revoked_at = now() "
                      "WHERE id = $1::bigint AND revoked_at IS NULL",
                      params, 1, NULL, why);
    pg_result_free(&rows);
    return err;
}
