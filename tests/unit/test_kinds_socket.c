/*
 * test_kinds_socket.c - TCP and UDP sockets: what a program sees after they were saved and made
 * again.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>

#include "socket_world.h"

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

/* By MSG_MORE, which no option shows, and by UDP_CORK; what was sent is sent. */
static void datagram_held_back_is_kept(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		struct sockaddr_storage name;
		char seen[16] = "";
		int receiver = bound(AF_INET, SOCK_DGRAM, &name), fd = reach(AF_INET, SOCK_DGRAM, &name);
		if (i == 2)
			set_option(fd, IPPROTO_UDP, 1 /* UDP_CORK */, 1);
		assert_int_equal(send(fd, "half", 4, i == 1 ? MSG_MORE : 0), 4);
		world_round(1, &fd);
		assert_string_equal(world.notes, "");
		assert_int_equal(recv(receiver, seen, sizeof(seen), MSG_DONTWAIT), i ? -1 : 4);
		if (i == 2)
			set_option(fd, IPPROTO_UDP, 1, 0);
		else
			assert_int_equal(send(fd, "all", 3, 0), 3);
		assert_int_equal(recv(receiver, seen, sizeof(seen), MSG_DONTWAIT), i == 0 ? 3 : i == 1 ? 7 : 4);
		close(receiver);
		world_teardown(NULL);
		world_setup(NULL);
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

static void raw_socket_comes_back(void **state)
{
	(void)state;
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	if (fd < 0) {
		print_message("skipped: raw sockets need CAP_NET_RAW\n");
		skip();
	}
	set_option(fd, IPPROTO_IP, IP_HDRINCL, 1);
	world_round(1, &fd);
	assert_int_equal(option(fd, SOL_SOCKET, SO_TYPE), SOCK_RAW);
	assert_int_equal(option(fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_ICMP);
	assert_int_equal(option(fd, IPPROTO_IP, IP_HDRINCL), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_world(tcp_listener_accepts_again),
		in_world(tcp_address_may_be_taken),
		in_world(connection_comes_back_reset),
		in_world(datagram_held_back_is_kept),
		in_world(connection_within_goes_on),
		in_world(udp_keeps_address_and_peer),
		in_world(fresh_socket_has_no_options),
		in_world(raw_socket_comes_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
