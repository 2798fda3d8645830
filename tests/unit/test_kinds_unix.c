/*
 * test_kinds_unix.c - Unix sockets: what a program sees after they were saved and made again.
 */
#include <linux/filter.h>
#include <linux/sockios.h>
#include <sys/eventfd.h>
#include <sys/un.h>

#include "socket_world.h"

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

static void send_rights(int fd, const char *text, unsigned n, const int *rights)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = {0};
	struct iovec part = {(char *)text, strlen(text)};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				 .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	*header = (struct cmsghdr){.cmsg_len = CMSG_LEN(n * sizeof(int)), .cmsg_level = SOL_SOCKET,
				   .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(header), rights, n * sizeof(int));
	assert_int_equal(sendmsg(fd, &message, MSG_DONTWAIT), strlen(text));
}

/* Receives what there is; *credentials may be NULL. Returns the bytes, sets *n to the descriptors. */
static ssize_t receive(int fd, char *text, size_t size, unsigned *n, int *rights, struct ucred *credentials)
{
	_Alignas(struct cmsghdr) char control[512];
	struct iovec part = {text, size - 1};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				 .msg_controllen = sizeof(control)};
	ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	text[got < 0 ? 0 : got] = '\0';
	*n = 0;
	for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); got >= 0 && at; at = CMSG_NXTHDR(&message, at)) {
		if (at->cmsg_type == SCM_RIGHTS) {
			*n = (unsigned)((at->cmsg_len - CMSG_LEN(0)) / sizeof(int));
			memcpy(rights, CMSG_DATA(at), *n * sizeof(int));
		} else if (at->cmsg_type == SCM_CREDENTIALS && credentials) {
			memcpy(credentials, CMSG_DATA(at), sizeof(*credentials));
		}
	}
	return got;
}

static bool same_file(int a, int b)
{
	return syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, a, b) == 0;
}

static void descriptors_under_way_arrive(void **state)
{
	(void)state;
	int fds[3], ends[2], rights[4], known;
	unsigned n;
	char text[32];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	known = fds[2] = eventfd(7, EFD_NONBLOCK);
	assert_int_equal(pipe(ends), 0);
	say(fds[0], "before");
	send_rights(fds[0], "with", 2, (int[]){known, ends[0]});
	say(fds[0], "after");
	close(ends[0]); /* from now on only the message has it */
	assert_int_equal(write(ends[1], "deep", 4), 4);
	int all[] = {fds[0], fds[1], known, ends[1]};
	check(world_save(4, all));
	assert_int_equal(world.n, 5);
	assert_int_equal(option(fds[1], SOL_SOCKET, SO_PASSCRED), 0);
	world_close();
	check(world_make());
	/* As the kernel does it: bytes before the message come without its descriptors. */
	assert_int_equal(receive(fds[1], text, 7, &n, rights, NULL), 6);
	assert_int_equal(n, 0);
	assert_int_equal(receive(fds[1], text, sizeof(text), &n, rights, NULL), 4);
	assert_string_equal(text, "with");
	assert_int_equal(n, 2);
	assert_true(same_file(rights[0], known));
	assert_int_equal(read(rights[1], text, sizeof(text)), 4);
	assert_memory_equal(text, "deep", 4);
	assert_receives(fds[1], "after");
}

static void descriptors_under_way_may_be_a_cycle(void **state)
{
	(void)state;
	int fds[2], inner[2], rights[4];
	unsigned n;
	char text[32];
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, inner), 0);
	/* In its own queue; and a socket in flight whose own queue holds the first. */
	send_rights(fds[0], "self", 1, &fds[1]);
	send_rights(inner[0], "outer", 1, &fds[0]);
	send_rights(fds[0], "nested", 2, inner);
	close(inner[0]);
	close(inner[1]);
	world_round(2, fds);
	assert_int_equal(receive(fds[1], text, sizeof(text), &n, rights, NULL), 4);
	assert_int_equal(n, 1);
	assert_true(same_file(rights[0], fds[1]));
	assert_int_equal(receive(fds[1], text, sizeof(text), &n, rights, NULL), 6);
	assert_int_equal(n, 2);
	assert_int_equal(receive(rights[1], text, sizeof(text), &n, rights + 2, NULL), 5);
	assert_string_equal(text, "outer");
	assert_true(same_file(rights[2], fds[0]));
	say(rights[0], "alive");
	assert_receives(rights[1], "alive");
}

static void messages_keep_their_credentials(void **state)
{
	(void)state;
	int fds[2], rights[4], on = 1;
	unsigned n;
	char text[32];
	struct ucred seen = {0};
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	say(fds[0], "nobody");
	setsockopt(fds[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	say(fds[0], "me");
	world_round(2, fds);
	assert_int_equal(receive(fds[1], text, sizeof(text), &n, rights, &seen), 6);
	assert_int_equal(seen.pid, 0);
	assert_int_equal(seen.uid, 65534);
	assert_int_equal(receive(fds[1], text, sizeof(text), &n, rights, &seen), 2);
	assert_int_equal(seen.pid, getpid());
	assert_int_equal(seen.uid, getuid());
}

static void urgent_byte_keeps_its_place(void **state)
{
	(void)state;
	for (int in_line = 0; in_line < 2; in_line++) {
		int fds[2], mark = 0;
		char byte = 0, text[16] = "";
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
		say(fds[0], "abc");
		if (send(fds[0], "!", 1, MSG_OOB) < 0) {
			print_message("skipped: the kernel has no CONFIG_AF_UNIX_OOB\n");
			return;
		}
		say(fds[0], "def");
		set_option(fds[1], SOL_SOCKET, SO_OOBINLINE, in_line);
		world_round(2, fds);
		assert_int_equal(option(fds[1], SOL_SOCKET, SO_OOBINLINE), in_line);
		assert_int_equal(recv(fds[1], text, sizeof(text), MSG_DONTWAIT), 3);
		assert_string_equal(text, "abc");
		assert_int_equal(ioctl(fds[1], SIOCATMARK, &mark), 0);
		assert_true(mark);
		if (!in_line) {
			assert_int_equal(recv(fds[1], &byte, 1, MSG_OOB | MSG_DONTWAIT), 1);
			assert_int_equal(byte, '!');
		}
		assert_receives(fds[1], in_line ? "!def" : "def");
		world_teardown(NULL);
		world_setup(NULL);
	}
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_world(stream_pair_keeps_both_queues),
		in_world(packets_keep_their_boundaries),
		in_world(large_queue_fits_again),
		in_world(half_closed_pair_stays_so),
		in_world(closed_peer_stays_closed),
		in_world(reset_is_told_once),
		in_world(descriptors_under_way_arrive),
		in_world(descriptors_under_way_may_be_a_cycle),
		in_world(messages_keep_their_credentials),
		in_world(urgent_byte_keeps_its_place),
		in_world(peer_outside_is_refused_or_stdio),
		in_world(listener_accepts_again),
		in_world(address_of_a_living_socket_is_taken),
		in_world(accepted_connection_keeps_names),
		in_world(waiting_client_is_accepted_after),
		in_world(relative_name_is_bound_where_it_was),
		in_world(datagrams_keep_sender_and_order),
		in_world(logger_reconnects_to_the_outside),
		in_world(unix_options_come_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
