/*
 * restarts.h - results of interrupted system calls that only the kernel and a tracer see (include/linux/errno.h).
 */
#ifndef ENGINE_RESTARTS_H
#define ENGINE_RESTARTS_H

#define ERESTARTSYS 512		  /* begins anew, unless a handler without SA_RESTART has run */
#define ERESTARTNOINTR 513	  /* begins anew in any case */
#define ERESTARTNOHAND 514	  /* begins anew, unless a handler has run */
#define ERESTART_RESTARTBLOCK 516 /* goes on where it was, by restart_syscall(2) */

#endif
