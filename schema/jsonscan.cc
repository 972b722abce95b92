// The one C++ file: simdjson's first stage behind extern "C".
#include "schema/jsonscan.h"

#include <memory>
#include <new>
#include <simdjson.h>

// Stages after the first would need a depth; they do not run here.
static constexpr size_t DEPTH_UNUSED = 1;

struct json_scanner {
    std::unique_ptr<simdjson::internal::dom_parser_implementation> stage;
};

extern "C" struct json_scanner *
json_scanner_open(size_t bytes_max)
{
    auto *scanner = new (std::nothrow) json_scanner;

    if (scanner == nullptr)
        return nullptr;
    if (simdjson::get_active_implementation()->create_dom_parser_implementation(
            bytes_max, DEPTH_UNUSED, scanner->stage) != simdjson::SUCCESS) {
        delete scanner;
        return nullptr;
    }
    return scanner;
}

extern "C" void
json_scanner_close(struct json_scanner **scanner)
{
    delete *scanner;
    *scanner = nullptr;
}

static enum json_fault
fault_of(simdjson::error_code code)
{
    if (code == simdjson::UTF8_ERROR)
        return JSON_UTF8;
    if (code == simdjson::UNESCAPED_CHARS)
        return JSON_CONTROL;
    if (code == simdjson::UNCLOSED_STRING)
        return JSON_OPEN_STRING;
    if (code == simdjson::CAPACITY)
        return JSON_TOO_LARGE;
    return code == simdjson::MEMALLOC ? JSON_NO_MEMORY : JSON_EMPTY;
}

extern "C" enum json_fault
json_scan(struct json_scanner *scanner, const char *text, size_t size,
          const uint32_t **marks, uint32_t *n)
{
    auto &stage = *scanner->stage;

    if (size == 0)
        return JSON_EMPTY;
    if (size > stage.capacity())
        return JSON_TOO_LARGE;
    simdjson::error_code code =
        stage.stage1(reinterpret_cast<const uint8_t *>(text), size,
                     simdjson::stage1_mode::regular);
    if (code != simdjson::SUCCESS)
        return fault_of(code);
    *marks = stage.structural_indexes.get();
    *n = stage.n_structural_indexes;
    return JSON_GOOD;
}
