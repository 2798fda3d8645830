# shellcheck shell=bash disable=SC2034
# steps.sh - sourced by check, demo and .ci/run: names what runs, and what failed.

if [ -t 1 ]; then
	bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
	bold='' green='' red='' plain=''
fi

# step NAME COMMAND... - runs it; if it fails, says which step that was and ends with its code.
step() {
	local name=$1 code=0
	shift
	printf '%s\n' "${bold}== $name${plain}"
	"$@" || code=$?
	if [ "$code" -ne 0 ]; then
		printf '%s\n' "${red}failed: $name (exit code $code)${plain}" >&2
		exit "$code"
	fi
}

# build_preset PRESET - configures and builds into build/PRESET.
build_preset() {
	step "configure $1" cmake --preset "$1"
	step "build $1" cmake --build --preset "$1" -j2
}

# test_preset PRESET [OPTION...] - runs its tests. Some kill at random moments, all use clocks and processors that
# others use too: what fails runs once more, alone. Both runs are printed; whatever fails twice fails here.
test_preset() {
	ctest --preset "$@" && return
	printf '%s\n' "${bold}== what failed, once more and alone${plain}"
	ctest --preset "$@" --rerun-failed --parallel 1
}
