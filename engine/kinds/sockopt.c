#include "engine/kinds/sockopt.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/kinds/maker.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

/* Newer than the C library's headers. */
#define FSNAP_SO_BUF_LOCK 72
#define FSNAP_SO_NETNS_COOKIE 71

static bool is(const struct sockopt_row *row, int name)
{
	return row->level == SOL_SOCKET && row->name == name;
}

int socket_int(int fd, int name)
{
	int value;
	socklen_t size = sizeof(value);
	return getsockopt(fd, SOL_SOCKET, name, &value, &size) < 0 ? -1 : value;
}

struct socket_sort socket_sort_of(int fd)
{
	int domain = fd < 0 ? -1 : socket_int(fd, SO_DOMAIN);
	if (domain < 0)
		return (struct socket_sort){ -1, -1, -1 };
	return (struct socket_sort){ domain, socket_int(fd, SO_TYPE), socket_int(fd, SO_PROTOCOL) };
}

/* --- dump --------------------------------------------------------------------- */

static unsigned family_bit(int family)
{
	switch (family) {
	case AF_UNIX:
		return SOCKOPT_UNIX;
	case AF_INET:
		return SOCKOPT_V4;
	case AF_INET6:
		return SOCKOPT_V6;
	case AF_NETLINK:
		return SOCKOPT_NETLINK;
	}
	return SOCKOPT_PACKET;
}

static unsigned type_bit(int type)
{
	return type == SOCK_DGRAM ? SOCKOPT_DGRAM : type == SOCK_RAW ? SOCKOPT_RAW : SOCKOPT_STREAM;
}

/* A protocol that would not know the option need not be asked for it. */
static bool has_level(int level, int protocol)
{
	switch (level) {
	case IPPROTO_TCP:
	case IPPROTO_UDPLITE:
	case IPPROTO_ICMPV6:
		return protocol == level;
	case IPPROTO_UDP:
		return protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE;
	}
	return true;
}

static void read_values(int fd, int family, int type, int protocol, struct sockopt_values *values)
{
	unsigned families = family_bit(family), types = type_bit(type), used = 0;
	for (unsigned i = 0; i < sockopt_count; i++) {
		const struct sockopt_row *row = &sockopt_rows[i];
		socklen_t size = row->room;
		values->size[i] = 0;
		values->at[i] = (unsigned short)used;
		if (is(row, SO_ATTACH_FILTER) || !(row->families & families) ||
		    !(row->types & types) || !has_level(row->level, protocol) ||
		    used + size > sizeof(values->pool))
			continue;
		if (getsockopt(fd, row->level, row->name, values->pool + used, &size) == 0) {
			values->size[i] = (unsigned short)size;
			used += size;
		}
	}
}

static bool is_fresh(const struct sockopt_values *values, const struct sockopt_values *fresh,
		     unsigned row)
{
	return values->size[row] == fresh->size[row] &&
	       !memcmp(values->pool + values->at[row], fresh->pool + fresh->at[row],
		       values->size[row]);
}

static uint64_t network_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t size = sizeof(cookie);
	getsockopt(fd, SOL_SOCKET, FSNAP_SO_NETNS_COOKIE, &cookie, &size);
	return cookie;
}

/* Some may only be made by members of a group (net.ipv4.ping_group_range), and we may be none. */
static int open_fresh(const struct fd_view *view, int family, int type, int protocol)
{
	int fd = socket(family, type | SOCK_CLOEXEC, protocol);
	if (fd >= 0 || errno != EACCES)
		return fd;
	image_maker maker = {0};
	struct fsnap_error ignored = {0};
	if (maker_of(view, &maker, &ignored) == 0)
		fd = socket_as(&maker, family, type, protocol);
	free(maker.groups.groups_val);
	return fd;
}

static const struct sockopt_sort *fresh_socket(const struct fd_view *view, struct sockopt_defaults *defaults,
					       int family, int type, int protocol, struct fsnap_error *err)
{
	for (int i = 0; i < defaults->n; i++) {
		const struct sockopt_sort *sort = &defaults->sorts[i];
		if (sort->family == family && sort->type == type && sort->protocol == protocol)
			return sort;
	}
	cleanup_fd int fd = open_fresh(view, family, type, protocol);
	if (fd < 0) {
		fail(err, FSNAP_E_SYSTEM, errno, "socket of family %d", family);
		return NULL;
	}
	int room = (int)(sizeof(defaults->sorts) / sizeof(*defaults->sorts));
	struct sockopt_sort *sort = &defaults->sorts[defaults->n < room ? defaults->n++ : room - 1];
	sort->family = family;
	sort->type = type;
	sort->protocol = protocol;
	read_values(fd, family, type, protocol, &sort->values);
	defaults->network = network_of(fd);
	return sort;
}

static int add_option(unsigned *len, image_sockopt **val, const struct sockopt_row *row, const void *bytes,
		      size_t size, struct fsnap_error *err)
{
	image_sockopt *moved = realloc(*val, (*len + 1) * sizeof(**val));
	if (!moved)
		return no_memory(err);
	*val = moved;
	image_sockopt *option = &moved[*len];
	*option = (image_sockopt){.level = row->level, .name = row->name};
	++*len;
	return set_bytes(&option->value.value_len, &option->value.value_val, bytes, size, err);
}

static const struct sockopt_row *row_of(int level, int name)
{
	for (unsigned i = 0; i < sockopt_count; i++)
		if (sockopt_rows[i].level == level && sockopt_rows[i].name == name)
			return &sockopt_rows[i];
	return NULL;
}

/* A classic BPF program; the kernel counts in instructions. */
static int save_filter(const struct fd_view *fd, unsigned *len, image_sockopt **val,
		       struct fsnap_error *err)
{
	cleanup_free struct sock_filter *code = NULL;
	socklen_t count = 0;
	bool foreign = getsockopt(fd->dup, SOL_SOCKET, SO_GET_FILTER, NULL, &count) < 0;
	if (!foreign && !count)
		return 0;
	/* sk_get_filter() in net/core/filter.c: EACCES where there is no classic program to give. */
	if (foreign)
		return refuse_fd(fd, err, "Dump before the program attaches it: the kernel gives "
					  "out classic filters only.",
				 "a socket with an eBPF filter");
	if (!(code = calloc(count, sizeof(*code))))
		return no_memory(err);
	if (getsockopt(fd->dup, SOL_SOCKET, SO_GET_FILTER, code, &count) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "descriptor %d (%s): its filter", fd->fd, fd->link);
	return add_option(len, val, row_of(SOL_SOCKET, SO_ATTACH_FILTER), code, count * sizeof(*code), err);
}

/* Buffers sized by the kernel go on being so; only what the program chose is kept. */
static bool kernel_chose(const struct sockopt_row *row, int locks)
{
	return (is(row, SO_SNDBUF) && !(locks & 1)) || (is(row, SO_RCVBUF) && !(locks & 2));
}

static int refuse_network(const struct fd_view *fd, struct fsnap_error *err)
{
	return refuse_fd(fd, err, "Run fsnap in the network namespace of the process "
				  "(nsenter -t PID -n); one tree may have sockets of one only.",
			 "a socket of another network namespace");
}

int sockopts_save(const struct fd_view *fd, struct sockopt_defaults *defaults, unsigned *len,
		  image_sockopt **val, struct fsnap_error *err)
{
	int family = fd->socket.domain, type = fd->socket.type, protocol = fd->socket.protocol;
	const struct sockopt_sort *sort = fresh_socket(fd, defaults, family, type, protocol, err);
	if (!sort)
		return -1;
	if (network_of(fd->dup) != defaults->network)
		return refuse_network(fd, err);
	struct sockopt_values values;
	int locks = socket_int(fd->dup, FSNAP_SO_BUF_LOCK);
	bool toned = false; /* setting IP_TOS chooses a priority */
	read_values(fd->dup, family, type, protocol, &values);
	for (unsigned i = 0; i < sockopt_count; i++) {
		const struct sockopt_row *row = &sockopt_rows[i];
		if (is(row, SO_ATTACH_FILTER) && save_filter(fd, len, val, err) < 0)
			return -1;
		bool fresh = is_fresh(&values, &sort->values, i);
		toned |= !fresh && row->level == IPPROTO_IP && row->name == IP_TOS;
		if (!values.size[i] || kernel_chose(row, locks) ||
		    (fresh && !(toned && is(row, SO_PRIORITY))))
			continue;
		if (add_option(len, val, row, values.pool + values.at[i], values.size[i], err) < 0)
			return -1;
	}
	return 0;
}

/* --- restore -------------------------------------------------------------------- */

/* The kernel doubles what is set and tells the double. Beyond the system's limit only root may. */
static int set_buffer(int fd, int name, const image_sockopt *option)
{
	int value, force = name == SO_SNDBUF ? SO_SNDBUFFORCE : SO_RCVBUFFORCE;
	memcpy(&value, option->value.value_val, sizeof(value));
	value /= 2;
	if (setsockopt(fd, SOL_SOCKET, force, &value, sizeof(value)) == 0)
		return 0;
	return setsockopt(fd, SOL_SOCKET, name, &value, sizeof(value));
}

static int set_option(int fd, const struct sockopt_row *row, const image_sockopt *option)
{
	if (is(row, SO_SNDBUF) || is(row, SO_RCVBUF)) {
		if (option->value.value_len == sizeof(int))
			return set_buffer(fd, row->name, option);
		errno = EINVAL;
		return -1;
	}
	if (is(row, SO_ATTACH_FILTER)) {
		struct sock_fprog program = {
			.len = (unsigned short)(option->value.value_len / sizeof(struct sock_filter)),
			.filter = (struct sock_filter *)option->value.value_val,
		};
		return setsockopt(fd, row->level, row->name, &program, sizeof(program));
	}
	return setsockopt(fd, row->level, row->name, option->value.value_val,
			  option->value.value_len);
}

int sockopts_apply(const image_file *file, int fd, unsigned len, const image_sockopt *val,
		   unsigned when, struct fsnap_error *err)
{
	for (unsigned i = 0; i < len; i++) {
		const struct sockopt_row *row = row_of(val[i].level, val[i].name);
		if (!row)
			return fail(err, FSNAP_E_IMAGE_FORMAT, 0,
				    "file %u (%s): socket option %d of level %d is not known",
				    file->id, file->label, val[i].name, val[i].level);
		if (!(row->when & when) || set_option(fd, row, &val[i]) == 0)
			continue;
		int sys = errno;
		fail(err, sys == EPERM ? FSNAP_E_PERMISSION : FSNAP_E_RESTORE_STEP, sys,
		     "file %u (%s): socket option %s", file->id, file->label, row->text);
		return sys == EPERM ? error_hint(err, "Restore as root: the option needs a "
						      "capability.") :
				      -1;
	}
	return 0;
}
