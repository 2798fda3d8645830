#include "engine/end_tree.h"

#include <signal.h>

#include "engine/procfs.h"
#include "store/scope.h"

/* Nobody forks while being stopped; then nobody is left out. */
void end_tree(pid_t root)
{
	size_t n_threads = 0, n = 0;
	kill(root, SIGSTOP);
	cleanup_fd int dir = procfs_open(root, NULL);
	cleanup_free pid_t *threads = dir >= 0 ? procfs_threads(dir, &n_threads, NULL) : NULL;
	cleanup_free pid_t *children = threads ? procfs_children(dir, threads, n_threads, &n, NULL) : NULL;
	for (size_t i = 0; children && i < n; i++)
		end_tree(children[i]);
	kill(root, SIGKILL);
}
