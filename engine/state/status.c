/*
 * status.c - /proc/PID/task/TID/status, in one pass (proc_pid_status(5)).
 */
#include <stdlib.h>
#include <string.h>

#include "engine/state/state.h"

/* Where a line's number or numbers go. */
struct field {
	const char *key;
	int base;
	size_t at;	/* offset in struct task_status */
	unsigned count; /* how many numbers the line has */
	size_t size;	/* of each, in bytes */
};

#define FIELD(key, base, member) \
	{ key, base, offsetof(struct task_status, member), 1, \
	  sizeof(((struct task_status *)0)->member) }
#define FOUR(key, member) \
	{ key, 10, offsetof(struct task_status, member), 4, sizeof(unsigned) }

static const struct field fields[] = {
	FIELD("Umask", 8, umask),
	FOUR("Uid", creds.uid),
	FOUR("Gid", creds.gid),
	FIELD("SigPnd", 16, pending),
	FIELD("ShdPnd", 16, shared_pending),
	FIELD("SigIgn", 16, ignored),
	FIELD("SigCgt", 16, caught),
	FIELD("CapInh", 16, creds.inheritable),
	FIELD("CapPrm", 16, creds.permitted),
	FIELD("CapEff", 16, creds.effective),
	FIELD("CapBnd", 16, creds.bounding),
	FIELD("CapAmb", 16, creds.ambient),
	FIELD("NoNewPrivs", 10, creds.no_new_privs),
	FIELD("Seccomp", 10, seccomp),
	FIELD("Seccomp_filters", 10, filters),
};

static void parse_numbers(const char *text, const struct field *field, struct task_status *status)
{
	char *to = (char *)status + field->at;
	for (unsigned i = 0; i < field->count; i++, to += field->size) {
		char *end;
		uint64_t number = strtoull(text, &end, field->base);
		text = end;
		memcpy(to, &number, field->size);
	}
}

/* "Groups:" is the only line of any length. */
static int parse_groups(const char *text, image_creds *creds)
{
	unsigned n = 0, room = 0;
	for (;;) {
		while (*text == ' ' || *text == '\t')
			text++;
		if (*text < '0' || *text > '9')
			return 0;
		if (n == room) {
			room = room ? 2 * room : 32;
			u_int *more = realloc(creds->groups.groups_val, room * sizeof(*more));
			if (!more)
				return -1;
			creds->groups.groups_val = more;
		}
		char *end;
		creds->groups.groups_val[n++] = (u_int)strtoul(text, &end, 10);
		creds->groups.groups_len = n;
		text = end;
	}
}

static const struct field *find_field(const char *line, size_t length)
{
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
		if (strncmp(line, fields[i].key, length) == 0 && !fields[i].key[length])
			return &fields[i];
	return NULL;
}

int status_parse(const char *text, struct task_status *status, struct fsnap_error *err)
{
	*status = (struct task_status){ .umask = 0 };
	for (const char *line = text, *next; line && *line; line = next) {
		next = strchr(line, '\n');
		next = next ? next + 1 : NULL;
		const char *colon = strchr(line, ':');
		if (!colon)
			break;
		size_t length = (size_t)(colon - line);
		const struct field *field = find_field(line, length);
		if (field)
			parse_numbers(colon + 1, field, status);
		else if (length == 19 && !memcmp(line, "x86_Thread_features", 19))
			status->shadow_stack = memmem(colon, strcspn(colon, "\n"), "shstk", 5) != NULL;
		else if (length == 6 && !memcmp(line, "Groups", 6) &&
			 parse_groups(colon + 1, &status->creds) < 0)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "listing supplementary groups");
	}
	return 0;
}
