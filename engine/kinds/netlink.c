/*
 * Netlink: sockets that ask the kernel, or are told by it.
 *
 * They come back with their port, their groups and options.  Messages that wait
 * cannot be put back, for only the kernel may send in its own name: a notice of
 * an event is lost, as it is when a queue overflows; an answer that the program
 * waits for is a reason to refuse, and so is a dump under way, whose place only the
 * kernel knows.
 */
#include <linux/audit.h>
#include <linux/netlink.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "engine/kinds/sockopt.h"
#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "engine/tree.h"
#include "store/scope.h"

#define FSNAP_SOL_NETLINK 270
#define MAX_GROUPS 8192

struct netlink_facts {
	uint64_t ino;
	unsigned received; /* bytes that wait */
	unsigned dumping;
};

struct netlink_scratch {
	struct sockopt_defaults defaults;
	struct netlink_facts *facts; /* by ino; NULL: not read yet */
	size_t n;
};

static bool netlink_matches(const struct fd_view *fd)
{
	return fd->socket.domain == AF_NETLINK;
}

/* --- dump: what /proc/net/netlink says ---------------------------------------- */

static int by_ino(const void *a, const void *b)
{
	const struct netlink_facts *left = a, *right = b;
	return left->ino < right->ino ? -1 : left->ino > right->ino;
}

/* "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode" */
static int read_facts(struct netlink_scratch *scratch, struct fsnap_error *err)
{
	cleanup_file FILE *in = fopen("/proc/self/net/netlink", "re");
	char line[256];
	size_t room = 64;
	scratch->facts = malloc(room * sizeof(*scratch->facts));
	while (in && scratch->facts && fgets(line, sizeof(line), in)) {
		struct netlink_facts facts;
		unsigned long ino;
		if (sscanf(line, "%*s %*d %*u %*x %u %*u %u %*d %*u %lu", &facts.received, &facts.dumping, &ino) != 3)
			continue;
		facts.ino = ino;
		if (scratch->n == room) {
			struct netlink_facts *moved = realloc(scratch->facts, 2 * room * sizeof(*moved));
			if (!moved)
				return no_memory(err);
			scratch->facts = moved;
			room *= 2;
		}
		scratch->facts[scratch->n++] = facts;
	}
	if (!scratch->facts)
		return no_memory(err);
	qsort(scratch->facts, scratch->n, sizeof(*scratch->facts), by_ino);
	return 0;
}

static struct netlink_scratch *scratch_of(const struct fd_view *fd, struct fsnap_error *err)
{
	void **slot = dump_scratch(fd->dump, &kind_netlink);
	if (!*slot && !(*slot = calloc(1, sizeof(struct netlink_scratch))))
		no_memory(err);
	struct netlink_scratch *scratch = *slot;
	return !scratch || (!scratch->facts && read_facts(scratch, err) < 0) ? NULL : scratch;
}

static void netlink_dump_end(void *scratch)
{
	free(((struct netlink_scratch *)scratch)->facts);
}

/* --- dump: the audit daemon ---------------------------------------------------- */

/* The initial PID namespace has this number in every kernel (PROC_PID_INIT_INO, linux/proc_ns.h). */
#define FSNAP_INITIAL_PID_NAMESPACE 0xEFFFFFFCu

/* Only from there may somebody become the audit daemon, or ask who it is (audit_netlink_ok()). */
static bool may_have_audit_daemon(void)
{
	struct stat st;
	return stat("/proc/self/ns/pid", &st) < 0 || st.st_ino == FSNAP_INITIAL_PID_NAMESPACE;
}

/* The process that has told the kernel it is the audit daemon; 0: nobody; -1: we may not know. */
static pid_t audit_daemon(void)
{
	if (!may_have_audit_daemon())
		return 0;
	cleanup_fd int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT);
	struct nlmsghdr question = {.nlmsg_len = sizeof(question), .nlmsg_type = AUDIT_GET,
				    .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = 1};
	struct {
		struct nlmsghdr header;
		struct audit_status status;
	} answer = {0};
	if (fd < 0 || send(fd, &question, sizeof(question), 0) < 0)
		return -1;
	/* It is there when send(2) returns, or soon: a thread of the kernel sends it on some kernels. */
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_usec = 100000}, sizeof(struct timeval));
	if (recv(fd, &answer, sizeof(answer), 0) < (ssize_t)(sizeof(answer.header) + offsetof(struct audit_status, rate_limit)) ||
	    answer.header.nlmsg_type != AUDIT_GET)
		return -1;
	return (pid_t)answer.status.pid;
}

/*
 * Whoever writes to the audit log (login, sshd, sudo, dbus-daemon) has such a socket, too.
 * That of the daemon is registered under its number (AUDIT_SET), and by no other call.
 */
static int check_audit(const struct fd_view *fd, struct fsnap_error *err)
{
	pid_t daemon = audit_daemon();
	if (daemon < 0)
		return refuse_fd(fd, err, "Dump as root: this needs CAP_AUDIT_CONTROL.",
				 "a netlink socket of the audit system, perhaps that of its daemon");
	if (daemon && tree_find(dump_tree(fd->dump), daemon))
		return refuse_fd(fd, err, "Keep the audit daemon outside the tree.",
				 "a netlink socket of the audit daemon, which the kernel knows by its number");
	return 0;
}

/* --- dump: one socket ---------------------------------------------------------- */

/* Who subscribes by sending a message is known to that subsystem only. */
static int check_protocol(const struct fd_view *fd, int protocol, struct fsnap_error *err)
{
	static const char hint[] = "Close it before the dump, or keep the process that needs it outside the tree.";
	switch (protocol) {
	case NETLINK_AUDIT:
		return check_audit(fd, err);
	case NETLINK_CONNECTOR:
		return refuse_fd(fd, err, hint, "a netlink socket of the connector, whose subscriptions the "
						"kernel does not show");
	}
	return 0;
}

/* "queue_number peer_portid ...": /proc/net/netfilter/nfnetlink_queue; _log is the same. */
static bool is_bound_in(const char *path, unsigned port)
{
	cleanup_file FILE *in = fopen(path, "re");
	char line[256];
	unsigned owner;
	while (in && fgets(line, sizeof(line), in))
		if (sscanf(line, "%*u %u", &owner) == 1 && owner == port)
			return true;
	return false;
}

static int check_netfilter(const struct fd_view *fd, const image_file_netlink *state, struct fsnap_error *err)
{
	if (state->protocol == NETLINK_NETFILTER && state->port &&
	    (is_bound_in("/proc/self/net/netfilter/nfnetlink_queue", state->port) ||
	     is_bound_in("/proc/self/net/netfilter/nfnetlink_log", state->port)))
		return refuse_fd(fd, err, "Keep the process that filters packets outside the tree.",
				 "a netlink socket that takes packets from netfilter");
	return 0;
}

/* What waits at the front: an answer has the receiver's port and the number of its question. */
static bool is_answer(int fd, unsigned port)
{
	struct nlmsghdr header = {0};
	if (recv(fd, &header, sizeof(header), MSG_PEEK | MSG_DONTWAIT) < (ssize_t)sizeof(header))
		return false;
	return header.nlmsg_type == NLMSG_ERROR || header.nlmsg_type == NLMSG_DONE ||
	       (header.nlmsg_flags & NLM_F_MULTI) || (header.nlmsg_pid && header.nlmsg_pid == port && header.nlmsg_seq);
}

static int check_queue(const struct fd_view *fd, const struct netlink_scratch *scratch,
		       const image_file_netlink *state, struct fsnap_error *err)
{
	struct netlink_facts key = {.ino = fd->stat.st_ino};
	const struct netlink_facts *facts = bsearch(&key, scratch->facts, scratch->n, sizeof(key), by_ino);
	static const char hint[] = "Dump again in a moment, when the program has read the answer.";
	if (facts && facts->dumping)
		return refuse_fd(fd, err, hint, "a netlink socket in the middle of a long answer");
	if (!facts || !facts->received)
		return 0;
	if (is_answer(fd->dup, state->port))
		return refuse_fd(fd, err, hint, "a netlink socket with an answer that is not read yet");
	dump_note(fd->dump, "notices not read yet from netlink sockets are not in the image");
	return 0;
}

static int save_members(const struct fd_view *fd, image_file_netlink *state, struct fsnap_error *err)
{
	uint32_t bits[MAX_GROUPS / 32] = {0};
	socklen_t size = sizeof(bits);
	if (getsockopt(fd->dup, FSNAP_SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, bits, &size) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "descriptor %d (%s): its groups", fd->fd, fd->link);
	for (unsigned group = 1; group <= 8 * size && group <= MAX_GROUPS; group++) {
		if (!(bits[(group - 1) / 32] & 1u << (group - 1) % 32))
			continue;
		unsigned *member = append(state->members, members);
		if (!member)
			return no_memory(err);
		*member = group;
	}
	return 0;
}

static int netlink_save(const struct fd_view *fd, image_file *file, void *out, struct fsnap_error *err)
{
	(void)file;
	image_file_netlink *state = out;
	struct sockaddr_nl own = {0}, peer = {0};
	socklen_t own_size = sizeof(own), peer_size = sizeof(peer);
	struct netlink_scratch *scratch = scratch_of(fd, err);
	if (!scratch)
		return -1;
	if (getsockname(fd->dup, (struct sockaddr *)&own, &own_size) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "descriptor %d (%s)", fd->fd, fd->link);
	if (getpeername(fd->dup, (struct sockaddr *)&peer, &peer_size) == 0) {
		state->peer_port = peer.nl_pid;
		state->peer_groups = peer.nl_groups;
	}
	state->type = fd->socket.type;
	state->protocol = fd->socket.protocol;
	state->port = own.nl_pid;
	if (check_protocol(fd, state->protocol, err) < 0 || check_netfilter(fd, state, err) < 0 ||
	    check_queue(fd, scratch, state, err) < 0 || save_members(fd, state, err) < 0)
		return -1;
	return sockopts_save(fd, &scratch->defaults, &state->options.options_len, &state->options.options_val,
			     err);
}

/* --- restore -------------------------------------------------------------------- */

static int failed(const image_file *file, int sys, const char *step, struct fsnap_error *err)
{
	fail(err, sys == EPERM ? FSNAP_E_PERMISSION : FSNAP_E_RESTORE_STEP, sys, "file %u (%s): netlink: %s",
	     file->id, file->label, step);
	return sys == EPERM ? error_hint(err, "Restore as root: this needs CAP_NET_ADMIN.") : -1;
}

static int bind_port(const image_file *file, const image_file_netlink *state, int fd, struct fsnap_error *err)
{
	struct sockaddr_nl own = {.nl_family = AF_NETLINK, .nl_pid = state->port};
	if (!state->port || bind(fd, (struct sockaddr *)&own, sizeof(own)) == 0)
		return 0;
	if (errno != EADDRINUSE)
		return failed(file, errno, "bind", err);
	fail(err, FSNAP_E_ADDRESS_TAKEN, 0, "netlink port %u (protocol %d) is in use", state->port, state->protocol);
	return error_hint(err, "Perhaps the process that was saved still runs; /proc/net/netlink shows who has it.");
}

static int netlink_make(struct restore *restore, const image_file *file, const void *in, struct fsnap_error *err)
{
	(void)restore;
	const image_file_netlink *state = in;
	const image_sockopt *options = state->options.options_val;
	unsigned n = state->options.options_len;
	cleanup_fd int fd = socket(AF_NETLINK, state->type | SOCK_CLOEXEC, state->protocol);
	if (fd < 0)
		return failed(file, errno, "socket", err);
	/* A filter is there before anything can arrive. */
	if (sockopts_apply(file, fd, n, options, SOCKOPT_EARLY | SOCKOPT_LATE, err) < 0 ||
	    bind_port(file, state, fd, err) < 0)
		return -1;
	struct sockaddr_nl peer = {.nl_family = AF_NETLINK, .nl_pid = state->peer_port,
				   .nl_groups = state->peer_groups};
	if ((state->peer_port || state->peer_groups) && connect(fd, (struct sockaddr *)&peer, sizeof(peer)) < 0)
		return failed(file, errno, "connect", err);
	for (unsigned i = 0; i < state->members.members_len; i++) {
		int group = (int)state->members.members_val[i];
		if (setsockopt(fd, FSNAP_SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
			return failed(file, errno, "joining a group", err);
	}
	return steal_fd(&fd);
}

const struct file_kind kind_netlink = {
	.name = "netlink",
	.keeps = "port, groups, filters, options; notices not read yet are lost",
	.refuses = "an answer not read yet, a long answer under way, the audit daemon's, connector, packets of netfilter",
	.shown_by = "socket_netlink",
	.xdr = (xdrproc_t)xdr_image_file_netlink,
	.matches = netlink_matches,
	.save = netlink_save,
	.make = netlink_make,
	.dump_end = netlink_dump_end,
};
