/*
 * /dev/net/tun: a tun and a tap device that live as long as the program, with addresses, size and
 * state; packets go through after a restore as before. One descriptor without a device yet.
 *
 * harness: root differs=/dev/net/tun
 */
#include "specimen.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static int inet;

static struct ifreq named(const char *name)
{
	struct ifreq ifr = { 0 };
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	return ifr;
}

static int make(const char *name, int flags)
{
	struct ifreq ifr = named(name);
	ifr.ifr_flags = (short)flags;
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) < 0)
		specimen_skip("no tun devices here: %s", strerror(errno));
	return fd;
}

static void set_address(const char *name, unsigned long what, const char *address)
{
	struct ifreq ifr = named(name);
	struct sockaddr_in *in = (void *)&ifr.ifr_addr;
	in->sin_family = AF_INET;
	inet_pton(AF_INET, address, &in->sin_addr);
	MUST(ioctl(inet, what, &ifr));
}

static void up(const char *name, int mtu)
{
	struct ifreq ifr = named(name);
	ifr.ifr_mtu = mtu;
	MUST(ioctl(inet, SIOCSIFMTU, &ifr));
	MUST(ioctl(inet, SIOCGIFFLAGS, &ifr));
	ifr.ifr_flags |= IFF_UP;
	MUST(ioctl(inet, SIOCSIFFLAGS, &ifr));
}

static void expect_device(const char *name, const char *address, int mtu)
{
	char seen[64] = "";
	struct ifreq ifr = named(name);
	expect_ok(name, ioctl(inet, SIOCGIFFLAGS, &ifr));
	expect_int("is up", IFF_UP, ifr.ifr_flags & IFF_UP);
	expect_ok("packet size", ioctl(inet, SIOCGIFMTU, &ifr));
	expect_int("is", mtu, ifr.ifr_mtu);
	ifr = named(name);
	expect_ok("address", ioctl(inet, SIOCGIFADDR, &ifr));
	inet_ntop(AF_INET, &((struct sockaddr_in *)&ifr.ifr_addr)->sin_addr, seen, sizeof(seen));
	expect_text("is", address, seen);
	ifr = named(name);
	expect_ok("network", ioctl(inet, SIOCGIFNETMASK, &ifr));
	inet_ntop(AF_INET, &((struct sockaddr_in *)&ifr.ifr_addr)->sin_addr, seen, sizeof(seen));
	expect_text("is", "255.255.255.0", seen);
}

/* A datagram sent into the network comes out of the descriptor. */
static void expect_packet(int tun, unsigned short number)
{
	unsigned char packet[2048];
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(number) };
	inet_pton(AF_INET, "10.99.1.2", &to.sin_addr);
	while (read(tun, packet, sizeof(packet)) > 0)
		; /* what the kernel sends by itself */
	expect_ok("send", sendto(inet, "through", 7, 0, (struct sockaddr *)&to, sizeof(to)));
	struct pollfd p = { .fd = tun, .events = POLLIN };
	expect_int("a packet comes out", 1, poll(&p, 1, 2000));
	ssize_t n = read(tun, packet, sizeof(packet));
	expect_int("its size", 20 + 8 + 7, n);
	if (n == 35) {
		expect_int("to the port", number, packet[22] << 8 | packet[23]);
		expect_bytes("with", "through", packet + 28, 7);
	}
}

int main(void)
{
	static const unsigned char hardware[6] = { 2, 0x11, 0x22, 0x33, 0x44, 0x55 };
	inet = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	int tun = make("spectun", IFF_TUN | IFF_NO_PI), tap = make("spectap", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
	int idle = MUST(open("/dev/net/tun", O_RDWR));
	struct ifreq ifr = named("spectap");
	ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(ifr.ifr_hwaddr.sa_data, hardware, sizeof(hardware));
	MUST(ioctl(inet, SIOCSIFHWADDR, &ifr));
	set_address("spectun", SIOCSIFADDR, "10.99.1.1");
	set_address("spectun", SIOCSIFNETMASK, "255.255.255.0");
	set_address("spectap", SIOCSIFADDR, "10.99.2.1");
	set_address("spectap", SIOCSIFNETMASK, "255.255.255.0");
	up("spectun", 1400);
	up("spectap", 1300);

	while (specimen_round()) {
		specimen_ready();
		struct ifreq seen = { 0 };
		expect_device("spectun", "10.99.1.1", 1400);
		expect_device("spectap", "10.99.2.1", 1300);
		expect_ok("device of the descriptor", ioctl(tun, TUNGETIFF, &seen));
		expect_text("is", "spectun", seen.ifr_name);
		expect_hex("flags", IFF_TUN | IFF_NO_PI, (unsigned short)seen.ifr_flags);
		expect_ok("that of the other", ioctl(tap, TUNGETIFF, &seen));
		expect_hex("flags", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, (unsigned short)seen.ifr_flags);
		seen = named("spectap");
		expect_ok("hardware address", ioctl(inet, SIOCGIFHWADDR, &seen));
		expect_bytes("is", hardware, seen.ifr_hwaddr.sa_data, sizeof(hardware));
		expect_errno("without a device", EBADFD, ioctl(idle, TUNGETIFF, &seen));
		expect_packet(tun, (unsigned short)(4000 + specimen_number()));
	}
	return specimen_end();
}
