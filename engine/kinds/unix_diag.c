#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/kinds/unix_parts.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

static struct unix_facts *add_facts(void **slot)
{
	struct unix_scratch *scratch = *slot;
	if (!scratch || scratch->n == scratch->room) {
		size_t room = scratch ? 2 * scratch->room : 256;
		struct unix_scratch *moved =
			realloc(scratch, sizeof(*moved) + room * sizeof(moved->facts[0]));
		if (!moved)
			return NULL;
		if (!scratch)
			memset(moved, 0, sizeof(*moved));
		moved->room = room;
		*slot = scratch = moved;
	}
	struct unix_facts *facts = &scratch->facts[scratch->n++];
	memset(facts, 0, sizeof(*facts));
	return facts;
}

/* The kernel lists them in the order in which accept(2) will find them. */
static bool add_waiting(void **slot, uint32_t listener, const uint32_t *clients, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct unix_facts *in = add_facts(slot);
		if (!in)
			return false;
		*in = (struct unix_facts){.about = UNIX_FACTS_QUEUE, .ino = listener,
					  .place = (uint32_t)i, .peer = clients[i]};
		struct unix_facts *client = add_facts(slot);
		if (!client)
			return false;
		*client = (struct unix_facts){.about = UNIX_FACTS_WAITS, .ino = clients[i],
					      .peer = listener};
	}
	return true;
}

static bool take_message(void **slot, const struct nlmsghdr *header)
{
	const struct unix_diag_msg *message = NLMSG_DATA(header);
	struct unix_facts *facts = add_facts(slot);
	if (!facts)
		return false;
	facts->ino = message->udiag_ino;
	facts->listening = message->udiag_state == TCP_LISTEN;

	const struct rtattr *clients = NULL;
	int left = (int)(header->nlmsg_len - NLMSG_LENGTH(sizeof(*message)));
	for (const struct rtattr *at = (const void *)(message + 1); RTA_OK(at, left);
	     at = RTA_NEXT(at, left)) {
		const void *data = RTA_DATA(at);
		switch (at->rta_type) {
		case UNIX_DIAG_PEER:
			memcpy(&facts->peer, data, sizeof(facts->peer));
			break;
		case UNIX_DIAG_VFS:
			facts->file_ino = ((const struct unix_diag_vfs *)data)->udiag_vfs_ino;
			break;
		case UNIX_DIAG_RQLEN: /* of a listener: its backlog */
			facts->backlog = ((const struct unix_diag_rqlen *)data)->udiag_wqueue;
			break;
		case UNIX_DIAG_SHUTDOWN:
			facts->shutdown = *(const uint8_t *)data;
			break;
		case UNIX_DIAG_ICONS:
			clients = at;
			break;
		}
	}
	return !clients || add_waiting(slot, message->udiag_ino, RTA_DATA(clients),
				       RTA_PAYLOAD(clients) / sizeof(uint32_t));
}

/* ino 0: all there are. */
static int ask(void **slot, uint32_t ino, struct fsnap_error *err)
{
	struct {
		struct nlmsghdr header;
		struct unix_diag_req request;
	} question = {
		.header = {.nlmsg_len = sizeof(question),
			   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			   .nlmsg_flags = (unsigned short)(NLM_F_REQUEST | (ino ? 0 : NLM_F_DUMP))},
		.request = {.sdiag_family = AF_UNIX,
			    .udiag_states = ~0u,
			    .udiag_ino = ino,
			    .udiag_show = UDIAG_SHOW_PEER | UDIAG_SHOW_VFS | UDIAG_SHOW_ICONS |
					  UDIAG_SHOW_RQLEN,
			    .udiag_cookie = {~0u, ~0u}},
	};
	_Alignas(struct nlmsghdr) char answer[32768];
	cleanup_fd int diag = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (diag < 0 || send(diag, &question, sizeof(question), 0) < 0) {
		fail(err, FSNAP_E_KERNEL_LACKS, errno, "asking about Unix sockets (sock_diag)");
		return error_hint(err, "The kernel needs CONFIG_UNIX_DIAG.");
	}
	for (;;) {
		ssize_t size = recv(diag, answer, sizeof(answer), 0);
		if (size <= 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "asking about Unix sockets");
		for (struct nlmsghdr *at = (void *)answer; NLMSG_OK(at, size);
		     at = NLMSG_NEXT(at, size)) {
			if (at->nlmsg_type == NLMSG_DONE)
				return 0;
			if (at->nlmsg_type == NLMSG_ERROR) {
				const struct nlmsgerr *error = NLMSG_DATA(at);
				return ino ? 0 : fail(err, FSNAP_E_KERNEL_LACKS, -error->error,
						      "asking about Unix sockets (sock_diag)");
			}
			if (!take_message(slot, at))
				return no_memory(err);
		}
		if (ino)
			return 0;
	}
}

static int compare(const void *a, const void *b)
{
	const struct unix_facts *left = a, *right = b;
	if (left->about != right->about)
		return left->about < right->about ? -1 : 1;
	if (left->ino != right->ino)
		return left->ino < right->ino ? -1 : 1;
	return left->place < right->place ? -1 : left->place > right->place;
}

static int ask_sorted(void **slot, uint32_t ino, struct fsnap_error *err)
{
	int result = ask(slot, ino, err);
	struct unix_scratch *scratch = *slot;
	if (scratch)
		qsort(scratch->facts, scratch->n, sizeof(scratch->facts[0]), compare);
	return result;
}

static struct unix_facts *find(struct unix_scratch *scratch, enum unix_facts_about about, uint64_t ino)
{
	struct unix_facts key = {.about = about, .ino = (uint32_t)ino};
	return scratch && ino ? bsearch(&key, scratch->facts, scratch->n, sizeof(key), compare) : NULL;
}

struct unix_facts *unix_facts_of(void **slot, uint64_t ino, struct fsnap_error *err)
{
	if (!*slot && ask_sorted(slot, 0, err) < 0)
		return NULL;
	struct unix_facts *facts = find(*slot, UNIX_FACTS_SOCKET, ino);
	/* A long answer comes in parts, and sockets of others that vanish meanwhile may hide one. */
	if (!facts && ask_sorted(slot, (uint32_t)ino, err) == 0)
		facts = find(*slot, UNIX_FACTS_SOCKET, ino);
	if (!facts)
		fail(err, FSNAP_E_SYSTEM, 0, "the kernel does not know Unix socket %llu",
		     (unsigned long long)ino);
	return facts;
}

unsigned unix_saved_as(struct unix_scratch *scratch, uint64_t ino)
{
	const struct unix_facts *facts = find(scratch, UNIX_FACTS_SOCKET, ino);
	return facts ? facts->file : 0;
}

bool unix_has_sent(struct unix_scratch *scratch, uint64_t ino)
{
	const struct unix_facts *facts = find(scratch, UNIX_FACTS_SOCKET, ino);
	return facts && facts->sent;
}

uint32_t unix_waits_at(struct unix_scratch *scratch, uint64_t ino)
{
	const struct unix_facts *facts = find(scratch, UNIX_FACTS_WAITS, ino);
	return facts ? facts->peer : 0;
}

const struct unix_facts *unix_waiting(struct unix_scratch *scratch, uint64_t listener, size_t *n)
{
	const struct unix_facts *first = find(scratch, UNIX_FACTS_QUEUE, listener);
	*n = 0;
	while (first && first + *n < scratch->facts + scratch->n &&
	       first[*n].about == UNIX_FACTS_QUEUE && first[*n].ino == listener)
		++*n;
	return first;
}
