/*
 * parcel.c - a chain as bytes and descriptors, over a socket.
 *
 * What it says stands in a memfd, so that its length does not matter; who keeps it need not understand it. Both ends
 * are the same program, or refuse each other (VERSION).
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/chain/chain.h"
#include "store/scope.h"

#define VERSION 1u
#define BATCH 128u /* descriptors in one message: below SCM_MAX_FD of unix(7) */
#define MEMBERS_MOST 65536u
#define SPANS_MOST 1048576u

struct head {
	uint32_t version;
	uint32_t n_members;
	char base[128];
	uint8_t uuid[16];
};

struct member_head {
	int64_t pid;
	uint64_t start;
	uint32_t space;
	uint32_t based;
	uint64_t n_spans;
};

/* --- bytes ------------------------------------------------------------------------------------- */

static void write_all(FILE *out, const struct chain *chain)
{
	struct head head = { .version = VERSION, .n_members = (uint32_t)chain->n_members };
	snprintf(head.base, sizeof(head.base), "%s", chain->base);
	memcpy(head.uuid, chain->uuid, sizeof(head.uuid));
	fwrite(&head, sizeof(head), 1, out);
	for (size_t i = 0; i < chain->n_members; i++) {
		const struct chain_member *member = &chain->members[i];
		struct member_head one = { member->pid, member->start, member->space, member->based,
					   member->track.n_spans };
		fwrite(&one, sizeof(one), 1, out);
		fwrite(member->track.spans, sizeof(*member->track.spans), member->track.n_spans, out);
	}
}

int parcel_make(const struct chain *chain, struct parcel *parcel, struct fsnap_error *err)
{
	*parcel = (struct parcel){ .memfd = memfd_create("fsnap-chain", MFD_CLOEXEC) };
	parcel->fds = calloc(2 * chain->n_members + 1, sizeof(*parcel->fds));
	int copy = parcel->memfd < 0 ? -1 : fcntl(parcel->memfd, F_DUPFD_CLOEXEC, 3);
	cleanup_file FILE *out = copy < 0 ? NULL : fdopen(copy, "w");
	if (!parcel->fds || !out)
		return fail(err, FSNAP_E_SYSTEM, errno, "handing on what is tracked");
	write_all(out, chain);
	if (fflush(out) || ferror(out))
		return fail(err, FSNAP_E_SYSTEM, errno, "handing on what is tracked");
	for (size_t i = 0; i < chain->n_members; i++) {
		parcel->fds[parcel->n_fds++] = chain->members[i].track.uffd;
		parcel->fds[parcel->n_fds++] = chain->members[i].track.pagemap;
	}
	return 0;
}

static bool read_member(FILE *in, struct chain *chain, const int *fds)
{
	struct member_head one;
	if (fread(&one, sizeof(one), 1, in) != 1 || one.n_spans > SPANS_MOST)
		return false;
	image_span *spans = calloc(one.n_spans + 1, sizeof(*spans));
	if (!spans || fread(spans, sizeof(*spans), one.n_spans, in) != one.n_spans) {
		free(spans);
		return false;
	}
	struct chain_member *member = &chain->members[chain->n_members++];
	*member = (struct chain_member){ .pid = (pid_t)one.pid, .start = one.start, .space = one.space,
					 .based = one.based };
	track_adopt(&member->track, fds[0], fds[1]);
	/* grow() takes room to be there for as many as there are, up to a power of two. */
	for (size_t i = 0; i < one.n_spans; i++) {
		image_span *more = grow(member->track.spans, member->track.n_spans, sizeof(*more), NULL);
		if (!more)
			break;
		member->track.spans = more;
		more[member->track.n_spans++] = spans[i];
	}
	free(spans);
	return member->track.n_spans == one.n_spans;
}

static bool read_all(FILE *in, struct parcel *parcel, struct chain *chain)
{
	struct head head;
	if (fread(&head, sizeof(head), 1, in) != 1 || head.version != VERSION || head.n_members > MEMBERS_MOST ||
	    2 * head.n_members != parcel->n_fds)
		return false;
	memcpy(chain->base, head.base, sizeof(chain->base));
	chain->base[sizeof(chain->base) - 1] = '\0';
	memcpy(chain->uuid, head.uuid, sizeof(chain->uuid));
	size_t room = 1;
	while (room < head.n_members)
		room *= 2;
	chain->members = calloc(room, sizeof(*chain->members));
	if (!chain->members)
		return false;
	for (unsigned i = 0; i < head.n_members; i++) {
		if (!read_member(in, chain, &parcel->fds[2 * i]))
			return false;
		parcel->fds[2 * i] = parcel->fds[2 * i + 1] = -1; /* the chain's now */
	}
	return true;
}

struct chain *parcel_open(struct parcel *parcel, struct fsnap_error *err)
{
	struct chain *chain = chain_new();
	if (chain)
		chain->is_kept = true;
	int copy = fcntl(parcel->memfd, F_DUPFD_CLOEXEC, 3);
	cleanup_file FILE *in = copy < 0 ? NULL : fdopen(copy, "r");
	if (in)
		rewind(in);
	if (!chain || !in || !read_all(in, parcel, chain)) {
		fail(err, FSNAP_E_SYSTEM, 0, "what is tracked is kept by another version of fsnap");
		error_hint(err, "fsnap track -t PID --stop, then begin again");
		chain_free(chain);
		chain = NULL;
	}
	return chain;
}

void parcel_close(struct parcel *parcel)
{
	for (unsigned i = 0; parcel->fds && i < parcel->n_fds; i++)
		scope_close(&parcel->fds[i]);
	free(parcel->fds);
	scope_close(&parcel->memfd);
	*parcel = (struct parcel){ .memfd = -1 };
}

/* --- over a socket ---------------------------------------------------------------------------------- */

struct note {
	uint32_t n_fds; /* in all, behind the memfd */
	uint32_t valid; /* it has a base */
};

static int send_some(int socket, const struct note *note, const int *fds, unsigned n)
{
	char room[CMSG_SPACE(BATCH * sizeof(int))] = { 0 };
	struct iovec part = { (void *)note, sizeof(*note) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room,
				  .msg_controllen = CMSG_SPACE(n * sizeof(int)) };
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(head), fds, n * sizeof(int));
	return sendmsg(socket, &message, MSG_NOSIGNAL) == sizeof(*note) ? 0 : -1;
}

static int receive_some(int socket, struct note *note, int *fds, unsigned *n)
{
	char room[CMSG_SPACE(BATCH * sizeof(int))];
	struct iovec part = { note, sizeof(*note) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room,
				  .msg_controllen = sizeof(room) };
	ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_WAITALL);
	struct cmsghdr *head = got == sizeof(*note) ? CMSG_FIRSTHDR(&message) : NULL;
	if (!head || head->cmsg_type != SCM_RIGHTS)
		return -1;
	*n = (unsigned)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
	memcpy(fds, CMSG_DATA(head), *n * sizeof(int));
	return 0;
}

int parcel_send(int socket, const struct parcel *parcel, bool valid)
{
	struct note note = { parcel->n_fds, valid };
	int result = send_some(socket, &note, &parcel->memfd, 1);
	for (unsigned at = 0; result == 0 && at < parcel->n_fds; at += BATCH)
		result = send_some(socket, &note, parcel->fds + at,
				   parcel->n_fds - at < BATCH ? parcel->n_fds - at : BATCH);
	return result;
}

int parcel_receive(int socket, struct parcel *parcel, bool *valid)
{
	struct note note;
	int fds[BATCH];
	unsigned n;
	*parcel = (struct parcel){ .memfd = -1 };
	if (receive_some(socket, &note, fds, &n) < 0)
		return -1;
	parcel->memfd = fds[0];
	*valid = note.valid;
	if (n != 1 || note.n_fds > 2 * MEMBERS_MOST || !(parcel->fds = calloc(note.n_fds + 1, sizeof(int))))
		return -1;
	while (parcel->n_fds < note.n_fds) {
		struct note again;
		if (receive_some(socket, &again, fds, &n) < 0 || n > note.n_fds - parcel->n_fds)
			return -1;
		memcpy(parcel->fds + parcel->n_fds, fds, n * sizeof(int));
		parcel->n_fds += n;
	}
	return 0;
}
