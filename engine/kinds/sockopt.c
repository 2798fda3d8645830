#include "engine/kinds/sockopt.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/kinds/values.h"
#include "store/scope.h"

/* Newer than the C library's headers. */
#define FSNAP_SO_BUF_LOCK 72
#define FSNAP_SO_PASSPIDFD 76
#define FSNAP_SO_PASSRIGHTS 83
#define FSNAP_SO_NETNS_COOKIE 71
#define FSNAP_UDP_SEGMENT 103
#define FSNAP_UDP_GRO 104
#define FSNAP_TCP_SAVE_SYN 27

enum { UNIX = 1, V4 = 2, V6 = 4, INET = V4 | V6, ANY = UNIX | INET };
enum { STREAM = 1, DGRAM = 2, BOTH = STREAM | DGRAM };

/* In the order in which they are set. */
static const struct row {
	int level, name;
	const char *text;
	unsigned char families, types, when;
} rows[] = {
#define ROW(level, name, families, types, when) \
	{level, name, #name, families, types, SOCKOPT_##when}
	ROW(SOL_SOCKET, SO_REUSEADDR, ANY, BOTH, EARLY),
	ROW(SOL_SOCKET, SO_REUSEPORT, INET, BOTH, EARLY),
	ROW(SOL_SOCKET, SO_BINDTODEVICE, INET, BOTH, EARLY),
	ROW(SOL_SOCKET, SO_MARK, INET, BOTH, EARLY),
	ROW(SOL_SOCKET, SO_BROADCAST, INET, DGRAM, EARLY),
	ROW(SOL_SOCKET, SO_DONTROUTE, INET, BOTH, EARLY),
	ROW(IPPROTO_IP, IP_FREEBIND, V4, BOTH, EARLY),
	ROW(IPPROTO_IP, IP_TRANSPARENT, V4, BOTH, EARLY),
	ROW(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, V4, BOTH, EARLY),
	ROW(IPPROTO_IPV6, IPV6_V6ONLY, V6, BOTH, EARLY),
	ROW(IPPROTO_IPV6, IPV6_FREEBIND, V6, BOTH, EARLY),
	ROW(IPPROTO_IPV6, IPV6_TRANSPARENT, V6, BOTH, EARLY),

	ROW(IPPROTO_IP, IP_TOS, V4, BOTH, LATE), /* sets SO_PRIORITY on the way */
	ROW(IPPROTO_IP, IP_TTL, V4, BOTH, LATE),
	ROW(IPPROTO_IP, IP_MTU_DISCOVER, V4, BOTH, LATE),
	ROW(IPPROTO_IP, IP_RECVERR, V4, DGRAM, LATE),
	ROW(IPPROTO_IP, IP_PKTINFO, V4, DGRAM, LATE),
	ROW(IPPROTO_IP, IP_RECVTTL, V4, DGRAM, LATE),
	ROW(IPPROTO_IP, IP_RECVTOS, V4, DGRAM, LATE),
	ROW(IPPROTO_IP, IP_MULTICAST_TTL, V4, DGRAM, LATE),
	ROW(IPPROTO_IP, IP_MULTICAST_LOOP, V4, DGRAM, LATE),
	ROW(IPPROTO_IP, IP_MULTICAST_ALL, V4, DGRAM, LATE),
	ROW(IPPROTO_IPV6, IPV6_UNICAST_HOPS, V6, BOTH, LATE),
	ROW(IPPROTO_IPV6, IPV6_TCLASS, V6, BOTH, LATE),
	ROW(IPPROTO_IPV6, IPV6_MTU_DISCOVER, V6, BOTH, LATE),
	ROW(IPPROTO_IPV6, IPV6_RECVERR, V6, DGRAM, LATE),
	ROW(IPPROTO_IPV6, IPV6_RECVPKTINFO, V6, DGRAM, LATE),
	ROW(IPPROTO_IPV6, IPV6_RECVHOPLIMIT, V6, DGRAM, LATE),
	ROW(IPPROTO_IPV6, IPV6_RECVTCLASS, V6, DGRAM, LATE),
	ROW(IPPROTO_IPV6, IPV6_MULTICAST_HOPS, V6, DGRAM, LATE),
	ROW(IPPROTO_IPV6, IPV6_MULTICAST_LOOP, V6, DGRAM, LATE),

	ROW(IPPROTO_TCP, TCP_CONGESTION, INET, STREAM, LATE),
	ROW(IPPROTO_TCP, TCP_NODELAY, INET, STREAM, LATE),
	ROW(IPPROTO_TCP, TCP_CORK, INET, STREAM, LATE),
	ROW(IPPROTO_TCP, TCP_KEEPIDLE, INET, STREAM, LATE),
	ROW(IPPROTO_TCP, TCP_KEEPINTVL, INET, STREAM, LATE),
	ROW(IPPROTO_TCP, TCP_KEEPCNT, INET, STREAM, LATE),
	ROW(IPPROTO_TCP, TCP_SYNCNT, INET, STREAM, LATE),
	ROW(IPPROTO_TCP, TCP_LINGER2, INET, STREAM, LATE),
	ROW(IPPROTO_TCP, TCP_DEFER_ACCEPT, INET, STREAM, LATE),
	ROW(IPPROTO_TCP, TCP_USER_TIMEOUT, INET, STREAM, LATE),
	ROW(IPPROTO_TCP, TCP_FASTOPEN, INET, STREAM, LATE),
	ROW(IPPROTO_TCP, TCP_NOTSENT_LOWAT, INET, STREAM, LATE),
	ROW(IPPROTO_TCP, FSNAP_TCP_SAVE_SYN, INET, STREAM, LATE),
	ROW(IPPROTO_UDP, FSNAP_UDP_SEGMENT, INET, DGRAM, LATE),
	ROW(IPPROTO_UDP, FSNAP_UDP_GRO, INET, DGRAM, LATE),

	ROW(SOL_SOCKET, SO_KEEPALIVE, ANY, BOTH, LATE),
	ROW(SOL_SOCKET, SO_OOBINLINE, ANY, BOTH, LATE),
	ROW(SOL_SOCKET, SO_LINGER, ANY, BOTH, LATE),
	ROW(SOL_SOCKET, SO_PRIORITY, ANY, BOTH, LATE),
	ROW(SOL_SOCKET, SO_SNDBUF, ANY, BOTH, LATE),
	ROW(SOL_SOCKET, SO_RCVBUF, ANY, BOTH, LATE),
	ROW(SOL_SOCKET, SO_RCVLOWAT, INET, BOTH, LATE),
	ROW(SOL_SOCKET, SO_RCVTIMEO, ANY, BOTH, LATE),
	ROW(SOL_SOCKET, SO_SNDTIMEO, ANY, BOTH, LATE),
	ROW(SOL_SOCKET, SO_TIMESTAMP, ANY, BOTH, LATE),
	ROW(SOL_SOCKET, SO_TIMESTAMPNS, ANY, BOTH, LATE),
	ROW(SOL_SOCKET, SO_TIMESTAMPING, INET, BOTH, LATE),
	ROW(SOL_SOCKET, SO_RXQ_OVFL, ANY, DGRAM, LATE),
	ROW(SOL_SOCKET, SO_NO_CHECK, INET, DGRAM, LATE),
	ROW(SOL_SOCKET, SO_ZEROCOPY, INET, BOTH, LATE),
	ROW(SOL_SOCKET, SO_BUSY_POLL, INET, BOTH, LATE),
	ROW(SOL_SOCKET, SO_PASSCRED, UNIX, BOTH, LATE),
	ROW(SOL_SOCKET, SO_PASSSEC, UNIX, BOTH, LATE),
	ROW(SOL_SOCKET, FSNAP_SO_PASSPIDFD, UNIX, BOTH, LATE),
	ROW(SOL_SOCKET, FSNAP_SO_PASSRIGHTS, UNIX, BOTH, LATE),
	ROW(SOL_SOCKET, SO_PEEK_OFF, ANY, BOTH, LATE),
	ROW(SOL_SOCKET, SO_ATTACH_FILTER, ANY, BOTH, LATE), /* last: nothing passes it in between */
#undef ROW
};
#define N_ROWS (sizeof(rows) / sizeof(*rows))
_Static_assert(N_ROWS <= SOCKOPT_ROWS, "raise SOCKOPT_ROWS");

static bool is(const struct row *row, int name)
{
	return row->level == SOL_SOCKET && row->name == name;
}

int socket_int(int fd, int name)
{
	int value;
	socklen_t size = sizeof(value);
	return getsockopt(fd, SOL_SOCKET, name, &value, &size) < 0 ? -1 : value;
}

/* --- dump --------------------------------------------------------------------- */

static void read_values(int fd, int family, int type, struct sockopt_value *values)
{
	unsigned families = family == AF_UNIX ? UNIX : family == AF_INET ? V4 : V6;
	unsigned types = type == SOCK_DGRAM ? DGRAM : STREAM;
	for (size_t i = 0; i < N_ROWS; i++) {
		const struct row *row = &rows[i];
		socklen_t size = sizeof(values[i].bytes);
		values[i].size = 0;
		if (is(row, SO_ATTACH_FILTER) || !(row->families & families) || !(row->types & types))
			continue;
		if (getsockopt(fd, row->level, row->name, values[i].bytes, &size) == 0)
			values[i].size = (unsigned char)size;
	}
}

static uint64_t network_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t size = sizeof(cookie);
	getsockopt(fd, SOL_SOCKET, FSNAP_SO_NETNS_COOKIE, &cookie, &size);
	return cookie;
}

static const struct sockopt_sort *fresh_socket(struct sockopt_defaults *defaults, int family,
					       int type, int protocol, struct fsnap_error *err)
{
	for (int i = 0; i < defaults->n; i++) {
		const struct sockopt_sort *sort = &defaults->sorts[i];
		if (sort->family == family && sort->type == type && sort->protocol == protocol)
			return sort;
	}
	cleanup_fd int fd = socket(family, type | SOCK_CLOEXEC, protocol);
	if (fd < 0) {
		fail(err, FSNAP_E_SYSTEM, errno, "socket of family %d", family);
		return NULL;
	}
	int room = (int)(sizeof(defaults->sorts) / sizeof(*defaults->sorts));
	struct sockopt_sort *sort = &defaults->sorts[defaults->n < room ? defaults->n++ : room - 1];
	sort->family = family;
	sort->type = type;
	sort->protocol = protocol;
	read_values(fd, family, type, sort->values);
	defaults->network = network_of(fd);
	return sort;
}

static int add_option(unsigned *len, image_sockopt **val, const struct row *row, const void *bytes,
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

/* A classic BPF program; the kernel counts in instructions. */
static int save_filter(const struct fd_view *fd, unsigned *len, image_sockopt **val,
		       struct fsnap_error *err)
{
	struct sock_filter code[IMAGE_NAME / sizeof(struct sock_filter)];
	socklen_t count = 0;
	bool foreign = getsockopt(fd->dup, SOL_SOCKET, SO_GET_FILTER, NULL, &count) < 0;
	if (!foreign && !count)
		return 0;
	if (foreign || count > IMAGE_NAME / sizeof(struct sock_filter) ||
	    getsockopt(fd->dup, SOL_SOCKET, SO_GET_FILTER, code, &count) < 0)
		return refuse_fd(fd, err, "Dump before the program attaches it.",
				 "a socket with an eBPF or very long filter");
	return add_option(len, val, &rows[N_ROWS - 1], code, count * sizeof(*code), err);
}

/* Buffers sized by the kernel go on being so; only what the program chose is kept. */
static bool kernel_chose(const struct row *row, int locks)
{
	return (is(row, SO_SNDBUF) && !(locks & 1)) || (is(row, SO_RCVBUF) && !(locks & 2));
}

int sockopts_save(const struct fd_view *fd, struct sockopt_defaults *defaults, unsigned *len,
		  image_sockopt **val, struct fsnap_error *err)
{
	int family = socket_int(fd->dup, SO_DOMAIN), type = socket_int(fd->dup, SO_TYPE);
	const struct sockopt_sort *fresh =
		fresh_socket(defaults, family, type, socket_int(fd->dup, SO_PROTOCOL), err);
	if (!fresh)
		return -1;
	if (network_of(fd->dup) != defaults->network)
		return refuse_fd(fd, err, "Run fsnap in the network namespace of the process "
					  "(nsenter -t PID -n).",
				 "a socket of another network namespace");
	struct sockopt_value values[N_ROWS];
	int locks = socket_int(fd->dup, FSNAP_SO_BUF_LOCK);
	read_values(fd->dup, family, type, values);
	for (size_t i = 0; i < N_ROWS; i++) {
		if (!values[i].size || kernel_chose(&rows[i], locks) ||
		    (values[i].size == fresh->values[i].size &&
		     !memcmp(values[i].bytes, fresh->values[i].bytes, values[i].size)))
			continue;
		if (add_option(len, val, &rows[i], values[i].bytes, values[i].size, err) < 0)
			return -1;
	}
	return save_filter(fd, len, val, err);
}

/* --- restore -------------------------------------------------------------------- */

static const struct row *find_row(const image_sockopt *option)
{
	for (size_t i = 0; i < N_ROWS; i++)
		if (rows[i].level == option->level && rows[i].name == option->name)
			return &rows[i];
	return NULL;
}

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

static int set_option(int fd, const struct row *row, const image_sockopt *option)
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
		const struct row *row = find_row(&val[i]);
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
