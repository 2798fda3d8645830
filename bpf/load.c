#include <bpf/libbpf.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bpf/load.h"

static int say_nothing(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

void bpf_quiet(void)
{
	libbpf_set_print(say_nothing);
}

int bpf_refused(struct fsnap_error *err, int sys, const char *what)
{
	if (sys == EPERM || sys == EACCES) {
		fail(err, FSNAP_E_PERMISSION, sys, "loading %s", what);
		return error_hint(err, "it takes root, or CAP_BPF and CAP_PERFMON");
	}
	fail(err, FSNAP_E_KERNEL_LACKS, sys, "loading %s", what);
	return error_hint(err, "it takes CONFIG_DEBUG_INFO_BTF and Linux 6.1");
}
