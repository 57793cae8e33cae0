#!/usr/bin/env bash
# The tests that only exist in C: as C99 and C++17, under AddressSanitizer, UndefinedBehaviorSanitizer and a leak check, and
# under ThreadSanitizer with the library and Rust's own instrumented. The last line is `N passed, N failed`.
#
# DLOCK_LIB_DIR: where libdlock_c.so and .a are; without it they are built. NO_BUILD=1: nothing is built, and the library
# for ThreadSanitizer has to be in $DLOCK_LIB_DIR/tsan.
set -uo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
lib=${DLOCK_LIB_DIR:-$target/release}
tsan=${NO_BUILD:+$lib/tsan}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work
passed=0 failed=0 skipped=

check() { # name command...
    local name=$1 log=$work/log
    shift
    if "$@" >"$log" 2>&1 </dev/null; then
        passed=$((passed + 1))
        printf 'ok      %s: %s\n' "$name" "$(tail -n 1 "$log")"
    else
        failed=$((failed + 1))
        printf 'FAILED  %s\n' "$name"
        sed 's/^/    /' "$log" | head -n 200
    fi
}
finish() {
    printf '\n%d passed, %d failed%s\n' "$passed" "$failed" "${skipped:+, $skipped skipped}"
    exit $((failed != 0))
}

# A program as its users find the library: by its SONAME.
links() { # folder of the library, folder to make
    mkdir -p "$2" && ln -sf "$1/libdlock_c.so" "$2/libdlock.so" && ln -sf "$1/libdlock_c.so" "$2/libdlock.so.0"
}
FLAGS=(-g -O1 -Wall -Wextra -Werror -pedantic -D_GNU_SOURCE -Ibindings-c/include)
build() { # name, compiler and flags...
    local name=$1
    shift
    "$@" "${FLAGS[@]}" -o "$work/$name" "tests/c/${name%%-*}.c" -L"$work/lib" -Wl,-rpath,"$work/lib" -ldlock -lpthread -ldl
}
played() { # name, arguments...
    local name=$1
    shift
    build_and_run "$name" gcc -std=c99 -- "$@"
}
build_and_run() { # name, compiler and flags... -- arguments...
    local name=$1 how=()
    shift
    while [ "$1" != -- ]; do how+=("$1") && shift; done
    shift
    build "$name" "${how[@]}" && timeout 300 "$work/$name" "$@"
}
PROGRAMS=(api handles callbacks threads lost fork cancel exit)

if [ -z "${DLOCK_LIB_DIR:-}${NO_BUILD:-}" ]; then
    check 'the library' cargo build --release -p dlock-c
fi
links "$lib" "$work/lib"

# ---- as it is
for program in "${PROGRAMS[@]}" limits signals closefrom flat; do
    check "$program" played "$program"
done
check 'load' played load "$work/lib/libdlock.so.0"
skip() { # name, why
    printf 'SKIPPED %s: %s\n' "$@"
    skipped=$((${skipped:-0} + 1))
}
mount_has_setuid() { ! findmnt -no OPTIONS --target "$1" | tr , '\n' | grep -qx nosuid; }
if [ "$(id -u)" != 0 ]; then
    skip setuid 'only root can make a setuid program'
elif ! mount_has_setuid /tmp; then
    skip setuid '/tmp is mounted with nosuid'
else
    check 'setuid' played setuid
fi
with_redis() { # program: played with the URL of a Redis of its own
    local port server code
    for _ in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 12000))
        redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no >/dev/null &
        server=$!
        for _ in {1..200}; do
            redis-cli -p "$port" ping >/dev/null 2>&1 && break 2
            kill -0 $server 2>/dev/null || break # somebody else's port
            sleep 0.05
        done
    done
    played "$1" "redis://127.0.0.1:$port"
    code=$?
    kill $server
    return $code
}
check 'exit on Redis' with_redis exit
for program in "${PROGRAMS[@]}"; do
    check "$program as C++17" build_and_run "$program-cpp" g++ -std=c++17 -x c++ --
done

# ---- what is written about it
block() { awk '/^```c$/ { on = 1; next } /^```/ { on = 0 } on' bindings-c/README.md >"$1"; }
intro() { awk '/^ \*     /  { print substr($0, 8) } /^ \*\// { exit }' bindings-c/include/dlock.h >"$1"; }
shown() { # block or intro
    "$1" "$work/$1.c" && [ -s "$work/$1.c" ] &&
        gcc -std=c99 -Wall -Wextra -Werror -Ibindings-c/include -o "$work/$1" "$work/$1.c" -L"$work/lib" \
            -Wl,-rpath,"$work/lib" -ldlock &&
        "$work/$1" | tee /dev/stderr | grep -q '^mine'
}
export DLOCK_FILE_DIR=$work/default
check 'the example of the README' shown block
check 'the example of the header' shown intro

# ---- what is exported
exports() {
    nm -D --defined-only "$lib/libdlock_c.so" | awk '{ print $3 }' | sort >"$work/exported"
    grep -oE '^[a-z].*\bdlock_[a-z_]+\(' bindings-c/include/dlock.h | grep -oE 'dlock_[a-z_]+\($' | tr -d '(' | sort >"$work/declared"
    wc -l <"$work/declared" && [ -s "$work/declared" ] && diff "$work/declared" "$work/exported"
}
soname() { readelf -d "$lib/libdlock_c.so" | grep -q 'SONAME.*\[libdlock.so.0\]' && readelf -d "$lib/libdlock_c.so" | grep -q NODELETE; }
check 'exported is what the header declares' exports
check 'its name, and that it stays loaded' soname
static() { # with what dlock.pc says a static library needs
    local private
    private=$(sed -n 's/^Libs.private: //p' bindings-c/dlock.pc.in)
    # shellcheck disable=SC2086
    gcc -std=c99 "${FLAGS[@]}" -o "$work/static" tests/c/api.c "$lib/libdlock_c.a" $private && "$work/static"
}
check 'linked statically' static

# ---- under AddressSanitizer, UndefinedBehaviorSanitizer, and LeakSanitizer at each exit
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
SAN=(gcc -std=c99 -fsanitize=address,undefined -fno-sanitize-recover=all)
leaks() { # a leak of the test's own is found, or the check is blind
    printf '#include <stdlib.h>\nint main(void) { void *volatile p = malloc(7); p = NULL; return p != NULL; }\n' >"$work/leak.c"
    "${SAN[@]}" -o "$work/leak" "$work/leak.c" && ! "$work/leak" 2>"$work/leak.txt" && grep -q LeakSanitizer "$work/leak.txt"
}
check 'a leak is found' leaks
export CHECK_SHARE=5
for program in "${PROGRAMS[@]}"; do
    check "$program with address, undefined, leaks" build_and_run "$program-asan" "${SAN[@]}" -- \
        $([ "$program" = fork ] && echo still)
done

# ---- under ThreadSanitizer: Rust's libraries are built with it, since what they do unseen would look like races. These
# programs use the local backends alone, so the library has no other.
triple=$(rustc -vV | sed -n 's/^host: //p')
with_sources() { [ -d "$(rustc --print sysroot)/lib/rustlib/src/rust/library" ] || rustup component add rust-src; }
instrumented() {
    with_sources && RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zsanitizer=thread -Zexternal-clangrt' cargo rustc --target-dir "$target/tsan" \
        -p dlock-c --no-default-features --features local --crate-type cdylib -Zbuild-std --target "$triple" &&
        tsan=$target/tsan/$triple/debug
}
if [ -z "$tsan" ]; then
    if ! with_sources; then
        echo 'SKIPPED: no thread checker without the sources of the standard library (rustup component add rust-src)'
        skipped=$((${skipped:-0} + 7))
        finish
    fi
    check 'the library with ThreadSanitizer' instrumented
fi
links "$tsan" "$work/tsan"
# Compiled by gcc, run by the run-time library that comes with Rust: both speak the same to it.
runtime=$(rustc --print target-libdir)/librustc-stable_rt.tsan.a
# Its children of fork start threads, which it doesn't expect of them.
export TSAN_OPTIONS=exitcode=66:halt_on_error=0:die_after_fork=0
raced() { # program, arguments...
    local program=$1
    shift
    gcc -std=c99 "${FLAGS[@]}" -fsanitize=thread -c -o "$work/$program.o" "tests/c/$program.c" &&
        gcc -o "$work/$program-tsan" "$work/$program.o" -Wl,--whole-archive "$runtime" -Wl,--no-whole-archive -rdynamic \
            -L"$work/tsan" -Wl,-rpath,"$work/tsan" -ldlock -lpthread -ldl -lm -lrt -lresolv &&
        timeout 300 "$work/$program-tsan" "$@"
}
found() { # in C; and in the same with a lock, nothing
    raced race 2>"$work/race.txt"
    [ $? = 66 ] && grep -q 'SUMMARY: ThreadSanitizer: data race.*race.c' "$work/race.txt"
}
export CHECK_SHARE=10
check 'a race is found' found
check 'a lock ends it' raced race locked
for program in callbacks threads lost fork; do
    check "$program with threads checked" raced "$program"
done
finish
