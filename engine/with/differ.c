#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/with/with.h"
#include "store/scope.h"

#define CHUNK (256 << 10)

static bool same_content(int left_root, int right_root, const char *left_path, const char *right_path)
{
	cleanup_fd int left = with_open(left_root, left_path, O_RDONLY | O_NOCTTY, 0);
	cleanup_fd int right = with_open(right_root, right_path, O_RDONLY | O_NOCTTY, 0);
	cleanup_free char *one = malloc(CHUNK), *two = malloc(CHUNK);

	while (left >= 0 && right >= 0 && one && two) {
		ssize_t n = read(left, one, CHUNK);
		if (n < 0 || read(right, two, CHUNK) != n || memcmp(one, two, (size_t)n) != 0)
			return false;
		if (n == 0)
			return true;
	}
	return false;
}

static bool same_target(int left_root, int right_root, const char *left_path, const char *right_path)
{
	char one[4096], two[4096];
	cleanup_fd int left = with_open(left_root, left_path, O_PATH, 0);
	cleanup_fd int right = with_open(right_root, right_path, O_PATH, 0);
	ssize_t n = left < 0 ? -1 : readlinkat(left, "", one, sizeof(one));

	return n > 0 && right >= 0 && readlinkat(right, "", two, sizeof(two)) == n && !memcmp(one, two, (size_t)n);
}

bool with_alike(int left_root, const struct with_entry *left, int right_root, const struct with_entry *right,
		bool mapped)
{
	const struct stat *one = &left->stat, *two = &right->stat;

	if (one->st_mode != two->st_mode || one->st_uid != two->st_uid || one->st_gid != two->st_gid)
		return false;
	if (S_ISDIR(one->st_mode) || S_ISFIFO(one->st_mode))
		return true;
	if (S_ISLNK(one->st_mode))
		return same_target(left_root, right_root, left->path, right->path);
	if (!S_ISREG(one->st_mode))
		return one->st_rdev == two->st_rdev;
	return one->st_size == two->st_size && with_ns(one->st_mtim) == with_ns(two->st_mtim) &&
	       (!mapped || same_content(left_root, right_root, left->path, right->path));
}
