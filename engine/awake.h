/*
 * awake.h - processors that do not fall asleep while a tree is stopped or made.
 *
 * Tracer and tracee take turns dozens of times, each for some microseconds, and the processor of the one that waits is
 * idle meanwhile.  To wake one that sleeps takes longer than all else: 25-60 us in a virtual machine, where the host
 * has to bring it back, and as much from the deeper sleeps of real ones.  Whoever may say so to the kernel
 * (Documentation/power/pm_qos_interface.rst) is spared that: it polls instead.  Should fsnap die, it is taken back.
 */
#ifndef ENGINE_AWAKE_H
#define ENGINE_AWAKE_H

/* A descriptor that keeps them awake until it is closed; -1: we may not, or the kernel cannot. */
int awake_begin(void);
void awake_end(int *awake);

#endif
