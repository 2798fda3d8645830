#!/bin/sh
# gen-syscalls.sh - the names of the system calls that <sys/syscall.h> knows, as C initialisers:
#
#	tools/gen-syscalls.sh cc >syscall_names.inc        [SYS_read] = "read",
#
# Asking the preprocessor keeps the table as new as the headers it is built with.
set -eu

printf '#include <sys/syscall.h>\n' |
	"${1:-cc}" -E -dM - |
	sed -n 's/^#define SYS_\([a-z0-9_]*\) __NR_[a-z0-9_]*$/\t[SYS_\1] = "\1",/p' |
	LC_ALL=C sort
