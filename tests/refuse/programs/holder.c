/*
 * holder KIND: holds one thing fsnap cannot save (holder.h).
 */
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/userfaultfd.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <mqueue.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "holder.h"

static void hold_io_uring(void)
{
	struct io_uring_params params = { 0 };
	int ends[2], ring = keep((int)syscall(SYS_io_uring_setup, 8, &params));
	struct io_uring_sqe *sqes = mmap(NULL, 8 * sizeof(*sqes), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
					 IORING_OFF_SQES);
	char *rings = mmap(NULL, params.sq_off.array + 8 * sizeof(unsigned), PROT_READ | PROT_WRITE, MAP_SHARED,
			   ring, IORING_OFF_SQ_RING);
	keep(sqes == MAP_FAILED || rings == MAP_FAILED ? -1 : pipe(ends));
	sqes[0] = (struct io_uring_sqe){ .opcode = IORING_OP_POLL_ADD, .fd = ends[0], .poll32_events = POLLIN };
	*(unsigned *)(rings + params.sq_off.tail) = 1;
	keep((int)syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0) == 1 ? 0 : -1);
}

static int watch_memory(uint64_t features)
{
	int fd = keep((int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	keep(ioctl(fd, UFFDIO_API, &api));
	void *area = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register range = { .range = { (uintptr_t)area, 65536 },
					 .mode = UFFDIO_REGISTER_MODE_MISSING };
	keep(ioctl(fd, UFFDIO_REGISTER, &range));
	return fd;
}

static void hold_userfaultfd_forks(void)
{
	watch_memory(UFFD_FEATURE_EVENT_FORK);
}

static void hold_userfaultfd_two(void)
{
	watch_memory(0);
	if (keep(fork()) == 0)
		for (;;)
			pause();
}

/* Whoever handles our faults is not of our tree. */
static void hold_userfaultfd_outside(void)
{
	int fd = watch_memory(0);
	pid_t middle = keep(fork());
	if (middle == 0) {
		if (fork() == 0)
			for (;;)
				pause();
		_exit(0);
	}
	waitpid(middle, NULL, 0);
	close(fd);
}

/* An answer that waits: nobody can put it back. */
static void hold_netlink(void)
{
	int fd = keep(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
	struct {
		struct nlmsghdr header;
		char body[16];
	} question = { .header = { .nlmsg_len = sizeof(question), .nlmsg_type = 18 /* RTM_GETLINK */,
				   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP, .nlmsg_seq = 1 } };
	keep((int)send(fd, &question, sizeof(question), 0));
}

/* The same of one message, which is there as soon as it was asked for. */
static void hold_netlink_answer(void)
{
	int fd = keep(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
	} question = { .header = { .nlmsg_len = sizeof(question), .nlmsg_type = RTM_GETLINK,
				   .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = 1 },
		       .link = { .ifi_index = 1 } };
	keep((int)send(fd, &question, sizeof(question), 0));
}

/* What happens to others, and was told: the loopback device has another MTU. */
static void hold_netlink_notices(void)
{
	int fd = keep(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
	struct sockaddr_nl own = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };
	struct ifreq request = { .ifr_name = "lo", .ifr_mtu = 30000 };
	int any = keep(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	keep(bind(fd, (struct sockaddr *)&own, sizeof(own)));
	keep(ioctl(any, SIOCSIFMTU, &request));
	close(any);
}

static void hold_connector(void)
{
	keep(socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR));
}

static void hold_packet(void)
{
	int fd = keep(socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)));
	struct tpacket_req ring = { .tp_block_size = 4096, .tp_block_nr = 4, .tp_frame_size = 2048, .tp_frame_nr = 8 };
	keep(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring)));
}

static void hold_vsock(void)
{
	keep(socket(AF_VSOCK, SOCK_STREAM, 0));
}

static void hold_alg(void)
{
	keep(socket(AF_ALG, SOCK_SEQPACKET, 0));
}

static void hold_mptcp(void)
{
	keep(socket(AF_INET, SOCK_STREAM, 262 /* IPPROTO_MPTCP */));
}

static struct sockaddr_in loopback(void)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

static void hold_tcp_md5(void)
{
	struct sockaddr_in name = loopback();
	struct tcp_md5sig key = { .tcpm_keylen = 5, .tcpm_key = "horse" };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	memcpy(&key.tcpm_addr, &name, sizeof(name));
	keep(setsockopt(fd, IPPROTO_TCP, TCP_MD5SIG, &key, sizeof(key)));
	keep(bind(fd, (struct sockaddr *)&name, sizeof(name)));
	keep(listen(fd, 5));
}

static void hold_tcp_urgent(void)
{
	struct sockaddr_in name = loopback();
	socklen_t size = sizeof(name);
	int listener = keep(socket(AF_INET, SOCK_STREAM, 0)), client = keep(socket(AF_INET, SOCK_STREAM, 0));
	keep(bind(listener, (struct sockaddr *)&name, sizeof(name)));
	keep(listen(listener, 5));
	keep(getsockname(listener, (struct sockaddr *)&name, &size));
	keep(connect(client, (struct sockaddr *)&name, sizeof(name)));
	keep(accept(listener, NULL, NULL));
	keep((int)send(client, "!", 1, MSG_OOB));
}

static void hold_udp_held(void)
{
	struct sockaddr_in name = loopback();
	name.sin_port = htons(9);
	keep((int)sendto(keep(socket(AF_INET, SOCK_DGRAM, 0)), "half", 4, MSG_MORE, (struct sockaddr *)&name,
			 sizeof(name)));
}

static void hold_perf(void)
{
	struct perf_event_attr event = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(event),
					 .config = PERF_COUNT_SW_TASK_CLOCK, .exclude_kernel = 1 };
	keep((int)syscall(SYS_perf_event_open, &event, 0, -1, -1, 0));
}

static void hold_pidfd(void)
{
	keep((int)syscall(SYS_pidfd_open, getppid(), 0));
}

static void hold_inotify_events(void)
{
	int fd = keep(inotify_init1(IN_CLOEXEC));
	keep(inotify_add_watch(fd, ".", IN_CREATE));
	close(keep(open("made", O_WRONLY | O_CREAT, 0644)));
}

static void hold_fanotify_events(void)
{
	int fd = keep(fanotify_init(FAN_CLASS_NOTIF, O_RDONLY));
	close(keep(open("made", O_WRONLY | O_CREAT, 0644)));
	keep(fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, "made"));
	close(keep(open("made", O_RDONLY)));
}

static void hold_mqueue_messages(void)
{
	struct mq_attr attributes = { .mq_maxmsg = 4, .mq_msgsize = 64 };
	mqd_t queue = keep(mq_open("/fsnap-refuse", O_RDWR | O_CREAT, 0600, &attributes));
	keep(mq_send(queue, "message", 7, 0));
}

static void hold_terminal_bytes(void)
{
	int master = keep(posix_openpt(O_RDWR | O_NOCTTY));
	keep(unlockpt(master));
	int slave = keep(open(ptsname(master), O_RDWR | O_NOCTTY));
	keep(write(slave, "shown", 5) == 5 ? 0 : -1);
	usleep(20000);
}

static void hold_kmsg(void)
{
	keep(open("/dev/kmsg", O_RDONLY));
}

static void hold_bpf(void)
{
	const struct bpf_insn code[] = { { .code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = 0 },
					 { .code = BPF_JMP | BPF_EXIT } };
	union bpf_attr attributes = { .prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insns = (uintptr_t)code,
				      .insn_cnt = 2, .license = (uintptr_t)"GPL" };
	keep((int)syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes)));
}

static void hold_aio(void)
{
	aio_context_t context = 0;
	int ends[2];
	keep(pipe(ends));
	struct iocb iocb = { .aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = (unsigned)ends[0], .aio_buf = POLLIN };
	struct iocb *list = &iocb;
	keep((int)syscall(SYS_io_setup, 16, &context));
	keep((int)syscall(SYS_io_submit, context, 1, &list) == 1 ? 0 : -1);
}

static void hold_namespace(void)
{
	/* Somebody else's, who has ended. */
	int ready[2];
	char path[64], byte;
	keep(pipe(ready));
	pid_t child = keep(fork());
	if (child == 0) {
		if (unshare(CLONE_NEWUTS) < 0 || write(ready[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	close(ready[1]);
	keep(read(ready[0], &byte, 1) == 1 ? 0 : -1);
	close(ready[0]);
	snprintf(path, sizeof(path), "/proc/%d/ns/uts", child);
	keep(open(path, O_RDONLY));
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static void hold_own_namespace(void)
{
	keep(unshare(CLONE_NEWUTS));
}

static void hold_pipe_outside(void)
{
	/* A child of ours that is no longer of our tree holds the other end. */
	int ends[2];
	keep(pipe(ends));
	pid_t middle = keep(fork());
	if (middle == 0) {
		if (fork() == 0) {
			close(ends[1]);
			for (;;)
				pause();
		}
		_exit(0);
	}
	waitpid(middle, NULL, 0);
	close(ends[0]);
}

static void hold_secret(void)
{
	int fd = keep((int)syscall(SYS_memfd_secret, 0));
	keep(ftruncate(fd, 4096));
	keep(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
}

static int idle(void *arg)
{
	for (;;)
		pause();
	return arg != NULL;
}

static void hold_shared_memory_process(void)
{
	/* Another process, not a thread, in the same address space. */
	char *stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	keep(clone(idle, stack + 65536, CLONE_VM | SIGCHLD, NULL));
}

static void hold_lease_deleted(void)
{
	int fd = keep(open("leased", O_RDONLY | O_CREAT | O_EXCL, 0600));
	keep(fcntl(fd, F_SETLEASE, F_RDLCK));
	unlink("leased");
}

static void hold_lease_breaking(void)
{
	signal(SIGIO, SIG_IGN);
	int fd = keep(open("leased", O_RDONLY | O_CREAT, 0600));
	keep(fcntl(fd, F_SETLEASE, F_RDLCK));
	close(open("leased", O_WRONLY | O_NONBLOCK)); /* wants it */
}

static void hold_dnotify(void)
{
	signal(SIGIO, SIG_IGN);
	int fd = keep(open("/", O_RDONLY | O_DIRECTORY));
	keep(fcntl(fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT));
}

static void hold_proc_stranger(void)
{
	keep(open("/proc/1/status", O_RDONLY));
}

static void hold_proc_ended(void)
{
	char path[64];
	pid_t pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	snprintf(path, sizeof(path), "/proc/%d/status", keep(pid));
	keep(open(path, O_RDONLY));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void hold_nothing(void)
{
}

static const struct holding kinds[] = {
	{ "io_uring", hold_io_uring },
	{ "userfaultfd_forks", hold_userfaultfd_forks },
	{ "userfaultfd_two", hold_userfaultfd_two },
	{ "userfaultfd_outside", hold_userfaultfd_outside },
	{ "netlink", hold_netlink },
	{ "netlink_answer", hold_netlink_answer },
	{ "netlink_notices", hold_netlink_notices },
	{ "connector", hold_connector },
	{ "packet", hold_packet },
	{ "vsock", hold_vsock },
	{ "alg", hold_alg },
	{ "mptcp", hold_mptcp },
	{ "tcp_md5", hold_tcp_md5 },
	{ "tcp_urgent", hold_tcp_urgent },
	{ "udp_held", hold_udp_held },
	{ "perf", hold_perf },
	{ "pidfd", hold_pidfd },
	{ "bpf", hold_bpf },
	{ "inotify_events", hold_inotify_events },
	{ "fanotify_events", hold_fanotify_events },
	{ "mqueue_messages", hold_mqueue_messages },
	{ "terminal_bytes", hold_terminal_bytes },
	{ "kmsg", hold_kmsg },
	{ "aio", hold_aio },
	{ "namespace", hold_namespace },
	{ "own_namespace", hold_own_namespace },
	{ "pipe_outside", hold_pipe_outside },
	{ "secret", hold_secret },
	{ "shared_process", hold_shared_memory_process },
	{ "lease_deleted", hold_lease_deleted },
	{ "lease_breaking", hold_lease_breaking },
	{ "dnotify", hold_dnotify },
	{ "proc_stranger", hold_proc_stranger },
	{ "proc_ended", hold_proc_ended },
	{ "nothing", hold_nothing },
};

int main(int argc, char **argv)
{
	return hold(kinds, sizeof(kinds) / sizeof(kinds[0]), argc > 1 ? argv[1] : "");
}
