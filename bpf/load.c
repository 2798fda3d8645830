#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bpf/load.h"
#include "store/scope.h"

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

int bpf_loaded(int result, const void *shared)
{
	return result == 0 && !shared ? -EOPNOTSUPP : result;
}

int bpf_begin(int program, const union bpf_iter_link_info *info, const char *what, struct fsnap_error *err)
{
	DECLARE_LIBBPF_OPTS(bpf_link_create_opts, opts, .iter_info = (union bpf_iter_link_info *)info,
			    .iter_info_len = sizeof(*info));
	cleanup_fd int link = bpf_link_create(program, 0, BPF_TRACE_ITER, &opts);
	if (link < 0)
		return bpf_refused(err, errno, what);
	int fd = bpf_iter_create(link); /* which goes on without the link */
	return fd >= 0 ? fd : fail(err, FSNAP_E_SYSTEM, errno, "%s", what);
}

int bpf_run(struct bpf_program *program, union bpf_iter_link_info info, const char *what,
	    struct fsnap_error *err)
{
	char nothing[16];
	cleanup_fd int fd = bpf_begin(bpf_program__fd(program), &info, what, err);
	if (fd < 0)
		return -1;
	return read(fd, nothing, sizeof(nothing)) < 0 ? fail(err, FSNAP_E_SYSTEM, errno, "%s", what) : 0;
}
