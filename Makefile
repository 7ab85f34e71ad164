# The parts of what ./train does by itself, and what a developer needs beside it.

sources = $(shell git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

race_tests = 'Progress.*:Train.*:Resume.*'
build_sanitized = scripts/build --in build-sanitize -DCMAKE_CXX_COMPILER=clang++ -DNANOFLEX_SANITIZE=address -DNANOFLEX_WERROR=ON

.PHONY: setup build test sanitize race fuzz format lint reference clean

setup:
	@scripts/setup

build:
	@scripts/build

test:
	@scripts/setup nvrtc browser
	@scripts/build
	@ctest --test-dir build --no-tests=error --output-on-failure --parallel 2

# AddressSanitizer and UndefinedBehaviorSanitizer over the tests. Leaks are not looked for: LibTorch
# keeps its registries and thread pools until the process ends, which LeakSanitizer counts as leaks.
sanitize:
	@scripts/setup clang++
	@$(build_sanitized)
	@ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  ctest --test-dir build-sanitize --no-tests=error --output-on-failure --parallel 2

# ThreadSanitizer over what runs beside the step: tokenizing, reading ahead, the record that others
# read while it grows, and interrupts. LibTorch is not instrumented, so what it does is left out.
race:
	@scripts/setup clang++
	@scripts/build --in build-race -DCMAKE_CXX_COMPILER=clang++ -DNANOFLEX_SANITIZE=thread -DNANOFLEX_WERROR=ON test_data test_trainer
	@export OMP_NUM_THREADS=1 TSAN_OPTIONS="suppressions=tests/race.supp halt_on_error=1"; \
	  build-race/test_data --gtest_brief=1 && build-race/test_trainer --gtest_brief=1 --gtest_filter=$(race_tests)

# The fuzz targets, each for 15 minutes or 10 million inputs; make sanitize runs them for half a minute.
fuzz:
	@scripts/setup clang++
	@$(build_sanitized)
	@scripts/fuzz 900

format:
	@scripts/setup clang-format
	@test -n "$(sources)" || { echo "git lists no sources here"; exit 1; }
	@clang-format -i $(sources)

# clang-format over everything, clang-tidy over what changed lately (scripts/lint says what that is).
lint:
	@scripts/setup clang-format clang-tidy
	@test -n "$(sources)" || { echo "git lists no sources here"; exit 1; }
	@clang-format --dry-run -Werror $(sources)
	@scripts/lint

# The records that README.md quotes, measured anew on this machine.
reference:
	@scripts/reference

# Leaves .deps: what was downloaded.
clean:
	@rm -rf build build-*
