/*
 * test_kinds_socket.c - Unix, TCP and UDP sockets: what a program sees after they were saved and
 * made again.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "kinds_world.h"

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t size = sizeof(value);
	getsockopt(fd, level, name, &value, &size);
	return value;
}

static void set_option(int fd, int level, int name, int value)
{
	assert_int_equal(setsockopt(fd, level, name, &value, sizeof(value)), 0);
}

static void assert_receives(int fd, const char *expected)
{
	char seen[256] = "";
	ssize_t size = recv(fd, seen, sizeof(seen) - 1, MSG_DONTWAIT);
	seen[size < 0 ? 0 : size] = '\0';
	assert_string_equal(seen, expected);
}

static void assert_empty(int fd)
{
	char byte;
	assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL), strlen(text));
}

static struct sockaddr_un unix_name(const char *name, socklen_t *size)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (name[0] == '@') {
		memcpy(address.sun_path + 1, name + 1, strlen(name + 1));
		*size = (socklen_t)(sizeof(sa_family_t) + strlen(name));
	} else {
		strcpy(address.sun_path, name);
		*size = sizeof(address);
	}
	return address;
}

static int unix_socket(int type, const char *name)
{
	socklen_t size;
	int fd = socket(AF_UNIX, type, 0);
	struct sockaddr_un address = unix_name(name, &size);
	if (name[0])
		assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
	return fd;
}

static int dial(int fd, const char *name)
{
	socklen_t size;
	struct sockaddr_un address = unix_name(name, &size);
	return connect(fd, (struct sockaddr *)&address, size);
}

static const char *own_name(int fd)
{
	static struct sockaddr_un address;
	socklen_t size = sizeof(address);
	memset(&address, 0, sizeof(address));
	getsockname(fd, (struct sockaddr *)&address, &size);
	return address.sun_path[0] || size <= 2 ? address.sun_path : address.sun_path + 1;
}

static const char *peer_name(int fd)
{
	static struct sockaddr_un address;
	socklen_t size = sizeof(address);
	memset(&address, 0, sizeof(address));
	getpeername(fd, (struct sockaddr *)&address, &size);
	return address.sun_path[0] || size <= 2 ? address.sun_path : address.sun_path + 1;
}

/* --- Unix: pairs --------------------------------------------------------------------- */

static void stream_pair_keeps_both_queues(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	say(fds[0], "to one ");
	say(fds[0], "again");
	say(fds[1], "to zero");
	check(world_save(2, fds));
	assert_int_equal(option(fds[1], SOL_SOCKET, SO_PEEK_OFF), -1);
	assert_receives(fds[1], "to one again"); /* the original has lost nothing */
	world_close();
	check(world_make());
	assert_receives(fds[1], "to one again");
	assert_receives(fds[0], "to zero");
	assert_empty(fds[0]);
	assert_true(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
	say(fds[0], "more");
	assert_receives(fds[1], "more");
}

static void packets_keep_their_boundaries(void **state)
{
	(void)state;
	static const int types[] = {SOCK_DGRAM, SOCK_SEQPACKET};
	for (int i = 0; i < 2; i++) {
		int fds[2];
		assert_int_equal(socketpair(AF_UNIX, types[i], 0, fds), 0);
		say(fds[0], "one");
		assert_int_equal(send(fds[0], "", 0, 0), 0);
		say(fds[0], "three");
		world_round(2, fds);
		assert_receives(fds[1], "one");
		assert_receives(fds[1], "");
		assert_receives(fds[1], "three");
		assert_empty(fds[1]);
		world_teardown(NULL);
		world_setup(NULL);
	}
}

static void large_queue_fits_again(void **state)
{
	(void)state;
	int fds[2];
	size_t sent = 0, got = 0;
	static char block[30000];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	set_option(fds[0], SOL_SOCKET, SO_SNDBUF, 2000000);
	int before = option(fds[0], SOL_SOCKET, SO_SNDBUF);
	ssize_t size;
	while ((size = send(fds[0], block, sizeof(block), MSG_DONTWAIT)) > 0)
		sent += (size_t)size;
	world_round(2, fds);
	while ((size = recv(fds[1], block, sizeof(block), MSG_DONTWAIT)) > 0)
		got += (size_t)size;
	assert_int_equal(got, sent);
	assert_int_equal(option(fds[0], SOL_SOCKET, SO_SNDBUF), before);
}

static void half_closed_pair_stays_so(void **state)
{
	(void)state;
	int fds[2];
	char byte;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	say(fds[0], "last words");
	shutdown(fds[0], SHUT_WR);
	world_round(2, fds);
	assert_receives(fds[1], "last words");
	assert_int_equal(recv(fds[1], &byte, 1, MSG_DONTWAIT), 0);
	assert_int_equal(send(fds[0], "x", 1, MSG_NOSIGNAL), -1);
	say(fds[1], "answer");
	assert_receives(fds[0], "answer");
}

static void closed_peer_stays_closed(void **state)
{
	(void)state;
	int fds[2];
	char byte;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	say(fds[1], "farewell");
	close(fds[1]);
	world_round(1, fds);
	assert_receives(fds[0], "farewell");
	assert_int_equal(recv(fds[0], &byte, 1, MSG_DONTWAIT), 0);
	assert_int_equal(send(fds[0], "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
}

static void reset_is_told_once(void **state)
{
	(void)state;
	int fds[2];
	char byte;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	say(fds[0], "never read");
	close(fds[1]);
	check(world_save(1, fds));
	struct pollfd error = {.fd = fds[0]};
	poll(&error, 1, 0);
	assert_true(error.revents & POLLERR); /* the original still has it to tell */
	world_close();
	check(world_make());
	assert_int_equal(recv(fds[0], &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, ECONNRESET);
	assert_int_equal(recv(fds[0], &byte, 1, MSG_DONTWAIT), 0);
}

static void descriptors_under_way_are_refused(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec part = {"x", 1};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				 .msg_controllen = sizeof(control)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	*header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
				   .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(header), &fds[0], sizeof(int));
	assert_int_equal(sendmsg(fds[0], &message, 0), 1);
	assert_int_equal(world_save(2, fds), -1);
	assert_int_equal(world_error.code, FSNAP_E_UNSUPPORTED);
	assert_non_null(strstr(world_error.message, "under way"));
}

static void peer_outside_is_refused_or_stdio(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(world_save(1, fds), -1);
	assert_int_equal(world_error.code, FSNAP_E_UNSUPPORTED);
	world_teardown(NULL);
	close(fds[1]);
	world_setup(NULL);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	world.stdio[1] = fds[0];
	check(world_save(1, fds));
	assert_string_equal(world.files[0].file.kind, "stdio");
	assert_int_equal(world.files[0].state.stdio.number, 1);
	close(fds[1]);
}

/* --- Unix: names ------------------------------------------------------------------------ */

static void listener_accepts_again(void **state)
{
	(void)state;
	static const char *const names[] = {"@fsnap-kinds-listener", "/tmp/fsnap-kinds.sock"};
	for (int i = 0; i < 2; i++) {
		struct stat file;
		unlink(names[1]);
		int fd = unix_socket(SOCK_STREAM, names[i]);
		assert_int_equal(listen(fd, 7), 0);
		if (i)
			chmod(names[1], 0640);
		world_round(1, &fd); /* its file is left over in between, and gives way */
		int client = unix_socket(SOCK_STREAM, "");
		assert_int_equal(dial(client, names[i]), 0);
		int accepted = accept(fd, NULL, NULL);
		say(client, "hello");
		assert_receives(accepted, "hello");
		assert_string_equal(peer_name(client), names[i] + !i);
		if (i) {
			assert_int_equal(stat(names[1], &file), 0);
			assert_int_equal(file.st_mode & 07777, 0640);
		}
		close(client);
		close(accepted);
		world_teardown(NULL);
		world_setup(NULL);
	}
	unlink(names[1]);
}

static void address_of_a_living_socket_is_taken(void **state)
{
	(void)state;
	unlink("/tmp/fsnap-kinds.sock");
	int fd = unix_socket(SOCK_STREAM, "/tmp/fsnap-kinds.sock");
	listen(fd, 7);
	check(world_save(1, &fd)); /* and not closed */
	assert_int_equal(world_make(), -1);
	assert_int_equal(world_error.code, FSNAP_E_ADDRESS_TAKEN);
	assert_non_null(strstr(world_error.message, "/tmp/fsnap-kinds.sock"));
	unlink("/tmp/fsnap-kinds.sock");
}

static void accepted_connection_keeps_names(void **state)
{
	(void)state;
	static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET};
	for (int i = 0; i < 4; i++) { /* with the listener and without */
		unlink("/tmp/fsnap-kinds.sock");
		int listener = unix_socket(types[i % 2], "/tmp/fsnap-kinds.sock");
		listen(listener, 7);
		int client = unix_socket(types[i % 2], "@fsnap-kinds-client");
		assert_int_equal(dial(client, "/tmp/fsnap-kinds.sock"), 0);
		int accepted = accept(listener, NULL, NULL);
		say(client, "request");
		say(accepted, "reply");
		int fds[] = {accepted, client, listener};
		if (i >= 2)
			close(listener);
		world_round(i >= 2 ? 2 : 3, fds);
		assert_string_equal(world.notes, "");
		assert_string_equal(peer_name(client), "/tmp/fsnap-kinds.sock");
		assert_string_equal(own_name(accepted), "/tmp/fsnap-kinds.sock");
		assert_string_equal(peer_name(accepted), "fsnap-kinds-client");
		assert_receives(accepted, "request");
		assert_receives(client, "reply");
		assert_int_equal(access("/tmp/fsnap-kinds.sock", F_OK), 0);
		world_teardown(NULL);
		world_setup(NULL);
	}
	unlink("/tmp/fsnap-kinds.sock");
}

static void waiting_client_is_accepted_after(void **state)
{
	(void)state;
	int listener = unix_socket(SOCK_STREAM, "@fsnap-kinds-waiting");
	listen(listener, 7);
	int client = unix_socket(SOCK_STREAM, "");
	assert_int_equal(dial(client, "@fsnap-kinds-waiting"), 0);
	int fds[] = {client, listener};
	world_round(2, fds);
	int accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	assert_true(accepted >= 0);
	say(client, "at last");
	assert_receives(accepted, "at last");
	close(accepted);
}

static void relative_name_is_bound_where_it_was(void **state)
{
	(void)state;
	char directory[] = "/tmp/fsnap-kinds-XXXXXX", path[64];
	assert_non_null(mkdtemp(directory));
	assert_int_equal(chdir(directory), 0);
	int fd = unix_socket(SOCK_DGRAM, "here");
	check(world_save(1, &fd));
	assert_int_equal(chdir("/"), 0);
	world_close();
	check(world_make());
	assert_string_equal(own_name(fd), "here");
	int client = unix_socket(SOCK_DGRAM, "");
	snprintf(path, sizeof(path), "%s/here", directory);
	assert_int_equal(dial(client, path), 0);
	say(client, "found");
	assert_receives(fd, "found");
	close(client);
	unlink(path);
	rmdir(directory);
}

static void datagrams_keep_sender_and_order(void **state)
{
	(void)state;
	int server = unix_socket(SOCK_DGRAM, "@fsnap-kinds-server");
	int known = unix_socket(SOCK_DGRAM, "@fsnap-kinds-known"), unknown = unix_socket(SOCK_DGRAM, "");
	assert_int_equal(dial(known, "@fsnap-kinds-server"), 0);
	assert_int_equal(dial(unknown, "@fsnap-kinds-server"), 0);
	say(known, "one");
	say(unknown, "two");
	say(known, "three");
	int fds[] = {server, unknown, known};
	world_round(3, fds);
	char text[16] = "";
	struct sockaddr_un from;
	socklen_t size = sizeof(from);
	assert_int_equal(recvfrom(server, text, 16, 0, (struct sockaddr *)&from, &size), 3);
	assert_memory_equal(from.sun_path + 1, "fsnap-kinds-known", 17);
	assert_receives(server, "two");
	assert_receives(server, "three");
	say(unknown, "four");
	assert_receives(server, "four");
}

static void logger_reconnects_to_the_outside(void **state)
{
	(void)state;
	int outside = unix_socket(SOCK_DGRAM, "@fsnap-kinds-log"), fd = unix_socket(SOCK_DGRAM, "");
	assert_int_equal(dial(fd, "@fsnap-kinds-log"), 0);
	world_round(1, &fd);
	say(fd, "<3>alive");
	assert_receives(outside, "<3>alive");
	close(outside);
}

static void unix_options_come_back(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	set_option(fds[0], SOL_SOCKET, SO_PASSCRED, 1);
	set_option(fds[0], SOL_SOCKET, SO_RCVBUF, 50000);
	set_option(fds[1], SOL_SOCKET, SO_PEEK_OFF, 0);
	struct timeval patience = {.tv_sec = 3}, seen = {0};
	setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, 0xffff)};
	struct sock_fprog program = {.len = 1, .filter = code};
	assert_int_equal(setsockopt(fds[1], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), 0);
	say(fds[0], "peek");
	world_round(2, fds);
	assert_int_equal(option(fds[0], SOL_SOCKET, SO_PASSCRED), 1);
	assert_int_equal(option(fds[0], SOL_SOCKET, SO_RCVBUF), 100000);
	assert_int_equal(option(fds[1], SOL_SOCKET, SO_PEEK_OFF), 0);
	assert_int_equal(option(fds[1], SOL_SOCKET, SO_PASSCRED), 0);
	socklen_t size = sizeof(seen);
	getsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &seen, &size);
	assert_int_equal(seen.tv_sec, 3);
	size = 0;
	assert_int_equal(getsockopt(fds[1], SOL_SOCKET, SO_GET_FILTER, NULL, &size), 0);
	assert_int_equal(size, 1);
	assert_receives(fds[1], "peek");
}

/* --- TCP and UDP --------------------------------------------------------------------------- */

static int bound(int family, int type, struct sockaddr_storage *name)
{
	int fd = socket(family, type, 0);
	socklen_t size = sizeof(*name);
	memset(name, 0, sizeof(*name));
	name->ss_family = (sa_family_t)family;
	if (family == AF_INET6)
		((struct sockaddr_in6 *)name)->sin6_addr = in6addr_loopback;
	else
		((struct sockaddr_in *)name)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (family == AF_INET6 && bind(fd, (struct sockaddr *)name, sizeof(struct sockaddr_in6)) < 0) {
		close(fd);
		return -1;
	}
	if (family == AF_INET)
		assert_int_equal(bind(fd, (struct sockaddr *)name, sizeof(struct sockaddr_in)), 0);
	getsockname(fd, (struct sockaddr *)name, &size);
	return fd;
}

static int reach(int family, int type, const struct sockaddr_storage *name)
{
	int fd = socket(family, type, 0);
	socklen_t size = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	assert_int_equal(connect(fd, (const struct sockaddr *)name, size), 0);
	return fd;
}

static void tcp_listener(int family)
{
	struct sockaddr_storage name;
	int fd = bound(family, SOCK_STREAM, &name);
	if (fd < 0) {
		print_message("skipped: no IPv6 here\n");
		return;
	}
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 77);
	assert_int_equal(listen(fd, 9), 0);
	/* A connection of before, which stays behind in TIME_WAIT. */
	int client = reach(family, SOCK_STREAM, &name), accepted = accept(fd, NULL, NULL);
	close(accepted);
	close(client);
	world_round(1, &fd);
	struct tcp_info info;
	socklen_t size = sizeof(info);
	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
	assert_int_equal(info.tcpi_sacked, 9);
	assert_int_equal(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
	assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 77);
	assert_int_equal(option(fd, SOL_SOCKET, SO_REUSEADDR), 0);
	client = reach(family, SOCK_STREAM, &name);
	accepted = accept(fd, NULL, NULL);
	say(client, "hello");
	poll(&(struct pollfd){.fd = accepted, .events = POLLIN}, 1, 1000);
	assert_receives(accepted, "hello");
	close(client);
	close(accepted);
}

static void tcp_listener_accepts_again(void **state)
{
	(void)state;
	tcp_listener(AF_INET);
	world_teardown(NULL);
	world_setup(NULL);
	tcp_listener(AF_INET6);
}

static void tcp_address_may_be_taken(void **state)
{
	(void)state;
	struct sockaddr_storage name;
	int fd = bound(AF_INET, SOCK_STREAM, &name);
	listen(fd, 5);
	check(world_save(1, &fd)); /* and not closed */
	assert_int_equal(world_make(), -1);
	assert_int_equal(world_error.code, FSNAP_E_ADDRESS_TAKEN);
	assert_non_null(strstr(world_error.message, "TCP 127.0.0.1:"));
	assert_true(world_error.hint[0]);
}

static void connection_comes_back_reset(void **state)
{
	(void)state;
	struct sockaddr_storage name;
	char byte;
	int listener = bound(AF_INET, SOCK_STREAM, &name);
	listen(listener, 5);
	int fds[] = {reach(AF_INET, SOCK_STREAM, &name)}, outside = accept(listener, NULL, NULL);
	close(listener);
	say(outside, "lost");
	world_round(1, fds);
	close(outside);
	assert_non_null(strstr(world.notes, "1 TCP connection will come back as reset"));
	for (int i = 0; i < 1; i++) {
		struct pollfd event = {.fd = fds[i], .events = POLLIN};
		assert_int_equal(poll(&event, 1, 0), 1);
		assert_true(event.revents & POLLERR && event.revents & POLLIN);
		assert_int_equal(recv(fds[i], &byte, 1, MSG_DONTWAIT), -1);
		assert_int_equal(errno, ECONNRESET);
		assert_int_equal(recv(fds[i], &byte, 1, MSG_DONTWAIT), 0);
	}
}

static bool may_repair(void)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	bool may = setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &one, sizeof(one)) == 0;
	close(fd);
	return may;
}

/* Both families; data both ways; one end has said goodbye. */
static void connection_within_goes_on(void **state)
{
	(void)state;
	if (!may_repair()) {
		print_message("skipped: TCP_REPAIR needs CAP_NET_ADMIN\n");
		skip();
	}
	for (int i = 0; i < 2; i++) {
		int family = i ? AF_INET6 : AF_INET;
		struct sockaddr_storage name;
		char byte;
		int listener = bound(family, SOCK_STREAM, &name);
		listen(listener, 5);
		int fds[] = {reach(family, SOCK_STREAM, &name), accept(listener, NULL, NULL)};
		close(listener);
		say(fds[0], "there");
		say(fds[1], "and back");
		shutdown(fds[1], SHUT_WR);
		world_round(2, fds);
		assert_string_equal(world.notes, "");
		assert_receives(fds[1], "there");
		assert_receives(fds[0], "and back");
		assert_int_equal(recv(fds[0], &byte, 1, MSG_DONTWAIT), 0);
		say(fds[0], "more");
		poll(&(struct pollfd){.fd = fds[1], .events = POLLIN}, 1, 1000);
		assert_receives(fds[1], "more");
		shutdown(fds[0], SHUT_WR);
		poll(&(struct pollfd){.fd = fds[1], .events = POLLIN}, 1, 1000);
		assert_int_equal(recv(fds[1], &byte, 1, MSG_DONTWAIT), 0);
		world_teardown(NULL);
		world_setup(NULL);
	}
}

static void udp_keeps_address_and_peer(void **state)
{
	(void)state;
	struct sockaddr_storage name, own, now;
	int server = bound(AF_INET, SOCK_DGRAM, &name), client = reach(AF_INET, SOCK_DGRAM, &name);
	socklen_t size = sizeof(own);
	getsockname(client, (struct sockaddr *)&own, &size);
	set_option(client, SOL_SOCKET, SO_BROADCAST, 1);
	set_option(server, IPPROTO_IP, IP_PKTINFO, 1);
	int fresh = socket(AF_INET6, SOCK_STREAM, 0);
	set_option(fresh, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	int fds[] = {server, client, fresh};
	world_round(3, fds);
	size = sizeof(now);
	getsockname(client, (struct sockaddr *)&now, &size);
	assert_memory_equal(&own, &now, size);
	say(client, "ping");
	poll(&(struct pollfd){.fd = server, .events = POLLIN}, 1, 1000);
	assert_receives(server, "ping");
	assert_int_equal(option(client, SOL_SOCKET, SO_BROADCAST), 1);
	assert_int_equal(option(server, IPPROTO_IP, IP_PKTINFO), 1);
	assert_int_equal(option(fresh, IPPROTO_IPV6, IPV6_V6ONLY), 1);
}

static void fresh_socket_has_no_options(void **state)
{
	(void)state;
	int fds[] = {socket(AF_INET, SOCK_STREAM, 0), socket(AF_INET6, SOCK_DGRAM, 0),
		     socket(AF_UNIX, SOCK_SEQPACKET, 0)};
	check(world_save(3, fds));
	assert_int_equal(world.files[0].state.tcp.options.options_len, 0);
	assert_int_equal(world.files[1].state.inet.options.options_len, 0);
	assert_int_equal(world.files[2].state.unix_socket.options.options_len, 0);
}

static void raw_socket_is_refused(void **state)
{
	(void)state;
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	if (fd < 0) {
		print_message("skipped: raw sockets need CAP_NET_RAW\n");
		skip();
	}
	assert_int_equal(world_save(1, &fd), -1);
	assert_non_null(strstr(world_error.message, "raw IP socket"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_world(stream_pair_keeps_both_queues),
		in_world(packets_keep_their_boundaries),
		in_world(large_queue_fits_again),
		in_world(half_closed_pair_stays_so),
		in_world(closed_peer_stays_closed),
		in_world(reset_is_told_once),
		in_world(descriptors_under_way_are_refused),
		in_world(peer_outside_is_refused_or_stdio),
		in_world(listener_accepts_again),
		in_world(address_of_a_living_socket_is_taken),
		in_world(accepted_connection_keeps_names),
		in_world(waiting_client_is_accepted_after),
		in_world(relative_name_is_bound_where_it_was),
		in_world(datagrams_keep_sender_and_order),
		in_world(logger_reconnects_to_the_outside),
		in_world(unix_options_come_back),
		in_world(tcp_listener_accepts_again),
		in_world(tcp_address_may_be_taken),
		in_world(connection_comes_back_reset),
		in_world(connection_within_goes_on),
		in_world(udp_keeps_address_and_peer),
		in_world(fresh_socket_has_no_options),
		in_world(raw_socket_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
