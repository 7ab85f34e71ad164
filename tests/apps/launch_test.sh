#!/bin/bash
# The launcher, in a small project of its own: what a person sees of set-up and build, and does not see.
#   tests/apps/launch_test.sh ROOT
set -euo pipefail
root=$1
work=$(mktemp -d "$PWD/launch.XXXXXX")  # on the disk that holds the build
trap 'rm -rf "$work"' EXIT
project="$work/a clone"
mkdir -p "$project"/{apps,scripts,.deps/{python,sentencepiece,text}} "$work/elsewhere"
cd "$project"
cp "$root"/scripts/{launch,build,setup} scripts/
cp "$root/requirements.txt" .
ln -s scripts/launch hello
touch -d "1 minute ago" requirements.txt scripts/*  # older than the stamp, whatever the clock's step
cat >CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.22)
project(small LANGUAGES CXX)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
add_executable(hello apps/hello.cpp)
END
program() {
  printf '#include <cstdio>\nint main(int n, char** a) { std::printf("%s %%s", n > 1 ? a[1] : ""); }\n' "$1"
}
program first >apps/hello.cpp
echo cuda >.deps/ready

start() { (cd "$work/elsewhere" && "$project/hello" "$@" >"$work/out" 2>"$work/err"); }
expect() {  # WHAT STATUS OUT ERR-PATTERN COMMAND...
  local what=$1 status=$2 out=$3 err=$4 got=0
  shift 4
  "$@" || got=$?
  if [[ $got != "$status" || $(<"$work/out") != "$out" || $(<"$work/err") != $err ]]; then
    printf 'launch_test: %s: exit code %s\n--- stdout\n%s\n--- stderr\n%s\n' "$what" "$got" \
      "$(<"$work/out")" "$(<"$work/err")"
    exit 1
  fi
}

expect "first start builds; stdout is the program's" 0 "first x y" "*building hello*" start "x y"
expect "second start says nothing" 0 "first x y" "" start "x y"
program second >apps/hello.cpp
expect "a changed source is rebuilt" 0 "second z" "*building hello*" start z
echo 'int broken( {' >>apps/hello.cpp
expect "a compile error is shown" 1 "" "*error:*the build failed" start
program third >apps/hello.cpp
expect "and the next start carries on" 0 "third z" "*" start z

set_up() {
  env -u PIP_EXTRA_INDEX_URL -u PIP_FIND_LINKS PIP_CONFIG_FILE=/dev/null \
    PIP_INDEX_URL=http://127.0.0.1:9/simple scripts/setup >"$work/out" 2>"$work/err"
}
rm -rf .deps
expect "set-up without a network" 2 "" "*no network;*start again*" set_up
echo "launch_test: passed"
