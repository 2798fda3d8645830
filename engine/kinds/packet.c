/*
 * Packet sockets: frames as they pass an interface.
 *
 * They come back bound, with filters, groups and options, in their fanout group.
 * Frames not read yet are lost, and PACKET_STATISTICS counts anew.  A ring shared
 * with the kernel is refused: the kernel goes on in the middle of it, where no call
 * can put a new one.
 */
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/packet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/kinds/sockopt.h"
#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

#define FSNAP_SOL_PACKET 263
#define FANOUT_TYPE(value) ((value) >> 16 & 0xff)
#define FANOUT_UNIQUE (0x20u << 24) /* PACKET_FANOUT_FLAG_UNIQUEID: the number was chosen by the kernel */

static bool packet_matches(const struct fd_view *fd)
{
	if (fd->socket.domain != AF_PACKET)
		return false;
	int type = fd->socket.type;
	return type == SOCK_RAW || type == SOCK_DGRAM;
}

/* --- dump: what packet_diag says -------------------------------------------------- */

static int save_name(char **name, unsigned interface, const struct fd_view *fd, struct fsnap_error *err)
{
	char text[IF_NAMESIZE] = "";
	if (interface && !if_indextoname(interface, text))
		return refuse_fd(fd, err, "Close it before the dump.",
				 "a packet socket of an interface that is gone");
	free(*name);
	return set_string(name, text, err);
}

static int add_members(const struct fd_view *fd, const struct rtattr *list, image_file_packet *state,
		       struct fsnap_error *err)
{
	const struct packet_diag_mclist *members = RTA_DATA(list);
	for (size_t i = 0; i < RTA_PAYLOAD(list) / sizeof(*members); i++) {
		image_packet_member *member = append(state->members, members);
		size_t size = members[i].pdmc_alen < 32 ? members[i].pdmc_alen : 32;
		if (!member)
			return no_memory(err);
		member->type = members[i].pdmc_type;
		member->count = members[i].pdmc_count;
		if (save_name(&member->interface, members[i].pdmc_index, fd, err) < 0 ||
		    set_bytes(&member->address.address_len, &member->address.address_val, members[i].pdmc_addr,
			      size, err) < 0)
			return -1;
	}
	return 0;
}

static int take_answer(const struct fd_view *fd, const struct nlmsghdr *header, image_file_packet *state,
		       struct fsnap_error *err)
{
	const struct packet_diag_msg *message = NLMSG_DATA(header);
	int left = (int)(header->nlmsg_len - NLMSG_LENGTH(sizeof(*message)));
	for (const struct rtattr *at = (const void *)(message + 1); RTA_OK(at, left); at = RTA_NEXT(at, left)) {
		switch (at->rta_type) {
		case PACKET_DIAG_INFO:
			state->copy_thresh = ((const struct packet_diag_info *)RTA_DATA(at))->pdi_copy_thresh;
			break;
		case PACKET_DIAG_MCLIST:
			if (add_members(fd, at, state, err) < 0)
				return -1;
			break;
		case PACKET_DIAG_RX_RING:
		case PACKET_DIAG_TX_RING:
			return refuse_fd(fd, err, "Many programs have a setting against it (tcpdump: none; "
						  "libpcap: immediate mode).",
					 "a packet socket with a ring (PACKET_RX_RING) that it shares with the "
					 "kernel");
		}
	}
	return 0;
}

/* The kernel lists all packet sockets or none: there are few. */
static int ask(const struct fd_view *fd, image_file_packet *state, struct fsnap_error *err)
{
	struct {
		struct nlmsghdr header;
		struct packet_diag_req request;
	} question = {
		.header = {.nlmsg_len = sizeof(question), .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
		.request = {.sdiag_family = AF_PACKET, .pdiag_cookie = {~0u, ~0u},
			    .pdiag_show = PACKET_SHOW_INFO | PACKET_SHOW_MCLIST | PACKET_SHOW_RING_CFG},
	};
	_Alignas(struct nlmsghdr) char answer[32768];
	cleanup_fd int diag = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (diag < 0 || send(diag, &question, sizeof(question), 0) < 0)
		return fail(err, FSNAP_E_KERNEL_LACKS, errno, "asking about packet sockets (sock_diag)");
	for (;;) {
		ssize_t size = recv(diag, answer, sizeof(answer), 0);
		if (size <= 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "asking about packet sockets");
		for (struct nlmsghdr *at = (void *)answer; NLMSG_OK(at, size); at = NLMSG_NEXT(at, size)) {
			const struct packet_diag_msg *message = NLMSG_DATA(at);
			if (at->nlmsg_type == NLMSG_DONE || at->nlmsg_type == NLMSG_ERROR)
				return refuse_fd(fd, err, "The kernel needs CONFIG_PACKET_DIAG.",
						 "a packet socket about which this kernel tells nothing");
			if (message->pdiag_ino == fd->stat.st_ino)
				return take_answer(fd, at, state, err);
		}
	}
}

/* --- dump: one socket ------------------------------------------------------------------ */

static int save_fanout(const struct fd_view *fd, image_file_packet *state, struct fsnap_error *err)
{
	unsigned value = 0;
	socklen_t size = sizeof(value);
	getsockopt(fd->dup, FSNAP_SOL_PACKET, PACKET_FANOUT, &value, &size);
	state->fanout = value & ~FANOUT_UNIQUE;
	if (FANOUT_TYPE(value) == PACKET_FANOUT_CBPF || FANOUT_TYPE(value) == PACKET_FANOUT_EBPF)
		return refuse_fd(fd, err, "Close it before the dump.",
				 "a packet socket whose group is distributed by a program, which the kernel "
				 "does not show");
	return 0;
}

static int packet_save(const struct fd_view *fd, image_file *file, void *out, struct fsnap_error *err)
{
	(void)file;
	image_file_packet *state = out;
	struct sockaddr_ll own = {0};
	socklen_t size = sizeof(own);
	struct pollfd poll_fd = {.fd = fd->dup, .events = POLLIN};
	void **slot = dump_scratch(fd->dump, &kind_packet);
	if (!*slot && !(*slot = calloc(1, sizeof(struct sockopt_defaults))))
		return no_memory(err);
	if (getsockname(fd->dup, (struct sockaddr *)&own, &size) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "descriptor %d (%s)", fd->fd, fd->link);
	state->type = fd->socket.type;
	state->protocol = own.sll_protocol;
	if (sockopts_save(fd, *slot, &state->options.options_len, &state->options.options_val, err) < 0 ||
	    save_name(&state->interface, (unsigned)own.sll_ifindex, fd, err) < 0 ||
	    ask(fd, state, err) < 0)
		return -1;
	if (poll(&poll_fd, 1, 0) > 0)
		dump_note(fd->dump, "frames not read yet from packet sockets are not in the image");
	return save_fanout(fd, state, err);
}

/* --- restore -------------------------------------------------------------------- */

static int failed(const image_file *file, int sys, const char *step, struct fsnap_error *err)
{
	fail(err, sys == EPERM ? FSNAP_E_PERMISSION : FSNAP_E_RESTORE_STEP, sys, "file %u (%s): packet socket: %s",
	     file->id, file->label, step);
	if (sys == EPERM)
		error_hint(err, "Restore as root: packet sockets need CAP_NET_RAW.");
	if (sys == ENODEV)
		error_hint(err, "Its interface must be there, under its name.");
	return -1;
}

/* 0: none named; -1 with errno. */
static int index_of(const char *name)
{
	unsigned index = name[0] ? if_nametoindex(name) : 0;
	if (name[0] && !index)
		errno = ENODEV;
	return name[0] && !index ? -1 : (int)index;
}

static int add_groups(const image_file *file, const image_file_packet *state, int fd, struct fsnap_error *err)
{
	for (unsigned i = 0; i < state->members.members_len; i++) {
		const image_packet_member *member = &state->members.members_val[i];
		int index = index_of(member->interface);
		struct packet_mreq request = {.mr_type = (unsigned short)member->type};
		if (index < 0)
			return failed(file, errno, member->interface, err);
		request.mr_ifindex = index;
		request.mr_alen = (unsigned short)member->address.address_len;
		if (request.mr_alen > sizeof(request.mr_address))
			return failed(file, EINVAL, "a long address", err);
		if (request.mr_alen)
			memcpy(request.mr_address, member->address.address_val, request.mr_alen);
		for (unsigned n = 0; n < member->count; n++)
			if (setsockopt(fd, FSNAP_SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request, sizeof(request)) < 0)
				return failed(file, errno, "joining a group", err);
	}
	return 0;
}

static int packet_make(struct restore *restore, const image_file *file, const void *in, struct fsnap_error *err)
{
	(void)restore;
	const image_file_packet *state = in;
	struct sockaddr_ll own = {.sll_family = AF_PACKET, .sll_protocol = (unsigned short)state->protocol};
	/* Of no protocol it receives nothing before its filter is there. */
	cleanup_fd int fd = socket(AF_PACKET, state->type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return failed(file, errno, "socket", err);
	if (sockopts_apply(file, fd, state->options.options_len, state->options.options_val,
			   SOCKOPT_EARLY | SOCKOPT_LATE, err) < 0)
		return -1;
	if (state->copy_thresh && setsockopt(fd, FSNAP_SOL_PACKET, PACKET_COPY_THRESH, &state->copy_thresh,
					     sizeof(state->copy_thresh)) < 0)
		return failed(file, errno, "PACKET_COPY_THRESH", err);
	if ((own.sll_ifindex = index_of(state->interface)) < 0)
		return failed(file, errno, state->interface, err);
	if ((state->protocol || own.sll_ifindex) && bind(fd, (struct sockaddr *)&own, sizeof(own)) < 0)
		return failed(file, errno, "bind", err);
	if (state->fanout &&
	    setsockopt(fd, FSNAP_SOL_PACKET, PACKET_FANOUT, &state->fanout, sizeof(state->fanout)) < 0)
		return failed(file, errno, "joining its fanout group", err);
	return add_groups(file, state, fd, err) < 0 ? -1 : steal_fd(&fd);
}

const struct file_kind kind_packet = {
	.name = "packet",
	.keeps = "protocol, interface, filters, groups, fanout, options; frames not read yet are lost",
	.refuses = "rings shared with the kernel, fanout by program",
	.shown_by = "socket_packet",
	.xdr = (xdrproc_t)xdr_image_file_packet,
	.matches = packet_matches,
	.save = packet_save,
	.make = packet_make,
};
