/*
 * end_tree.h - a process and all its descendants, killed.
 */
#ifndef ENGINE_END_TREE_H
#define ENGINE_END_TREE_H

#include <sys/types.h>

/* Nobody is waited for. Who was left by his parent before, and is somebody else's child by now, is not found. */
void end_tree(pid_t root);

#endif
