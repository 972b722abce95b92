#include "deploy/telemetry.h"

#include "common/buf.h"
#include "common/metrics.h"

enum { TEXT_BYTES_MAX = 8 << 20, CONNECTIONS_MAX = 64, BODY_MAX = 1024 };

#define REQUEST_US_MAX INT64_C(10000000)
#define IDLE_US_MAX    INT64_C(60000000)

static void
text_respond(struct http_request *request, const char *type, struct str text)
{
    const struct http_answer answer = {
        .status = 200, .content_type = type, .body = text};

    http_respond(request, &answer);
}

static void
serve(void *ctx, struct http_request *request)
{
    struct str path = http_path(request), method = http_method(request);
    struct buf text = BUF_MAX(TEXT_BYTES_MAX);

    (void)ctx;
    if (!str_equal(path, STR("/metrics")) && !str_equal(path, STR("/livez"))) {
        http_problem(request, 404, "not_found", "Here are /livez and /metrics.",
                     NULL, 0);
    } else if (!str_equal(method, STR("GET")) && !str_equal(method, STR("HEAD"))) {
        http_method_refuse(request, "GET, HEAD");
    } else if (str_equal(path, STR("/livez"))) {
        text_respond(request, "text/plain", STR("alive\n"));
    } else {
        metrics_format(&text);
        text_respond(request, "text/plain; version=0.0.4",
                     (struct str){(const char *)text.p, (uint32_t)text.n});
    }
    buf_free(&text);
}

enum err
telemetry_start(struct http_server **out, const struct config *config,
                struct why *why)
{
    const struct http_config cfg = {
        .address = config->metrics_address,
        .port = (uint16_t)config->metrics_port,
        .threads = 1,
        .connections_max = CONNECTIONS_MAX,
        .body_max = BODY_MAX,
        .in_flight_max = (size_t)CONNECTIONS_MAX * BODY_MAX,
        .request_us_max = REQUEST_US_MAX,
        .idle_us_max = IDLE_US_MAX,
        .handle = serve,
    };

    *out = NULL;
    return config->metrics_port == 0 ? ERR_OK : http_start(out, &cfg, why);
}
