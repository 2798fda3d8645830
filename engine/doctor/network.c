/*
 * network.c - sockets, nftables, eBPF.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/inet_diag.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bpf/async.h"
#include "bpf/cache.h"
#include "bpf/sleep.h"
#include "engine/doctor/doctor.h"
#include "store/scope.h"

#define NETWORK "Network"
#define EBPF "eBPF"

static void tcp_repair(struct finding *finding, const char *store)
{
	(void)store;
	cleanup_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = TCP_REPAIR_ON, off = TCP_REPAIR_OFF_NO_WP;
	find_result(finding, fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) == 0,
		    FSNAP_CHECK_LACKS);
	if (fd >= 0)
		setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off));
}

/* Whether a netlink question is answered by anything but an error. */
static bool answered(int protocol, const void *question, size_t size)
{
	cleanup_fd int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	union {
		struct nlmsghdr header;
		char room[8192];
	} answer;

	if (fd < 0 || send(fd, question, size, 0) < 0)
		return false;
	ssize_t n = recv(fd, &answer, sizeof(answer), 0);
	if (n < (ssize_t)sizeof(answer.header))
		return false;
	if (answer.header.nlmsg_type != NLMSG_ERROR)
		return true;
	errno = -((struct nlmsgerr *)NLMSG_DATA(&answer.header))->error;
	return errno == 0;
}

static void socket_diag(struct finding *finding, const char *store)
{
	(void)store;
	struct {
		struct nlmsghdr header;
		struct inet_diag_req_v2 tcp;
	} tcp = { { sizeof(tcp), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0 },
		  { .sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP } };
	struct {
		struct nlmsghdr header;
		struct unix_diag_req request;
	} local = { { sizeof(local), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0 },
		    { .sdiag_family = AF_UNIX } };
	find_result(finding, answered(NETLINK_SOCK_DIAG, &tcp, sizeof(tcp)) &&
				     answered(NETLINK_SOCK_DIAG, &local, sizeof(local)), FSNAP_CHECK_LACKS);
}

static void nftables(struct finding *finding, const char *store)
{
	(void)store;
	struct {
		struct nlmsghdr header;
		struct nfgenmsg family;
	} question = { { sizeof(question), NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, NLM_F_REQUEST, 1, 0 },
		       { AF_UNSPEC, NFNETLINK_V0, 0 } };
	find_result(finding, answered(NETLINK_NETFILTER, &question, sizeof(question)), FSNAP_CHECK_LACKS);
}

/* --- eBPF: what fsnap would load, is loaded ----------------------------------------------- */

static void told(struct finding *finding, const struct fsnap_error *err)
{
	if (err->code == FSNAP_E_OK)
		find(finding, FSNAP_CHECK_GOOD, "works");
	else
		find(finding, FSNAP_CHECK_LACKS, "%s", err->sys ? strerror(err->sys) : err->message);
}

static void page_cache(struct finding *finding, const char *store)
{
	(void)store;
	struct fsnap_error err = { 0 };
	cache_reader_close(cache_reader_open(&err));
	told(finding, &err);
}

static void sleeping(struct finding *finding, const char *store)
{
	(void)store;
	struct fsnap_error err = { 0 };
	struct sleep_reader *reader = sleep_open(&err);
	if (reader)
		sleep_close(reader);
	told(finding, &err);
}

static void requests(struct finding *finding, const char *store)
{
	(void)store;
	struct fsnap_error err = { 0 };
	async_close(async_open(&err));
	told(finding, &err);
}

/* "none [integrity] confidentiality": the one in force stands in brackets. */
static void lockdown(struct finding *finding, const char *store)
{
	(void)store;
	char line[128];
	line_in("/sys/kernel/security/lockdown", line, sizeof(line));
	if (!line[0])
		find(finding, FSNAP_CHECK_GOOD, "none that shows (/sys/kernel/security/lockdown)");
	else if (strstr(line, "[confidentiality]"))
		find(finding, FSNAP_CHECK_LACKS, "confidentiality");
	else
		find(finding, FSNAP_CHECK_GOOD, strstr(line, "[integrity]") ? "integrity, which fsnap can live with" : "none");
}

#define BPF_REMEDY "run fsnap as root, or give it CAP_BPF and CAP_PERFMON; Linux 6.1 with CONFIG_DEBUG_INFO_BTF"

const struct check checks_of_network[] = {
	{ NETWORK, "TCP connections", tcp_repair, false,
	  "connections come back as reset by the peer, those within the tree, too",
	  "run fsnap as root, or give it CAP_NET_ADMIN (TCP_REPAIR)" },
	{ NETWORK, "sockets of the machine", socket_diag, false,
	  "who waits at a listener, and which Unix sockets are connected, cannot be seen: such programs are refused",
	  "as root: modprobe -a tcp_diag unix_diag" },
	{ NETWORK, "nftables", nftables, false, "dump --kill --tcp keep cannot hold packets back",
	  "run fsnap as root, or give it CAP_NET_ADMIN; modprobe nf_tables" },
	{ EBPF, "warmth of the page cache", page_cache, true,
	  "what is cached is known, not what is in use: a restore cannot fetch the hottest first", BPF_REMEDY },
	{ EBPF, "what remains of sleeps", sleeping, true, "poll and futex wait their whole timeout again after a restore",
	  BPF_REMEDY },
	{ EBPF, "requests under way", requests, true, "programs that use io_uring or io_setup cannot be saved", BPF_REMEDY },
	{ EBPF, "kernel lockdown", lockdown, false, "the programs above are refused their reads of kernel memory",
	  "boot with lockdown=integrity or without" },
	{ 0 },
};
