#include "engine/kinds/maker.h"

#include <errno.h>
#include <sys/socket.h>

#include "engine/errand.h"
#include "engine/kinds/values.h"

int maker_of(const struct fd_view *fd, image_maker *maker, struct fsnap_error *err)
{
	if (!fd->process->n_tasks)
		return 0;
	const image_creds *creds = &fd->process->tasks[0]->image.creds;
	maker->pid = fd->process->pid;
	maker->uid = creds->uid[1];
	maker->gid = creds->gid[1];
	if (set_bytes(&maker->groups.groups_len, (char **)&maker->groups.groups_val,
		      creds->groups.groups_val, creds->groups.groups_len * sizeof(unsigned), err) < 0)
		return -1;
	maker->groups.groups_len = creds->groups.groups_len;
	return 0;
}

struct order {
	int family, type, protocol;
	int fd, sys;
};

static void make_socket(void *arg)
{
	struct order *order = arg;
	order->fd = socket(order->family, order->type | SOCK_CLOEXEC, order->protocol);
	order->sys = errno;
}

int socket_as(const image_maker *maker, int family, int type, int protocol)
{
	struct order order = {family, type, protocol, -1, 0};
	image_maker anybody = *maker;
	anybody.pid = 0; /* the number does not matter */
	struct errand errand = {.who = &anybody, .root = -1, .work_as = make_socket, .arg = &order};
	if (errand_run(&errand) < 0)
		return -1;
	errno = order.sys;
	return order.fd;
}
