/*
 * aside.h - another processor for who lets a program go: it begins on the one that it was stopped on, which is where we
 * waited for that. One of the two has to wait for the other there, though the next processor may have nothing to do; the
 * kernel looks for that some milliseconds later.
 */
#ifndef ENGINE_ASIDE_H
#define ENGINE_ASIDE_H

/* The calling thread, if nobody else wants a processor. */
void aside_step(void);

#endif
