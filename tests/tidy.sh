#!/usr/bin/env bash
# Tidiness is a test: format, banned calls, function and file length, and who may include whom
# (the LINK lists of CMakeLists.txt are the architecture).
set -euo pipefail
cd "$(dirname "$0")/.."
function_lines_max=70
file_lines_max=600
bad=0
say() {
    echo "$*"
    bad=1
}

mapfile -t files < <(git ls-files '*.c' '*.h' '*.cc' | while read -r f; do [ -e "$f" ] && echo "$f"; done)

if command -v clang-format >/dev/null; then
    out=$(printf '%s\0' "${files[@]}" | xargs -0 -n 16 -P "$(nproc)" clang-format --dry-run 2>&1 | grep 'warning:' |
        cut -d: -f1 | sort -u || true)
    [ -z "$out" ] || say "not formatted (clang-format -i):" $out
else
    say "clang-format is missing: see tests/packages"
fi

banned='\b(strcpy|strcat|sprintf|vsprintf|atoi|atol|atof|strtok|gets|alloca|system|popen)\('
out=$(grep -nE "$banned" "${files[@]}" | grep -vE ':[0-9]+: *(\*|//|/\*)' || true)
[ -z "$out" ] || say "banned calls:"$'\n'"$out"

out=$(awk -v max=$function_lines_max '
    FNR == 1 { start = 0 }
    /^{/ { start = FNR }
    /^}/ { if (start && FNR - start > max) print FILENAME ":" start ": a function of " FNR - start " lines, at most " max; start = 0 }
' "${files[@]}")
[ -z "$out" ] || say "$out"

for f in "${files[@]}"; do
    n=$(wc -l <"$f")
    [ "$n" -le $file_lines_max ] || say "$f: $n lines, at most $file_lines_max: is it still one noun?"
done

# Only these may name a library's header.
owner() { # header pattern, files allowed
    local out
    out=$(grep -lE "#include <$1>" "${files[@]}" | grep -vE "$2" || true)
    [ -z "$out" ] || say "<$1> is for $2 only, not:" $out
}
owner 'libpq-fe.h' '^common/pg'
owner 'hiredis/.*' '^common/redis'
owner 'microhttpd.h' '^(common/http|tests/bench/)'
owner 'lmdb.h' '^(common/(clicklog|verdictlog|lmdb)|tests/bench/)'
owner 'bloom.h' '^fraud/'
owner 'simdjson.h' '^schema/json'
owner 'cyaml/.*' '^common/config'
owner 'librdkafka/.*' '^(common/|tests/)'

# Modules: what each may include is itself, what it LINKs, and what those LINK.
declare -A links
while read -r name rest; do
    links[$name]=$(sed -nE 's/.*LINK ([a-z ]+[a-z])( USE.*)?$/\1/p' <<<"$rest")
done < <(sed -nE 's/^clickledger_module\(([a-z]+)(.*)\)$/\1 \2/p' CMakeLists.txt)
closure() {
    local seen=" $1 " todo="$1" next
    while [ -n "$todo" ]; do
        next=
        for m in $todo; do
            for l in ${links[$m]:-}; do
                [[ $seen == *" $l "* ]] || { seen+="$l "; next+=" $l"; }
            done
        done
        todo=$next
    done
    echo "$seen"
}
for module in "${!links[@]}"; do
    allowed=$(closure "$module")
    while IFS=: read -r file included; do
        [ -n "$file" ] || continue
        [[ $allowed == *" $included "* ]] || say "$file includes $included/, which $module does not LINK"
    done < <(git ls-files "$module/*.c" "$module/*.h" "$module/*.cc" | xargs -r grep -HoE '#include "[a-z]+/' | sed -E 's/:#include "([a-z]+)\//:\1/' | sort -u)
done

out=$(git ls-files | grep -vE '^(common|schema|ingest|fraud|aggregate|billing|dashboard|tests|deploy|docs|\.ci)/' |
    grep -vE '^(CMakeLists.txt|CMakePresets.json|README.md|LICENSE|CHANGELOG.md|\.clang-format|\.gitignore)$' || true)
[ -z "$out" ] || say "outside every room:" $out

[ $bad -eq 0 ] && echo "tidy"
exit $bad
