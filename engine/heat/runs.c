#include <stdint.h>
#include <stdlib.h>

#include "engine/heat/heat.h"
#include "store/scope.h"

#define HOTTEST 3

int heat_runs_add(struct heat_file *file, uint64_t page, uint64_t pages, unsigned heat)
{
	u_int n = file->image.runs.runs_len;
	image_heat_run *runs = file->image.runs.runs_val;
	if (n && runs[n - 1].heat == heat && runs[n - 1].page + runs[n - 1].pages == page &&
	    pages < UINT32_MAX - runs[n - 1].pages) {
		runs[n - 1].pages += (unsigned)pages;
		return 0;
	}
	if (n == file->room) {
		size_t room = file->room ? 2 * file->room : 16;
		runs = realloc(runs, room * sizeof(*runs));
		if (!runs)
			return -1;
		file->image.runs.runs_val = runs;
		file->room = room;
	}
	runs[n] = (image_heat_run){ .page = page, .pages = (unsigned)pages, .heat = heat };
	file->image.runs.runs_len++;
	return 0;
}

/* --- overlaps --------------------------------------------------------------------- */

/* A run of heat h begins (change 1) or ends (-1) at a page. */
struct edge {
	uint64_t page;
	int heat, change;
};

static int by_page(const void *a, const void *b)
{
	const struct edge *left = a, *right = b;
	return left->page < right->page ? -1 : left->page > right->page;
}

static struct edge *edges_of(const image_heat *image)
{
	u_int n = image->runs.runs_len;
	struct edge *edges = malloc(2 * n * sizeof(*edges) + 1);
	for (u_int i = 0; edges && i < n; i++) {
		const image_heat_run *run = &image->runs.runs_val[i];
		edges[2 * i] = (struct edge){ run->page, (int)run->heat, 1 };
		edges[2 * i + 1] = (struct edge){ run->page + run->pages, (int)run->heat, -1 };
	}
	if (edges)
		qsort(edges, 2 * n, sizeof(*edges), by_page);
	return edges;
}

static unsigned hottest(const int *open)
{
	unsigned heat = HOTTEST;
	while (heat && !open[heat])
		heat--;
	return heat;
}

static int overlay(struct heat_file *file)
{
	size_t n = 2 * (size_t)file->image.runs.runs_len;
	cleanup_free struct edge *edges = edges_of(&file->image);
	if (!edges)
		return -1;
	int open[HOTTEST + 1] = { 0 };
	file->image.runs.runs_len = 0;
	for (size_t i = 0; i < n; i++) {
		open[edges[i].heat] += edges[i].change;
		unsigned heat = hottest(open);
		uint64_t next = i + 1 < n ? edges[i + 1].page : edges[i].page;
		/* There are at most as many pieces as edges, twice the room of the runs at worst. */
		if (heat && next > edges[i].page &&
		    heat_runs_add(file, edges[i].page, next - edges[i].page, heat) < 0)
			return -1;
	}
	return 0;
}

/* --- few enough ------------------------------------------------------------------------ */

/* Joins neighbours that are at most `gap` pages apart. Of two heats the greater counts. */
static void join(image_heat *image, uint64_t gap)
{
	image_heat_run *runs = image->runs.runs_val;
	u_int kept = 0;
	for (u_int i = 1; i < image->runs.runs_len; i++) {
		image_heat_run *last = &runs[kept];
		uint64_t end = last->page + last->pages;
		if (runs[i].page - end > gap || runs[i].page + runs[i].pages - last->page > UINT32_MAX) {
			runs[++kept] = runs[i];
			continue;
		}
		last->pages = (unsigned)(runs[i].page + runs[i].pages - last->page);
		last->heat = runs[i].heat > last->heat ? runs[i].heat : last->heat;
	}
	image->runs.runs_len = image->runs.runs_len ? kept + 1 : 0;
}

int heat_runs_settle(struct heat_file *file)
{
	if (overlay(file) < 0)
		return -1;
	for (uint64_t gap = 1; file->image.runs.runs_len > HEAT_RUNS; gap *= 2)
		join(&file->image, gap);
	return 0;
}

uint64_t heat_pages(const image_heat *image, unsigned at_least)
{
	uint64_t pages = 0;
	for (u_int i = 0; i < image->runs.runs_len; i++)
		pages += image->runs.runs_val[i].heat >= at_least ? image->runs.runs_val[i].pages : 0;
	return pages;
}
