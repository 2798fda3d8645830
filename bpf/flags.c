#include "bpf/flags.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "bpf/load.h"
#include "flags.skel.h"
#include "store/scope.h"

#define WHAT "the iterator of mappings' flags"

BPF_READER_OF(flags, WHAT, reader->skeleton)

#define AT_ONCE 1024 /* mappings: the kernel's own buffer takes no more (kernel/bpf/bpf_iter.c: eight pages) */

/* The iterator of one task's mappings that has filled more than one buffer tells the last one over and over (seen on Linux
 * 6.18): what does not go on upwards is the end. Of a process that runs, a mapping that grew meanwhile may look like that and
 * end it early: what lies behind is then looked for in the freeze, and asked anew (maps_advice()). */
static bool goes_on(const struct flags_mapping *mappings, size_t n, ssize_t bytes)
{
	return bytes >= (ssize_t)sizeof(*mappings) && (n == 0 || mappings[n].start >= mappings[n - 1].end);
}

struct flags_mapping *flags_ask(struct flags_reader *reader, pid_t tid, size_t *n, struct fsnap_error *err)
{
	union bpf_iter_link_info info = { .task.tid = (unsigned)tid };
	cleanup_fd int fd = bpf_begin(reader->skeleton->progs.tell_flags.prog_fd, &info, WHAT, err);
	struct flags_mapping *mappings = NULL;
	ssize_t bytes = fd < 0 ? -1 : 0;
	for (*n = 0; fd >= 0;) {
		struct flags_mapping *more = realloc(mappings, (*n + AT_ONCE) * sizeof(*more));
		if (!more) {
			fail(err, FSNAP_E_NOMEM, ENOMEM, WHAT);
			free(mappings);
			return NULL;
		}
		mappings = more;
		bytes = read(fd, mappings + *n, AT_ONCE * sizeof(*mappings));
		if (!goes_on(mappings, *n, bytes))
			break;
		*n += (size_t)bytes / sizeof(*mappings);
	}
	if (bytes >= 0)
		return mappings;
	if (fd >= 0)
		fail(err, FSNAP_E_SYSTEM, errno, WHAT);
	free(mappings);
	return NULL;
}
