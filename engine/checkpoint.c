/*
 * checkpoint.c - fsnap_checkpoint(): a program asks for an image of itself (mailbox.h).
 *
 * It may be called while other threads are anywhere, inside the C library, too, and hold its locks: from here to its
 * return nothing is allocated, no stream is used, and nothing else of the library is called that takes a lock.
 * The copies come out of the same sleep as the original.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/fsnap.h"
#include "engine/mailbox.h"
#include "engine/sized.h"

#define STACK_SIZE 65536
#define NAP_NS 200000	      /* between looks at the mailbox */
#define LOOK_FOR_COMMAND 500  /* naps: does it live? */
#define PATIENCE 150000	      /* naps, until it says that it does */

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

/* --- errors, without stdio --------------------------------------------------------------- */

static int refuse(struct fsnap_error *err, int code, int sys, const char *message, const char *hint)
{
	struct fsnap_error ignored;
	struct fsnap_error *to = err ? err : &ignored;
	memset(to, 0, sizeof(*to));
	to->code = code;
	to->sys = sys;
	strncat(to->message, message, sizeof(to->message) - 1);
	strncat(to->hint, hint, sizeof(to->hint) - 1);
	return -1;
}

/* --- the command ---------------------------------------------------------------------------- */

struct order {
	const char *paths[4]; /* where it may be */
	char *argv[24];
	pid_t pid;
	volatile int failed; /* errno: none of them could be started */
};

static char *number_into(char *end, uint64_t value)
{
	*--end = '\0';
	do
		*--end = (char)('0' + value % 10);
	while (value /= 10);
	return end;
}

/* In a child that has our memory, and nothing else of ours once it has begun. */
static int begin(void *arg)
{
	struct order *order = arg;
	extern char **environ;
	uint64_t none = 0;
	int null = open("/dev/null", O_RDWR);
	for (int i = 0; i < 3; i++)
		dup2(null, i);
	syscall(SYS_close_range, 3, ~0u, 0);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
	for (size_t i = 0; i < sizeof(order->paths) / sizeof(order->paths[0]); i++)
		if (order->paths[i])
			execve(order->paths[i], order->argv, environ);
	order->failed = errno;
	_exit(127);
}

/* It ends as soon as the one that does the work has begun, which is nobody's of the tree then: whose child it
 * becomes is not us, though we may be one who adopts orphans. */
static int start(struct order *order, struct fsnap_error *err)
{
	int adopts = 0;
	uint64_t all = ~0ull, before;
	char *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED)
		return refuse(err, FSNAP_E_NOMEM, errno, "no memory for a checkpoint", "");
	prctl(PR_GET_CHILD_SUBREAPER, &adopts);
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof(all));
	int child = clone(begin, stack + STACK_SIZE, CLONE_VM | CLONE_VFORK, order), sys = errno;
	while (child > 0 && waitpid(child, NULL, __WALL) < 0 && errno == EINTR)
		;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof(before));
	prctl(PR_SET_CHILD_SUBREAPER, adopts);
	munmap(stack, STACK_SIZE);
	if (child < 0)
		return refuse(err, FSNAP_E_SYSTEM, sys, "cannot start a process for a checkpoint", "");
	return order->failed ? refuse(err, FSNAP_E_SYSTEM, order->failed, "the fsnap command cannot be started",
				      "install it, or say where it is: options.command, or FSNAP_COMMAND") : 0;
}

/* --- waiting ----------------------------------------------------------------------------------- */

/* It may die without a word, but for the first: who it is. */
static bool command_lives(const struct mailbox *mailbox, unsigned naps)
{
	pid_t pid = __atomic_load_n(&mailbox->command, __ATOMIC_ACQUIRE);
	return pid == 0 ? naps < PATIENCE : kill(pid, 0) == 0 || errno == EPERM;
}

static uint32_t await(struct mailbox *mailbox)
{
	const struct timespec nap = { .tv_nsec = NAP_NS };
	for (unsigned i = 1;; i++) {
		uint32_t word = __atomic_load_n(&mailbox->word, __ATOMIC_ACQUIRE);
		if (word != MAILBOX_WAITING)
			return word;
		syscall(SYS_futex, &mailbox->word, FUTEX_WAIT, MAILBOX_WAITING, &nap, NULL, 0);
		if (i % LOOK_FOR_COMMAND == 0 && !command_lives(mailbox, i))
			return __atomic_load_n(&mailbox->word, __ATOMIC_ACQUIRE);
	}
}

/* --- the call ------------------------------------------------------------------------------------ */

static void list_arguments(struct order *order, const struct fsnap_checkpoint_options *options, char *at, char *pid)
{
	char **to = order->argv;
	*to++ = "fsnap";
	*to++ = "dump";
	*to++ = "--quiet";
	*to++ = "-t";
	*to++ = pid;
	*to++ = "--mailbox";
	*to++ = at;
	if (options->store)
		*to++ = "--store", *to++ = (char *)options->store;
	if (options->name)
		*to++ = "--name", *to++ = (char *)options->name;
	*to = NULL;
}

static const char *variable(const char *name)
{
	extern char **environ;
	size_t length = strlen(name);
	for (char **at = environ; at && *at; at++)
		if (strncmp(*at, name, length) == 0 && (*at)[length] == '=')
			return *at + length + 1;
	return NULL;
}

static int order_dump(struct mailbox *mailbox, const struct fsnap_checkpoint_options *options, struct fsnap_error *err)
{
	char at[24], pid[24];
	struct order order = { .pid = getpid(),
			       .paths = { options->command ? options->command : variable("FSNAP_COMMAND"),
					  FSNAP_COMMAND_PATH, "/usr/local/bin/fsnap", "/usr/bin/fsnap" } };
	list_arguments(&order, options, number_into(at + sizeof(at), (uintptr_t)mailbox),
		       number_into(pid + sizeof(pid), (uint64_t)order.pid));
	/* Where the Yama module lets only ancestors trace (ptrace_scope 1), it is told that others may. */
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
	if (start(&order, err) < 0)
		return -1;
	uint32_t word = await(mailbox);
	prctl(PR_SET_PTRACER, 0);
	if (word == MAILBOX_WAITING)
		return refuse(err, FSNAP_E_SYSTEM, 0, "the fsnap command ended without an answer", "");
	if (word != MAILBOX_FAILED)
		return (int)word;
	if (err)
		*err = mailbox->told.err;
	return -1;
}

static void report_copy(const struct mailbox *mailbox, struct fsnap_checkpoint_report *report)
{
	report->copy = mailbox->copy;
	report->message = mailbox->bytes;
	report->message_length = mailbox->message_length;
	report->variables = mailbox->bytes + mailbox->message_length + 1;
	report->variables_length = mailbox->variables_length;
}

int fsnap_checkpoint(const struct fsnap_checkpoint_options *options, struct fsnap_checkpoint_report *report,
		     struct fsnap_error *err)
{
	struct fsnap_checkpoint_options known;
	struct fsnap_checkpoint_report own = { 0 };
	sized_take(&known, sizeof(known), options);
	struct mailbox *mailbox = mmap(NULL, MAILBOX_SIZE, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mailbox == MAP_FAILED)
		return refuse(err, FSNAP_E_NOMEM, errno, "no memory for a checkpoint", "");
	prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, mailbox, MAILBOX_SIZE, "fsnap mailbox");
	mailbox->magic = MAILBOX_MAGIC;
	int word = order_dump(mailbox, &known, err);
	bool copy = word == MAILBOX_COPY;
	memcpy(own.image, mailbox->told.report.image, sizeof(own.image));
	own.frozen_us = copy ? 0 : mailbox->told.report.frozen_us;
	own.result = copy ? FSNAP_COPY : FSNAP_ORIGINAL;
	if (copy)
		report_copy(mailbox, &own);
	else
		munmap(mailbox, MAILBOX_SIZE);
	if (word < 0)
		return -1;
	sized_tell(report, &own, sizeof(own));
	if (copy && known.on_copy)
		known.on_copy(known.on_copy_arg, &own);
	return own.result;
}

const char *fsnap_copy_variable(const struct fsnap_checkpoint_report *report, const char *name)
{
	size_t length = strlen(name);
	const char *at = report->variables, *end = at ? at + report->variables_length : at;
	for (; at < end; at += strlen(at) + 1)
		if (strncmp(at, name, length) == 0 && at[length] == '=')
			return at + length + 1;
	return NULL;
}
