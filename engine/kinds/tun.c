/*
 * /dev/net/tun: the other side of a network device.  One that ends with its program is made
 * again, with its address, size and state; one that persists is taken hold of again as it is.
 */
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/if_addr.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

static bool tun_matches(const struct fd_view *fd)
{
	return S_ISCHR(fd->stat.st_mode) && fd->stat.st_rdev == makedev(10, 200) && !(fd->flags & O_PATH) &&
	       fd->dup >= 0;
}

static void request(struct ifreq *request, const char *name)
{
	memset(request, 0, sizeof(*request));
	snprintf(request->ifr_name, sizeof(request->ifr_name), "%s", name);
}

/* --- dump --------------------------------------------------------------------- */

static int own_socket(void)
{
	return socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

static unsigned prefix_of(const struct sockaddr *mask)
{
	const unsigned char *bytes = mask->sa_family == AF_INET ?
					     (const void *)&((const struct sockaddr_in *)mask)->sin_addr :
					     (const void *)&((const struct sockaddr_in6 *)mask)->sin6_addr;
	unsigned n = 0, most = mask->sa_family == AF_INET ? 32 : 128;
	while (n < most && (bytes[n / 8] >> (7 - n % 8) & 1))
		n++;
	return n;
}

static int save_address(image_file_tun *state, const struct ifaddrs *from, struct fsnap_error *err)
{
	int family = from->ifa_addr->sa_family;
	const void *bytes = family == AF_INET ? (const void *)&((struct sockaddr_in *)from->ifa_addr)->sin_addr :
						(const void *)&((struct sockaddr_in6 *)from->ifa_addr)->sin6_addr;
	const struct sockaddr *peer = from->ifa_flags & IFF_POINTOPOINT ? from->ifa_dstaddr : NULL;
	image_tun_address *address = append(state->addresses, addresses);
	if (!address)
		return no_memory(err);
	address->family = (unsigned)family;
	address->prefix = prefix_of(from->ifa_netmask);
	if (peer && peer->sa_family == AF_INET &&
	    set_bytes(&address->peer.peer_len, &address->peer.peer_val,
		      &((const struct sockaddr_in *)peer)->sin_addr, 4, err) < 0)
		return -1;
	return set_bytes(&address->address.address_len, &address->address.address_val, bytes,
			 family == AF_INET ? 4 : 16, err);
}

static int save_addresses(image_file_tun *state, struct fsnap_error *err)
{
	struct ifaddrs *all = NULL;
	int result = 0;
	if (getifaddrs(&all) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "addresses of %s", state->name);
	for (const struct ifaddrs *each = all; each && result == 0; each = each->ifa_next)
		if (each->ifa_addr && each->ifa_netmask && !strcmp(each->ifa_name, state->name) &&
		    (each->ifa_addr->sa_family == AF_INET || each->ifa_addr->sa_family == AF_INET6))
			result = save_address(state, each, err);
	freeifaddrs(all);
	return result;
}

static int owner_of(const char *device, const char *what)
{
	char path[128];
	int id = -1;
	snprintf(path, sizeof(path), "/sys/class/net/%s/%s", device, what);
	cleanup_file FILE *file = fopen(path, "re");
	if (file && fscanf(file, "%d", &id) != 1)
		id = -1;
	return id;
}

static int save_device(const struct fd_view *fd, image_file_tun *state, struct fsnap_error *err)
{
	struct ifreq ifr;
	struct pollfd waiting = {.fd = fd->dup, .events = POLLIN};
	cleanup_fd int socket = own_socket();
	request(&ifr, state->name);
	if (socket < 0 || ioctl(socket, SIOCGIFFLAGS, &ifr) < 0)
		return refuse_fd(fd, err, "Run the tunnel outside the tree.",
				 "a network tunnel whose device (%s) is in another network namespace", state->name);
	state->up = (ifr.ifr_flags & IFF_UP) != 0;
	state->mtu = ioctl(socket, SIOCGIFMTU, &ifr) == 0 ? (unsigned)ifr.ifr_mtu : 0;
	if ((state->flags & IFF_TAP) && ioctl(socket, SIOCGIFHWADDR, &ifr) == 0 &&
	    set_bytes(&state->hardware.hardware_len, &state->hardware.hardware_val, ifr.ifr_hwaddr.sa_data, 6,
		      err) < 0)
		return -1;
	ioctl(fd->dup, TUNGETVNETHDRSZ, &state->header);
	ioctl(fd->dup, TUNGETSNDBUF, &state->send_buffer);
	ioctl(fd->dup, TUNGETVNETLE, &state->little_endian);
	state->owner = owner_of(state->name, "owner");
	state->group = owner_of(state->name, "group");
	if (poll(&waiting, 1, 0) == 1 && (waiting.revents & POLLIN))
		dump_note(fd->dump, "packets of %s that were not read yet are lost", state->name);
	if (!(state->flags & IFF_PERSIST))
		dump_note(fd->dump, "%s comes back with its addresses; other routes through it, and offloads, do not",
			  state->name);
	return save_addresses(state, err);
}

static int tun_save(const struct fd_view *fd, image_file *file, void *out, struct fsnap_error *err)
{
	(void)file;
	image_file_tun *state = out;
	struct ifreq ifr;
	request(&ifr, "");
	bool attached = ioctl(fd->dup, TUNGETIFF, &ifr) == 0;
	if (set_string(&state->path, fd->link, err) < 0 ||
	    set_string(&state->name, attached ? ifr.ifr_name : "", err) < 0)
		return -1;
	state->flags = (unsigned short)ifr.ifr_flags;
	return attached ? save_device(fd, state, err) : 0;
}

/* --- restore -------------------------------------------------------------------- */

static int failed(const image_file_tun *state, struct fsnap_error *err, const char *step)
{
	return fail(err, FSNAP_E_RESTORE_STEP, errno, "network device %s: %s", state->name, step);
}

static void put(char **end, unsigned short type, const void *data, unsigned length)
{
	struct rtattr *attribute = (struct rtattr *)*end;
	attribute->rta_type = type;
	attribute->rta_len = (unsigned short)RTA_LENGTH(length);
	memcpy(RTA_DATA(attribute), data, length);
	*end += RTA_SPACE(length);
}

/* RTM_NEWADDR, rtnetlink(7). */
static int add_address(int netlink, unsigned index, const image_tun_address *address)
{
	struct {
		struct nlmsghdr head;
		struct ifaddrmsg message;
		char attributes[128];
	} ask = {.head = {.nlmsg_type = RTM_NEWADDR, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE},
		 .message = {.ifa_family = (unsigned char)address->family, .ifa_index = index,
			     .ifa_prefixlen = (unsigned char)address->prefix, .ifa_flags = IFA_F_NODAD}};
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		char rest[256];
	} answer;
	char *end = ask.attributes;
	if (address->address.address_len > 16 || address->peer.peer_len > 16)
		return errno = EINVAL, -1;
	put(&end, IFA_LOCAL, address->address.address_val, address->address.address_len);
	if (address->peer.peer_len)
		put(&end, IFA_ADDRESS, address->peer.peer_val, address->peer.peer_len);
	else
		put(&end, IFA_ADDRESS, address->address.address_val, address->address.address_len);
	ask.head.nlmsg_len = (unsigned)(end - (char *)&ask);
	if (send(netlink, &ask, ask.head.nlmsg_len, 0) < 0 || recv(netlink, &answer, sizeof(answer), 0) < 0)
		return -1;
	errno = -answer.error.error;
	return errno && errno != EEXIST ? -1 : 0; /* the kernel makes some itself */
}

static int add_addresses(const image_file_tun *state)
{
	cleanup_fd int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	unsigned index = if_nametoindex(state->name);
	for (unsigned i = 0; i < state->addresses.addresses_len; i++)
		if (netlink < 0 || add_address(netlink, index, &state->addresses.addresses_val[i]) < 0)
			return -1;
	return 0;
}

static int set_up(int fd, const image_file_tun *state, struct fsnap_error *err)
{
	struct ifreq ifr;
	cleanup_fd int socket = own_socket();
	if (socket < 0)
		return failed(state, err, "socket");
	request(&ifr, state->name);
	if (state->hardware.hardware_len == 6) {
		ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
		memcpy(ifr.ifr_hwaddr.sa_data, state->hardware.hardware_val, 6);
		if (ioctl(socket, SIOCSIFHWADDR, &ifr) < 0)
			return failed(state, err, "hardware address");
	}
	request(&ifr, state->name);
	ifr.ifr_mtu = (int)state->mtu;
	if (state->mtu && ioctl(socket, SIOCSIFMTU, &ifr) < 0)
		return failed(state, err, "size of packets");
	if ((state->owner != -1 && ioctl(fd, TUNSETOWNER, (unsigned long)state->owner) < 0) ||
	    (state->group != -1 && ioctl(fd, TUNSETGROUP, (unsigned long)state->group) < 0))
		return failed(state, err, "owner");
	if ((state->flags & IFF_PERSIST) && ioctl(fd, TUNSETPERSIST, 1ul) < 0)
		return failed(state, err, "make it persist");
	if (add_addresses(state) < 0)
		return failed(state, err, "addresses");
	request(&ifr, state->name);
	if (ioctl(socket, SIOCGIFFLAGS, &ifr) < 0)
		return failed(state, err, "state");
	ifr.ifr_flags = (short)(state->up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP);
	return ioctl(socket, SIOCSIFFLAGS, &ifr) < 0 ? failed(state, err, "state") : 0;
}

/* RTM_DELLINK, rtnetlink(7): also of a device that somebody has open. */
static void remove_device(const char *name)
{
	struct {
		struct nlmsghdr head;
		struct ifinfomsg message;
	} ask = {.head = {.nlmsg_len = sizeof(ask), .nlmsg_type = RTM_DELLINK, .nlmsg_flags = NLM_F_REQUEST},
		 .message = {.ifi_index = (int)if_nametoindex(name)}};
	cleanup_fd int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (netlink >= 0 && ask.message.ifi_index)
		send(netlink, &ask, sizeof(ask), 0);
}

static int attach(struct restore *restore, int fd, const image_file_tun *state, struct fsnap_error *err)
{
	struct ifreq ifr;
	bool there = if_nametoindex(state->name) != 0;
	request(&ifr, state->name);
	ifr.ifr_flags = (short)(state->flags & ~(unsigned)IFF_PERSIST);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
		int sys = errno;
		failed(state, err, "make it");
		return sys == EBUSY || sys == EINVAL ? error_hint(err, "Another device has this name: ip link show %s",
								 state->name) : -1;
	}
	if (((state->flags & IFF_VNET_HDR) && state->header && ioctl(fd, TUNSETVNETHDRSZ, &state->header) < 0) ||
	    (state->send_buffer && ioctl(fd, TUNSETSNDBUF, &state->send_buffer) < 0) ||
	    (state->little_endian && ioctl(fd, TUNSETVNETLE, &state->little_endian) < 0))
		return failed(state, err, "options");
	if (there)
		return 0;
	if (state->flags & IFF_PERSIST) /* until that is set, it goes with its descriptor */
		restore_takes_back(restore, remove_device, state->name);
	return set_up(fd, state, err);
}

static int tun_remap(struct restore *restore, void *in, struct fsnap_error *err)
{
	return restore_may_use(restore, ((const image_file_tun *)in)->path, err);
}

static int tun_make(struct restore *restore, const image_file *file, const void *in, struct fsnap_error *err)
{
	const image_file_tun *state = in;
	cleanup_fd int fd = open(state->path, (int)(file->flags & O_ACCMODE) | O_CLOEXEC);
	if (fd < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: %s", file->id, state->path);
	if (state->name[0] && attach(restore, fd, state, err) < 0)
		return -1;
	return steal_fd(&fd);
}

const struct file_kind kind_tun = {
	.name = "tun",
	.keeps = "name, flags, owner, addresses, packet size and state of the device; persistent ones as they are",
	.refuses = "devices in another network namespace",
	.shown_by = "device_tun",
	.xdr = (xdrproc_t)xdr_image_file_tun,
	.matches = tun_matches,
	.save = tun_save,
	.remap = tun_remap,
	.make = tun_make,
};
