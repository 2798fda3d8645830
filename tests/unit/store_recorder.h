/*
 * store_recorder.h - what a store asked of the kernel, and the directory that a power cut would have left of it.
 *
 * The calls that change names or make something durable are wrapped (ld --wrap, tests/CMakeLists.txt); content is
 * stored through mappings, of which the store tells when it is durable (medium_persisted_hook). So at each moment
 * it is known of every page and every name whether the disk surely has it. The model is the least that
 * fsync(2) and msync(2) promise, so it is worse than any file system:
 *
 *	content   of what is not durable each page is old, new or garbage; the length is the old or the new one
 *	names     each change (one call) happened or not, whatever became of those before it, until its directory
 *		  was synchronised; a call that changes two names changes both or none
 *
 * crash() builds such a directory, and another, and lets the test look into each.
 */
#ifndef STORE_RECORDER_H
#define STORE_RECORDER_H

#define RECORDER_NAMES 32
#define RECORDER_PENDING 16
#define RECORDER_BYTES (LAYOUT_PAGES + 64 * STORE_PAGE) /* what lies behind is zero in these tests */

struct inode {
	ino_t ino;
	int fd; /* held open: its number is not given to another meanwhile */
	char *durable, *now;
	uint64_t durable_length, now_length;
};

struct name {
	char path[128]; /* below the store */
	ino_t ino;
};

struct names {
	struct name name[RECORDER_NAMES];
	unsigned n;
};

/* What one call did to the names. */
struct change {
	struct names gone, come;
};

static const char *const recorder_parts[] = {STORE_IMAGES, STORE_POOL, STORE_TMP, STORE_ANCESTORS};

static struct {
	char crashed[64]; /* where what a crash leaves is built; in memory */
	struct inode inode[64];
	unsigned n_inodes;
	struct names seen, durable;
	struct change pending[RECORDER_PENDING];
	unsigned n_pending;
	bool on, full;
	unsigned random_state;
	unsigned long moments, orders, states; /* at which, ways to lose names, directories looked into */
	void (*look)(const char *directory, const char *how);
} recorder;

static inline unsigned recorder_random(unsigned below)
{
	recorder.random_state = recorder.random_state * 1103515245 + 12345;
	return (recorder.random_state >> 16 & 0x7fff) % below;
}

/* --- what there is -------------------------------------------------------------------------- */

static inline struct inode *recorder_inode(const char *path, ino_t ino)
{
	for (unsigned i = 0; i < recorder.n_inodes; i++)
		if (recorder.inode[i].ino == ino)
			return &recorder.inode[i];
	assert_true(recorder.n_inodes < sizeof(recorder.inode) / sizeof(recorder.inode[0]));
	struct inode *inode = &recorder.inode[recorder.n_inodes++];
	*inode = (struct inode){.ino = ino, .fd = open(world_path(path), O_RDONLY | O_CLOEXEC)};
	inode->durable = calloc(1, RECORDER_BYTES);
	inode->now = calloc(1, RECORDER_BYTES);
	assert_true(inode->fd >= 0 && inode->durable && inode->now);
	return inode;
}

static inline void recorder_scan(struct names *out)
{
	out->n = 0;
	for (unsigned part = 0; part < 4; part++) {
		DIR *dir = opendir(world_path(recorder_parts[part]));
		for (struct dirent *entry; dir && (entry = readdir(dir));) {
			if (entry->d_name[0] == '.')
				continue;
			assert_true(out->n < RECORDER_NAMES);
			struct name *name = &out->name[out->n++];
			snprintf(name->path, sizeof(name->path), "%s/%.100s", recorder_parts[part], entry->d_name);
			name->ino = entry->d_ino;
			recorder_inode(name->path, name->ino);
		}
		if (dir)
			closedir(dir);
	}
}

static inline struct name *names_find(struct names *names, const char *path)
{
	for (unsigned i = 0; i < names->n; i++)
		if (strcmp(names->name[i].path, path) == 0)
			return &names->name[i];
	return NULL;
}

static inline void names_without(struct names *names, struct names *others, struct names *out)
{
	out->n = 0;
	for (unsigned i = 0; i < names->n; i++) {
		struct name *same = names_find(others, names->name[i].path);
		if (!same || same->ino != names->name[i].ino)
			out->name[out->n++] = names->name[i];
	}
}

static inline void names_apply(struct names *names, const struct change *change)
{
	for (unsigned i = 0; i < change->gone.n; i++) {
		struct name *name = names_find(names, change->gone.name[i].path);
		if (name && name->ino == change->gone.name[i].ino)
			*name = names->name[--names->n];
	}
	for (unsigned i = 0; i < change->come.n; i++) {
		struct name *there = names_find(names, change->come.name[i].path);
		if (!there)
			assert_true(names->n < RECORDER_NAMES);
		*(there ? there : &names->name[names->n++]) = change->come.name[i];
	}
}

/* The names changed since the last look, by one call. */
static inline void recorder_note_names(void)
{
	static struct names now;
	struct change change;
	recorder_scan(&now);
	names_without(&recorder.seen, &now, &change.gone);
	names_without(&now, &recorder.seen, &change.come);
	recorder.seen = now;
	if (change.gone.n + change.come.n == 0)
		return;
	assert_true(recorder.n_pending < RECORDER_PENDING);
	recorder.pending[recorder.n_pending++] = change;
}

static inline void recorder_read_content(void)
{
	for (unsigned i = 0; i < recorder.n_inodes; i++) {
		struct inode *inode = &recorder.inode[i];
		struct stat st;
		assert_int_equal(fstat(inode->fd, &st), 0);
		inode->now_length = (uint64_t)st.st_size;
		uint64_t length = inode->now_length < RECORDER_BYTES ? inode->now_length : RECORDER_BYTES;
		memset(inode->now + length, 0, RECORDER_BYTES - length);
		assert_int_equal(pread(inode->fd, inode->now, length, 0), length);
	}
}

/* --- what a crash leaves of it ---------------------------------------------------------------- */

enum content { CONTENT_OLD, CONTENT_NEW, CONTENT_MIXED };

static inline void recorder_write_file(const struct inode *inode, const char *path, enum content content)
{
	static const char zero[STORE_PAGE];
	static char garbage[STORE_PAGE];
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	memset(garbage, 0xa5, sizeof(garbage));
	bool longer = content == CONTENT_MIXED ? recorder_random(2) : content == CONTENT_NEW;
	uint64_t length = longer ? inode->now_length : inode->durable_length;
	for (uint64_t at = 0; at < RECORDER_BYTES && at + STORE_PAGE <= length; at += STORE_PAGE) {
		const char *old = inode->durable + at, *now = inode->now + at, *page = content ? now : old;
		if (content == CONTENT_MIXED && memcmp(old, now, STORE_PAGE) != 0)
			page = (const char *[]){old, now, garbage}[recorder_random(3)];
		if (memcmp(page, zero, STORE_PAGE) != 0)
			assert_int_equal(pwrite(fd, page, STORE_PAGE, (off_t)at), STORE_PAGE);
	}
	assert_int_equal(ftruncate(fd, (off_t)length), 0);
	close(fd);
}

static inline void recorder_path(char *path, size_t size, const char *below)
{
	snprintf(path, size, "%s/%s", recorder.crashed, below);
}

static inline void recorder_build(struct names *names, enum content content)
{
	char path[256], first[256];
	nftw(recorder.crashed, world_remove_one, 16, FTW_DEPTH | FTW_PHYS);
	assert_int_equal(mkdir(recorder.crashed, 0700), 0);
	for (unsigned part = 0; part < 4; part++) {
		recorder_path(path, sizeof(path), recorder_parts[part]);
		assert_int_equal(mkdir(path, 0700), 0);
	}
	for (unsigned i = 0; i < names->n; i++) {
		unsigned same = 0;
		while (names->name[same].ino != names->name[i].ino)
			same++;
		recorder_path(path, sizeof(path), names->name[i].path);
		recorder_path(first, sizeof(first), names->name[same].path);
		if (same < i)
			assert_int_equal(link(first, path), 0);
		else
			recorder_write_file(recorder_inode(names->name[i].path, names->name[i].ino), path, content);
	}
}

static inline void recorder_look(unsigned applied)
{
	struct names names = recorder.durable;
	unsigned mixes = recorder.full ? 24 : 2;
	char how[96];
	for (unsigned i = 0; i < recorder.n_pending; i++)
		if (applied & 1u << i)
			names_apply(&names, &recorder.pending[i]);
	recorder.orders++;
	for (unsigned i = 0; i < 2 + mixes; i++) {
		recorder_build(&names, i < 2 ? (enum content)i : CONTENT_MIXED);
		snprintf(how, sizeof(how), "moment %lu, names %#x of %u, content %u", recorder.moments, applied,
			 recorder.n_pending, i);
		recorder.states++;
		recorder.look(recorder.crashed, how);
	}
}

/* All subsets where they are few, else every prefix and some others. */
static inline void crash(void)
{
	unsigned n = recorder.n_pending;
	recorder.moments++;
	recorder_read_content();
	if (n <= (recorder.full ? 6 : 2)) {
		for (unsigned applied = 0; applied < 1u << n; applied++)
			recorder_look(applied);
		return;
	}
	for (unsigned prefix = 0; prefix <= n; prefix++)
		recorder_look((1u << prefix) - 1);
	for (unsigned i = 0; i < (recorder.full ? 64 : 4); i++)
		recorder_look(recorder_random(1u << n));
}

/* --- what is durable ----------------------------------------------------------------------------- */

static inline struct inode *recorder_of(int fd)
{
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	for (unsigned i = 0; i < recorder.n_inodes; i++)
		if (recorder.inode[i].ino == st.st_ino)
			return &recorder.inode[i];
	return NULL;
}

static inline void recorder_settle_inode(struct inode *inode, uint64_t offset, uint64_t length)
{
	uint64_t end = offset + length < RECORDER_BYTES ? offset + length : RECORDER_BYTES;
	offset = offset / STORE_PAGE * STORE_PAGE; /* msync(2) takes whole pages */
	end = (end + STORE_PAGE - 1) / STORE_PAGE * STORE_PAGE;
	if (inode->durable_length < inode->now_length)
		inode->durable_length = inode->now_length; /* a page that is there is within the file */
	if (offset < end)
		memcpy(inode->durable + offset, inode->now + offset, end - offset);
}

static inline bool change_touches(const struct change *change, const char *part)
{
	size_t length = strlen(part);
	for (unsigned i = 0; i < change->gone.n; i++)
		if (strncmp(change->gone.name[i].path, part, length) == 0)
			return true;
	for (unsigned i = 0; i < change->come.n; i++)
		if (strncmp(change->come.name[i].path, part, length) == 0)
			return true;
	return false;
}

static inline void recorder_settle_names(const char *part)
{
	unsigned left = 0;
	for (unsigned i = 0; i < recorder.n_pending; i++) {
		if (!part || change_touches(&recorder.pending[i], part))
			names_apply(&recorder.durable, &recorder.pending[i]);
		else
			recorder.pending[left++] = recorder.pending[i];
	}
	recorder.n_pending = left;
}

static inline void recorder_settle_directory(int fd)
{
	struct stat st, there;
	assert_int_equal(fstat(fd, &st), 0);
	for (unsigned part = 0; part < 4; part++)
		if (stat(world_path(recorder_parts[part]), &there) == 0 && there.st_ino == st.st_ino)
			recorder_settle_names(recorder_parts[part]);
}

static inline void recorder_persisted(int fd, uint64_t offset, uint64_t length)
{
	if (!recorder.on)
		return;
	recorder.on = false;
	crash(); /* before it was */
	recorder_settle_inode(recorder_of(fd), offset, length);
	recorder.on = true;
}

static inline void recorder_synced(int fd)
{
	struct inode *inode = recorder_of(fd);
	crash();
	if (inode) {
		recorder_settle_inode(inode, 0, inode->now_length);
		inode->durable_length = inode->now_length;
	} else {
		recorder_settle_directory(fd);
	}
	crash();
}

static inline void recorder_start(void (*look)(const char *directory, const char *how))
{
	memset(&recorder, 0, sizeof(recorder));
	snprintf(recorder.crashed, sizeof(recorder.crashed), "/dev/shm/fsnap-crashed.%d", getpid());
	mkdir(recorder.crashed, 0700);
	recorder.full = getenv("FSNAP_CRASHES") != NULL;
	recorder.random_state = 1;
	recorder.look = look;
	recorder_scan(&recorder.seen);
	recorder.durable = recorder.seen;
	medium_persisted_hook = recorder_persisted;
	recorder.on = true;
}

static inline void recorder_stop(void)
{
	recorder.on = false;
	medium_persisted_hook = NULL;
	for (unsigned i = 0; i < recorder.n_inodes; i++) {
		close(recorder.inode[i].fd);
		free(recorder.inode[i].durable);
		free(recorder.inode[i].now);
	}
	nftw(recorder.crashed, world_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* --- the calls -------------------------------------------------------------------------------------- */

/* What is called while a crash is played is no call of the store's. */
#define RECORDED(call, ...)                                                                        \
	({                                                                                         \
		int result = __real_##call(__VA_ARGS__);                                           \
		if (recorder.on && result == 0) {                                                  \
			recorder.on = false;                                                       \
			recorder_note_names();                                                     \
			crash();                                                                   \
			recorder.on = true;                                                        \
		}                                                                                  \
		result;                                                                            \
	})

int __real_renameat(int from, const char *a, int to, const char *b);
int __real_renameat2(int from, const char *a, int to, const char *b, unsigned flags);
int __real_linkat(int from, const char *a, int to, const char *b, int flags);
int __real_unlinkat(int dir, const char *name, int flags);
int __real_ftruncate(int fd, off_t length);
int __real_fsync(int fd);

int __wrap_renameat(int from, const char *a, int to, const char *b)
{
	return RECORDED(renameat, from, a, to, b);
}

int __wrap_renameat2(int from, const char *a, int to, const char *b, unsigned flags)
{
	return RECORDED(renameat2, from, a, to, b, flags);
}

int __wrap_linkat(int from, const char *a, int to, const char *b, int flags)
{
	return RECORDED(linkat, from, a, to, b, flags);
}

int __wrap_unlinkat(int dir, const char *name, int flags)
{
	return RECORDED(unlinkat, dir, name, flags);
}

/* The first call on a file that was created: its name is noted here. */
int __wrap_ftruncate(int fd, off_t length)
{
	return RECORDED(ftruncate, fd, length);
}

int __wrap_fsync(int fd)
{
	int result = __real_fsync(fd);
	if (recorder.on && result == 0) {
		recorder.on = false;
		recorder_synced(fd);
		recorder.on = true;
	}
	return result;
}

#endif
