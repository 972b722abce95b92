# The numbered files of schema/sql become one generated C file in library schema, so that
# the binary carries its own migrations. A changed or new file configures anew.
file(GLOB migration_files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/schema/sql/[0-9]*.sql)
list(SORT migration_files)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${migration_files})

set(migration_bytes "")
set(migration_rows "")
foreach(file ${migration_files})
    cmake_path(GET file STEM stem)
    string(REGEX MATCH "^[0-9]+" number ${stem})
    string(REGEX REPLACE "^0+" "" number ${number})
    file(READ ${file} hex HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
    string(REGEX REPLACE "(................................................................................)"
        "\\1\n" bytes "${bytes}")
    # One byte more than the file: the text's terminator.
    string(APPEND migration_bytes "static const unsigned char sql_${number}[] = {\n${bytes}0x00};\n")
    string(APPEND migration_rows
        "    {${number}, \"${stem}.sql\", (const char *)sql_${number}, sizeof(sql_${number}) - 1},\n")
endforeach()
list(LENGTH migration_files migrations_n)
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/migrations.c CONTENT
"/* Made by schema/embed.cmake from schema/sql. */
#include \"schema/migrations.h\"

@migration_bytes@
const struct migration migrations[] = {
@migration_rows@};
const int migrations_n = @migrations_n@;
" @ONLY)
target_sources(schema PRIVATE ${PROJECT_BINARY_DIR}/generated/migrations.c)
