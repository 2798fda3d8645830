/*
 * POSIX message queues, mq_overview(7).
 *
 * A queue with a name is like a file: it stays in the kernel when the program has
 * gone, and if it is still there at a restore the program finds it; else it is made
 * again.  Messages are looked at in the kernel's memory (peek.h), because receiving
 * them takes them away.  A registration of mq_notify(3) is made again by the
 * process that had made it.
 */
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "engine/kinds/peek.h"
#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

#define LARGE_FILE 0100000u /* the kernel's O_LARGEFILE; libc says 0 */
#define MQUEUE_FS 0x19800202 /* linux/ipc/mqueue.c: not in a header */

static bool mqueue_matches(const struct fd_view *fd)
{
	struct statfs fs;
	return S_ISREG(fd->stat.st_mode) && !(fd->flags & O_PATH) && fd->dup >= 0 &&
	       fstatfs(fd->dup, &fs) == 0 && fs.f_type == MQUEUE_FS;
}

static uint64_t mqueue_key(const void *state)
{
	return ((const image_file_mqueue *)state)->queue;
}

static int reopen(int fd, int flags)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_NONBLOCK | O_CLOEXEC);
}

/* --- what is in it --------------------------------------------------------------- */

enum where { INODE, TREE, NOTIFY, RIGHT, LEFT, NODE, LIST, PRIORITY, LINK, SIZE, NEXT, SECURITY, WHERES };

struct look {
	struct peek *peek;
	struct peek_member at[WHERES];
	image_file_mqueue *state;
	unsigned most;
};

static bool prepare(struct look *look, struct dump *dump)
{
	look->peek = dump_peek(dump);
	const struct peek_member at[WHERES] = {
		[INODE] = {"mqueue_inode_info", "vfs_inode", 0},
		[TREE] = {"mqueue_inode_info", "msg_tree.rb_node", 0},
		[NOTIFY] = {"mqueue_inode_info", "notify", 0},
		[RIGHT] = {"rb_node", "rb_right", 0},
		[LEFT] = {"rb_node", "rb_left", 0},
		[NODE] = {"posix_msg_tree_node", "rb_node", 0},
		[LIST] = {"posix_msg_tree_node", "msg_list", 0},
		[PRIORITY] = {"posix_msg_tree_node", "priority", 0},
		[LINK] = {"msg_msg", "m_list", 0},
		[SIZE] = {"msg_msg", "m_ts", 0},
		[NEXT] = {"msg_msg", "next", 0},
		[SECURITY] = {"msg_msg", "security", 0}, /* the last: the text follows */
	};
	memcpy(look->at, at, sizeof(at));
	return look->peek && peek_layout(look->peek, look->at, WHERES);
}

/* The text of a message: up to a page with the head, then pages with a pointer each (ipc/msgutil.c). */
static int add_message(struct look *look, uint64_t message, unsigned priority)
{
	enum { PAGE = 4096 };
	uint64_t head = look->at[SECURITY].offset + 8, size = peek_word(look->peek, message, look->at[SIZE].offset);
	if (look->state->messages.messages_len >= look->most || size > look->state->message_size)
		return -1;
	image_priority_message *slot = append(look->state->messages, messages);
	if (!slot || !(slot->data.data_val = malloc(size + 1)))
		return -1;
	slot->priority = priority;
	uint64_t segment = message, part = size < PAGE - head ? size : PAGE - head;
	for (uint64_t done = 0; done < size; part = size - done < PAGE - 8 ? size - done : PAGE - 8) {
		if (!peek_bytes(look->peek, segment + head, slot->data.data_val + done, part))
			return -1;
		done += part;
		segment = peek_word(look->peek, segment, done == part ? look->at[NEXT].offset : 0);
		head = 8;
	}
	slot->data.data_len = (unsigned)size;
	return 0;
}

/* From the highest priority down, as they would be received. */
static int add_tree(struct look *look, uint64_t node, unsigned depth)
{
	if (!node)
		return 0;
	if (depth > 64 || add_tree(look, peek_word(look->peek, node, look->at[RIGHT].offset), depth + 1) < 0)
		return -1;
	uint64_t leaf = node - look->at[NODE].offset, head = leaf + look->at[LIST].offset;
	unsigned priority = peek_half(look->peek, leaf, look->at[PRIORITY].offset);
	uint64_t link = peek_word(look->peek, head, 0);
	for (; link && link != head; link = peek_word(look->peek, link, 0))
		if (add_message(look, link - look->at[LINK].offset, priority) < 0)
			return -1;
	return add_tree(look, peek_word(look->peek, node, look->at[LEFT].offset), depth + 1);
}

static bool look_inside(const struct fd_view *fd, image_file_mqueue *state, unsigned waiting)
{
	struct look look = {.state = state, .most = waiting};
	uint64_t inode = prepare(&look, fd->dump) ? peek_inode(look.peek, fd->dup) : 0;
	if (!inode)
		return false;
	uint64_t queue = inode - look.at[INODE].offset;
	state->notify_value = peek_word(look.peek, queue, look.at[NOTIFY].offset); /* sigev_value is first */
	return add_tree(&look, peek_word(look.peek, queue, look.at[TREE].offset), 0) == 0 &&
	       state->messages.messages_len == waiting;
}

/* --- dump ----------------------------------------------------------------------------- */

/* "QSIZE:129 NOTIFY:0 SIGNO:10 NOTIFY_PID:8260": what the file says when it is read. */
static int save_notification(const struct fd_view *fd, image_file_mqueue *state, struct fsnap_error *err)
{
	char text[256];
	int pid = 0;
	cleanup_fd int own = reopen(fd->dup, O_RDONLY);
	ssize_t size = own < 0 ? -1 : pread(own, text, sizeof(text) - 1, 0);
	text[size < 0 ? 0 : size] = '\0';
	if (sscanf(text, "QSIZE:%*u NOTIFY:%d SIGNO:%d NOTIFY_PID:%d", &state->notify, &state->notify_signo,
		   &pid) != 3)
		return refuse_fd(fd, err, "Run fsnap as root.", "a message queue that cannot be looked into");
	if (!pid || !tree_find(dump_tree(fd->dump), pid))
		return 0;
	if (state->notify == SIGEV_THREAD)
		return refuse_fd(fd, err, "Let it be told by a signal.",
				 "a message queue that starts a thread when a message comes (SIGEV_THREAD)");
	state->notify_pid = pid;
	return 0;
}

static int save_name(const struct fd_view *fd, image_file_mqueue *state, struct fsnap_error *err)
{
	static const char deleted[] = " (deleted)";
	const char *slash = strrchr(fd->link, '/');
	if (set_string(&state->name, slash ? slash + 1 : fd->link, err) < 0)
		return -1;
	size_t length = strlen(state->name), mark = strlen(deleted);
	state->deleted = fd->stat.st_nlink == 0;
	if (state->deleted && length > mark && !strcmp(state->name + length - mark, deleted))
		state->name[length - mark] = '\0';
	return 0;
}

static int mqueue_save(const struct fd_view *fd, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_mqueue *state = out;
	struct mq_attr attributes;
	file->flags |= (unsigned)fcntl(fd->dup, F_GETFL) & O_CLOEXEC; /* mq_open(3) leaves it there */
	if (save_name(fd, state, err) < 0)
		return -1;
	if (mq_getattr(fd->dup, &attributes) < 0)
		return refuse_fd(fd, err, "Close it before the dump.", "a message queue that gives no attributes");
	state->queue = fd->stat.st_ino;
	state->mode = fd->stat.st_mode & 07777;
	state->uid = fd->stat.st_uid;
	state->gid = fd->stat.st_gid;
	state->most_messages = (uint64_t)attributes.mq_maxmsg;
	state->message_size = (uint64_t)attributes.mq_msgsize;
	if (save_notification(fd, state, err) < 0)
		return -1;
	unsigned waiting = (unsigned)attributes.mq_curmsgs;
	bool signals = state->notify_pid && state->notify == SIGEV_SIGNAL;
	if ((!waiting && !signals) || look_inside(fd, state, waiting))
		return 0;
	return refuse_fd(fd, err, "The kernel does not let anybody look at them without taking them (that needs "
				  "BPF and its type information): dump when they have been received.",
			 "a message queue with %u messages in it", waiting);
}

/* What is in it is stored once. */
static int mqueue_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err)
{
	(void)file;
	(void)err;
	image_file_mqueue *state = out, *other;
	size_t at = 0;
	other = dump_file_next(dump, &kind_mqueue, mqueue_key(state), &at, NULL);
	if (!other || other == state)
		return 0;
	for (unsigned i = 0; i < state->messages.messages_len; i++)
		free(state->messages.messages_val[i].data.data_val);
	free(state->messages.messages_val);
	state->messages.messages_val = NULL;
	state->messages.messages_len = 0;
	state->notify_pid = 0;
	return 0;
}

/* --- restore ---------------------------------------------------------------------------- */

static int failed(const image_file_mqueue *state, struct fsnap_error *err, const char *step)
{
	return fail(err, FSNAP_E_RESTORE_STEP, errno, "message queue /%s: %s", state->name, step);
}

static int send_all(int queue, const image_file_mqueue *state)
{
	for (unsigned i = 0; i < state->messages.messages_len; i++) {
		const image_priority_message *message = &state->messages.messages_val[i];
		if (mq_send(queue, message->data.data_val, message->data.data_len, message->priority) < 0)
			return -1;
	}
	return 0;
}

static void remove_queue(const char *name)
{
	mq_unlink(name);
}

static int create_taken_back(struct restore *restore, const char *name, int flags, struct mq_attr *attributes)
{
	restore_takes_back(restore, remove_queue, name);
	int fd = mq_open(name, flags, 0600, attributes), sys = errno;
	if (fd < 0)
		restore_not_made(restore);
	errno = sys;
	return fd;
}

/* A queue without a name has one until everybody has opened it. */
static int create(struct restore *restore, const image_file_mqueue *state, char name[300],
		  struct fsnap_error *err)
{
	struct mq_attr attributes = {.mq_maxmsg = (long)state->most_messages,
				     .mq_msgsize = (long)state->message_size};
	int flags = O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK; /* all close on exec; the flag would stay to be seen */
	cleanup_fd int fd = create_taken_back(restore, name, flags, &attributes);
	if (fd < 0 && errno == EEXIST && state->deleted) {
		snprintf(name, 300, "/fsnap.%d.%llu", getpid(), (unsigned long long)state->queue);
		fd = create_taken_back(restore, name, flags, &attributes);
	}
	if (fd < 0) {
		failed(state, err, "create");
		return error_hint(err, "Raise the values of /proc/sys/fs/mqueue, and ulimit -q.");
	}
	if (fchown(fd, state->uid, state->gid) == 0 && fchmod(fd, state->mode) == 0 && send_all(fd, state) == 0)
		return steal_fd(&fd);
	return failed(state, err, "fill");
}

/* It is where it was left, or somebody has made it since. */
static int check_found(struct restore *restore, int fd, const image_file_mqueue *state, struct fsnap_error *err)
{
	struct mq_attr seen;
	if (mq_getattr(fd, &seen) < 0)
		return failed(state, err, "attributes");
	if ((uint64_t)seen.mq_maxmsg != state->most_messages || (uint64_t)seen.mq_msgsize != state->message_size) {
		fail(err, FSNAP_E_FILE_CHANGED, 0, "the message queue /%s is not the one it was", state->name);
		return error_hint(err, "Remove it: the restore makes it again.");
	}
	unsigned waiting = (unsigned)seen.mq_curmsgs, had = state->messages.messages_len;
	if (waiting == had)
		return 0;
	if (restore_is_beside(restore))
		restore_note(restore, "the message queue /%s is the original's, too; the %u messages it held when saved "
				      "are not added", state->name, had);
	else if (waiting)
		restore_note(restore, "the message queue /%s holds %u messages; the %u it held when saved are not "
				      "added", state->name, waiting, had);
	else if (send_all(fd, state) < 0)
		return failed(state, err, "fill");
	return 0;
}

static int make_queue(struct restore *restore, const image_file_mqueue *state, char name[300],
		      struct fsnap_error *err)
{
	cleanup_fd int fd = state->deleted ? -1 : mq_open(name, O_RDWR | O_NONBLOCK);
	if (fd < 0 && !state->deleted && errno != ENOENT)
		return failed(state, err, "open");
	if (fd < 0)
		return create(restore, state, name, err);
	return check_found(restore, fd, state, err) < 0 ? -1 : steal_fd(&fd);
}

/* All who have it open come into being together. */
static int mqueue_make(struct restore *restore, const image_file *file, const void *in,
		       struct fsnap_error *err)
{
	const image_file_mqueue *state = in, *other;
	const image_file *each;
	char name[300];
	snprintf(name, sizeof(name), "/%s", state->name);
	cleanup_fd int own = make_queue(restore, state, name, err);
	if (own < 0)
		return -1;
	int made = -1;
	for (size_t at = 0; (other = restore_file_next(restore, &kind_mqueue, mqueue_key(state), &at, &each));) {
		int flags = (int)(each->flags & (O_ACCMODE | O_CLOEXEC));
		/* open(2) would add O_LARGEFILE, which is there if it was opened as a file. */
		int fd = each->flags & LARGE_FILE ? reopen(own, flags) :
						    mq_open(name, flags | O_NONBLOCK);
		if (fd < 0) {
			failed(state, err, "open");
			break;
		}
		if (each == file)
			made = fd;
		else
			restore_give(restore, each->id, fd);
	}
	if (state->deleted) {
		mq_unlink(name);
		restore_not_made(restore);
	}
	return made;
}

static pid_t mqueue_settler(const void *in)
{
	return ((const image_file_mqueue *)in)->notify_pid;
}

static void mqueue_settle_late(struct restore *restore, const image_file *file, const void *in,
			       struct plans *plans, uint32_t task, int fd)
{
	(void)restore;
	(void)file;
	const image_file_mqueue *state = in;
	struct sigevent event = {.sigev_value.sival_ptr = (void *)(uintptr_t)state->notify_value,
				 .sigev_signo = state->notify_signo, .sigev_notify = state->notify};
	if (!state->notify_pid)
		return;
	plan_note(plans, "message queue /%s: tell of messages", state->name);
	plan_call(plans, task, SYS_mq_notify, IMM(fd), DATA(plans_data(plans, &event, sizeof(event), 8)));
}

const struct file_kind kind_mqueue = {
	.name = "mqueue",
	.keeps = "attributes, messages in order with their priorities, queues without a name, who is notified how",
	.refuses = "notification by a thread; messages, where the kernel does not let us look",
	.shown_by = "mqueue_*",
	.xdr = (xdrproc_t)xdr_image_file_mqueue,
	.key = mqueue_key,
	.matches = mqueue_matches,
	.save = mqueue_save,
	.save_links = mqueue_save_links,
	.make = mqueue_make,
	.settle_late = mqueue_settle_late,
	.settler = mqueue_settler,
};
