/*
 * syscall_names.h - system calls by name, for plans and threads that are printed.
 */
#ifndef RESTORER_SYSCALL_NAMES_H
#define RESTORER_SYSCALL_NAMES_H

/* "read", or NULL for numbers this build does not know. */
const char *syscall_name(long number);

#endif
