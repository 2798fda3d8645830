/*
 * progress.c - how far long work is.  Short work must not pay for it: until half
 * a second has passed, an update is one reading of the clock.
 */
#include <time.h>
#include <unistd.h>

#include "engine/cli/cli.h"

#define PATIENCE_US 500000
#define REDRAW_US 100000
#define UNTOLD_US 100000 /* of work that tells nothing until it is done */
#define CELLS 24

static uint64_t clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void draw(const char *phase, uint64_t done, uint64_t total)
{
	char bar[CELLS + 1];

	if (!total) {
		fprintf(stderr, "\r\033[K%s ...", phase);
		return;
	}
	if (done > total)
		done = total;
	double share = (double)done / (double)total;
	for (int i = 0; i < CELLS; i++)
		bar[i] = i < (int)(share * CELLS) ? '#' : '.';
	bar[CELLS] = '\0';
	fprintf(stderr, "\r\033[K%s [%s] %3.0f %%", phase, bar, share * 100);
}

void progress_update(void *opaque, const char *phase, uint64_t done, uint64_t total)
{
	struct progress *progress = opaque;
	uint64_t now = clock_us();

	if (!progress->began_us)
		progress->began_us = now;
	if (now - progress->began_us < (total ? PATIENCE_US : UNTOLD_US) || (total && now - progress->drawn_us < REDRAW_US))
		return;
	if (!progress->state)
		progress->state = isatty(STDERR_FILENO) ? 1 : -1;
	if (progress->state < 0)
		return;
	draw(phase, done, total);
	fflush(stderr);
	progress->drawn_us = now;
	progress->visible = true;
}

void progress_end(struct progress *progress)
{
	if (progress->visible)
		fputs("\r\033[K", stderr);
	progress->visible = false;
}
