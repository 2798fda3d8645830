/*
 * What no other kind took: named, so that the user knows what stands in the way,
 * with what can be done about it.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

#include "engine/kinds/table.h"

struct known {
	const char *link; /* how the link starts */
	const char *what;
	const char *hint;
};

static const struct known known[] = {
	{"anon_inode:bpf_link", "a BPF link", "Load BPF programs from a process outside the tree."},
	{"anon_inode:bpf", "a BPF object", "Load BPF programs from a process outside the tree."},
	{"anon_inode:[perf_event]", "a perf event counter", "Dump when profiling is over."},
	{"anon_inode:[fscontext]", "a mount being configured (fsopen)", "Dump when it is mounted."},
	{"anon_inode:seccomp notify", "a seccomp listener",
	 "Run what supervises other programs outside the tree."},
	{"anon_inode:landlock-ruleset", "a Landlock ruleset being built",
	 "Dump when the program has confined itself."},
	{"anon_inode:kvm", "a virtual machine", "Use what the virtual machine monitor offers."},
	{"anon_inode:[secretmem]", "secret memory (memfd_secret)",
	 "It exists so that nobody can read it, fsnap included."},
	{"/secretmem", "secret memory (memfd_secret)",
	 "It exists so that nobody can read it, fsnap included."},
	{"anon_inode:dma-buf", "a DMA buffer", "Devices cannot be saved."},
	{"anon_inode:sync_file", "a fence of a graphics device", "Devices cannot be saved."},
	{"/dmabuf:", "a DMA buffer", "Devices cannot be saved."},
	{"/dev/fuse", "a FUSE connection", "Run the file system's server outside the tree."},
	{"/dev/kmsg", "the kernel log being read",
	 "Its place in the log is told to nobody: close it before the dump."},
	{"/dev/watchdog", "a watchdog", "Closing it could restart the machine: run it outside the tree."},
	{"/dev/cpu_dma_latency", "a demand on the latency of processors",
	 "What was demanded is told to nobody: close it before the dump."},
	{"/dev/uinput", "an input device", "Run without it."},
	{"/dev/hidraw", "an input device", "Run without it."},
	{"/dev/vfio/", "a device given to the program", "Devices cannot be saved."},
	{"/dev/vhost-", "a virtual machine's device", "Use what the virtual machine monitor offers."},
	{"/dev/ppp", "a network connection (PPP)", "Run it outside the tree."},
	{"/dev/dri/", "a graphics device", "Run without hardware rendering."},
	{"/dev/nvidia", "a graphics device", "Run without it."},
	{"/dev/snd/", "a sound device", "Run without sound."},
	{"/dev/input/", "an input device", "Run without it."},
};

/* Newer than the headers of some C library that fsnap is built with. */
enum { PROTOCOL_SMC = 256, PROTOCOL_MPTCP = 262, FAMILY_SMC = 43 };

/* Their state lies in a device, or in a part of the kernel that no call looks into. */
static const struct family {
	int domain;
	const char *what;
} families[] = {
	{AF_VSOCK, "a socket to a virtual machine (vsock)"},
	{AF_ALG, "a socket to the kernel's cryptography (AF_ALG)"},
	{AF_XDP, "a socket with rings of an interface (AF_XDP)"},
	{AF_BLUETOOTH, "a Bluetooth socket"},
	{AF_CAN, "a CAN socket"},
	{AF_TIPC, "a TIPC socket"},
	{AF_RDS, "an RDS socket"},
	{FAMILY_SMC, "a socket over shared memory communications (SMC)"},
	{AF_QIPCRTR, "a Qualcomm IPC router socket"},
	{AF_KCM, "a socket of the kernel's connection multiplexer (KCM)"},
	{AF_PPPOX, "a PPP socket"},
	{AF_KEY, "an IPsec key socket (AF_KEY)"},
	{AF_NFC, "an NFC socket"},
	{AF_PHONET, "a Phonet socket"},
	{AF_IEEE802154, "an IEEE 802.15.4 socket"},
};

static int refuse_socket(const struct fd_view *fd, struct fsnap_error *err)
{
	static const char hint[] = "Close it before the dump, or keep the process that needs it "
				   "outside the tree.";
	int domain = -1, type = -1, protocol = -1;
	socklen_t size = sizeof(int);
	getsockopt(fd->dup, SOL_SOCKET, SO_DOMAIN, &domain, &size);
	getsockopt(fd->dup, SOL_SOCKET, SO_TYPE, &type, &size);
	getsockopt(fd->dup, SOL_SOCKET, SO_PROTOCOL, &protocol, &size);
	switch (domain) {
	case AF_PACKET:
		return refuse_fd(fd, err, hint, "a packet socket of the obsolete sort SOCK_PACKET");
	case AF_INET:
	case AF_INET6:
		if (protocol == PROTOCOL_MPTCP)
			return refuse_fd(fd, err, hint, "a Multipath TCP socket: no call tells or sets the "
							"sequence numbers of its subflows");
		if (protocol == PROTOCOL_SMC)
			return refuse_fd(fd, err, hint, "a socket over shared memory communications (SMC)");
		return refuse_fd(fd, err, hint, "an IP socket of protocol %d%s", protocol,
				 protocol == IPPROTO_SCTP ? " (SCTP)" : protocol == IPPROTO_DCCP ? " (DCCP)" : "");
	case AF_UNIX:
		return refuse_fd(fd, err, hint, "a Unix socket of type %d", type);
	case -1:
		return refuse_fd(fd, err, "fsnap needs pidfd_getfd(2) (Linux 5.6) and the right to "
					  "trace the process.",
				 "a socket that cannot be looked into");
	}
	for (size_t i = 0; i < sizeof(families) / sizeof(*families); i++)
		if (families[i].domain == domain)
			return refuse_fd(fd, err, hint, "%s", families[i].what);
	return refuse_fd(fd, err, hint, "a socket of address family %d", domain);
}

static int unsupported_save(const struct fd_view *fd, image_file *file, void *state,
			    struct fsnap_error *err)
{
	(void)file;
	(void)state;
	mode_t mode = fd->stat.st_mode;

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (!strncmp(fd->link, known[i].link, strlen(known[i].link)))
			return refuse_fd(fd, err, known[i].hint, "%s", known[i].what);
	if (S_ISSOCK(mode))
		return refuse_socket(fd, err);
	if (S_ISCHR(mode) || S_ISBLK(mode))
		return refuse_fd(fd, err, "Devices keep state that only their drivers know: close it "
					  "before the dump.",
				 "a %s device (%u:%u)", S_ISCHR(mode) ? "character" : "block",
				 major(fd->stat.st_rdev), minor(fd->stat.st_rdev));
	return refuse_fd(fd, err, "Close it before the dump.",
			 "a kind of file this version does not know");
}

static bool unsupported_matches(const struct fd_view *fd)
{
	(void)fd;
	return true;
}

static bool_t xdr_nothing(XDR *xdr, void *state)
{
	(void)xdr;
	(void)state;
	return TRUE;
}

/* No image holds a file of this kind: save() always refuses. */
static int unsupported_make(struct restore *restore, const image_file *file, const void *state,
			    struct fsnap_error *err)
{
	(void)restore;
	(void)state;
	return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "file %u (%s) has no kind", file->id, file->label);
}

const struct file_kind kind_unsupported = {
	.name = "unsupported",
	.refuses = "BPF links, perf, "
		   "secret memory, other devices and whatever is new",
	.shown_by = "kinds",
	.xdr = (xdrproc_t)xdr_nothing,
	.matches = unsupported_matches,
	.save = unsupported_save,
	.make = unsupported_make,
};
