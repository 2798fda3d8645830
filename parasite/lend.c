/*
 * lend.c - descriptors of the engine, lent to this process while a plan runs. The rules of survival are those of agent.c.
 */
#include "parasite/agent.h"

/* Forgotten before it is closed: nothing else of the process may be closed under that number later. */
static int64_t drop(int32_t *lent)
{
	int32_t fd = *lent;
	*lent = -1;
	return fd < 0 ? 0 : SYSCALL(__NR_close, fd);
}

int64_t make_sockets(struct ctl *ctl)
{
	int32_t ends[2];
	int64_t result = SYSCALL(__NR_socketpair, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends);
	if (is_error(result))
		return result;
	ctl->lent[0] = ends[0];
	ctl->lent[1] = ends[1];
	return 0;
}

struct descriptor_message { /* struct cmsghdr of recvmsg(2), with one descriptor */
	uint64_t length;
	int32_t level, type;
	int32_t fd, padding;
};

/* A byte with a descriptor; without one if the process may have no more of them. */
static int32_t receive(int32_t socket)
{
	struct descriptor_message control = {.fd = -1};
	uint8_t byte;
	struct {
		void *base;
		uint64_t length;
	} vector = {&byte, 1};
	struct { /* struct user_msghdr, include/linux/socket.h */
		void *name;
		uint64_t name_length;
		void *vectors;
		uint64_t n_vectors;
		void *control;
		uint64_t control_length;
		uint64_t flags;
	} message = {.vectors = &vector, .n_vectors = 1, .control = &control, .control_length = sizeof(control)};
	int64_t got = SYSCALL(__NR_recvmsg, socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	return got == 1 && message.control_length ? control.fd : -1;
}

int64_t borrow(struct ctl *ctl)
{
	if (ctl->lent[0] >= 0)
		ctl->lent[2] = receive(ctl->lent[0]);
	drop(&ctl->lent[0]);
	drop(&ctl->lent[1]);
	return ctl->lent[2];
}

/* Windows, too, are forgotten before they are unmapped. */
int64_t give_back(struct ctl *ctl)
{
	for (uint32_t i = 0; i < ctl->n_tasks; i++) {
		uint64_t window = ctl_task(ctl, i)->window;
		ctl_task(ctl, i)->window = 0;
		if (window)
			SYSCALL(__NR_munmap, window, ctl_task(ctl, i)->window_size);
	}
	for (uint32_t i = 0; i < 3; i++)
		drop(&ctl->lent[i]);
	return 0;
}
