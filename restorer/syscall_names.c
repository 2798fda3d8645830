#include "restorer/syscall_names.h"

#include <stddef.h>
#include <sys/syscall.h>

/* By number; generated from the system's headers (tools/cmake/SyscallNames.cmake). */
static const char *const names[] = {
#include "syscall_names.inc"
};

const char *syscall_name(long number)
{
	return number >= 0 && (size_t)number < sizeof(names) / sizeof(names[0]) ? names[number] : NULL;
}
