/*
 * Multicast memberships.  The kernel lists what an interface has joined, not for
 * whom.  But MCAST_MSFILTER tells a socket's filter for one group on one interface,
 * and EADDRNOTAVAIL where it is no member (ip_mc_gsfget() in net/ipv4/igmp.c,
 * ip6_mc_msfget() in net/ipv6/mcast.c): so each socket is asked about each group
 * there is.
 */
#include "engine/kinds/membership.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "engine/kinds/values.h"
#include "store/scope.h"

#define MAX_SOURCES 128
#define FILTER_ROOM (GROUP_FILTER_SIZE(MAX_SOURCES))

struct group {
	int level;
	unsigned interface;
	struct sockaddr_storage address;
};

struct memberships {
	size_t n;
	struct group groups[];
};

static struct group *add(struct memberships **all, int level, unsigned interface)
{
	size_t n = *all ? (*all)->n : 0;
	struct memberships *moved = realloc(*all, sizeof(*moved) + (n + 1) * sizeof(struct group));
	if (!moved)
		return NULL;
	*all = moved;
	moved->n = n + 1;
	moved->groups[n] = (struct group){.level = level, .interface = interface};
	return &moved->groups[n];
}

/* "1<tab>lo : 1 V3", then a line per group: tabs, the address as a number, users. */
static bool read_v4(struct memberships **all)
{
	cleanup_file FILE *in = fopen("/proc/self/net/igmp", "re");
	char line[256];
	unsigned interface = 0, address;
	while (in && fgets(line, sizeof(line), in)) {
		if (line[0] != '\t') {
			sscanf(line, "%u", &interface);
			continue;
		}
		if (sscanf(line, " %x", &address) != 1)
			continue;
		struct group *group = add(all, IPPROTO_IP, interface);
		if (!group)
			return false;
		*(struct sockaddr_in *)&group->address =
			(struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = address};
	}
	return true;
}

/* "1 lo ff020000000000000000000000000001 1 0000000C 0" */
static bool read_v6(struct memberships **all)
{
	cleanup_file FILE *in = fopen("/proc/self/net/igmp6", "re");
	char line[256], text[33];
	unsigned interface;
	while (in && fgets(line, sizeof(line), in)) {
		if (sscanf(line, "%u %*s %32[0-9a-f]", &interface, text) != 2 || strlen(text) != 32)
			continue;
		struct group *group = add(all, IPPROTO_IPV6, interface);
		if (!group)
			return false;
		struct sockaddr_in6 *address = (struct sockaddr_in6 *)&group->address;
		address->sin6_family = AF_INET6;
		for (int i = 0; i < 16; i++)
			sscanf(text + 2 * i, "%2hhx", &address->sin6_addr.s6_addr[i]);
	}
	return true;
}

struct memberships *memberships_read(struct fsnap_error *err)
{
	struct memberships *all = calloc(1, sizeof(*all));
	if (all && read_v4(&all) && read_v6(&all))
		return all;
	free(all);
	no_memory(err);
	return NULL;
}

static int save_group(const struct fd_view *fd, const struct group *group, image_file_inet *state,
		      struct fsnap_error *err)
{
	_Alignas(struct group_filter) char room[FILTER_ROOM] = {0};
	struct group_filter *filter = (struct group_filter *)room;
	socklen_t size = sizeof(room);
	filter->gf_interface = group->interface;
	filter->gf_group = group->address;
	filter->gf_numsrc = MAX_SOURCES;
	if (getsockopt(fd->dup, group->level, MCAST_MSFILTER, filter, &size) < 0)
		return 0; /* no member */
	if (filter->gf_numsrc > MAX_SOURCES)
		return refuse_fd(fd, err, "Let it leave the group before the dump.",
				 "a socket that takes a multicast group from %u sources", filter->gf_numsrc);
	image_sockopt *option = append(state->groups, groups);
	if (!option)
		return no_memory(err);
	*option = (image_sockopt){.level = group->level, .name = MCAST_MSFILTER};
	return set_bytes(&option->value.value_len, &option->value.value_val, filter,
			 GROUP_FILTER_SIZE(filter->gf_numsrc), err);
}

int memberships_save(const struct fd_view *fd, const struct memberships *all, int family,
		     image_file_inet *state, struct fsnap_error *err)
{
	for (size_t i = 0; i < all->n; i++)
		if ((family == AF_INET6 || all->groups[i].level == IPPROTO_IP) &&
		    save_group(fd, &all->groups[i], state, err) < 0)
			return -1;
	return 0;
}

void memberships_apply(struct restore *restore, const image_file_inet *state, int fd)
{
	for (unsigned i = 0; i < state->groups.groups_len; i++) {
		const image_sockopt *option = &state->groups.groups_val[i];
		const struct group_filter *filter = (const void *)option->value.value_val;
		if (option->value.value_len < GROUP_FILTER_SIZE(0))
			continue;
		struct group_req join = {.gr_interface = filter->gf_interface, .gr_group = filter->gf_group};
		/* Joining takes everybody; only then there is a filter to set. */
		bool everybody = filter->gf_fmode == MCAST_EXCLUDE && filter->gf_numsrc == 0;
		if (setsockopt(fd, option->level, MCAST_JOIN_GROUP, &join, sizeof(join)) < 0 ||
		    (!everybody && setsockopt(fd, option->level, MCAST_MSFILTER, filter,
					      option->value.value_len) < 0))
			restore_note(restore, "a socket is not member of a multicast group on interface %u any "
					      "more: %s", filter->gf_interface, strerror(errno));
	}
}
