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

/* Reading an iterator runs its program. */
int bpf_run(struct bpf_program *program, union bpf_iter_link_info info, const char *what,
	    struct fsnap_error *err)
{
	char nothing[16];
	DECLARE_LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));
	struct bpf_link *link = bpf_program__attach_iter(program, &opts);
	if (!link)
		return bpf_refused(err, errno, what);
	cleanup_fd int fd = bpf_iter_create(bpf_link__fd(link));
	int result = fd < 0 || read(fd, nothing, sizeof(nothing)) < 0 ? -1 : 0;
	if (result < 0)
		fail(err, FSNAP_E_SYSTEM, errno, "%s", what);
	bpf_link__destroy(link);
	return result;
}
