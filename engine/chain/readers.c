/*
 * readers.c - BPF programs that tell how long threads still sleep. Loading one takes longer than all the rest of an
 * image: who makes one every ten milliseconds keeps them.
 */
#include "bpf/sleep.h"
#include "bpf/wake.h"
#include "engine/chain/chain.h"

static struct readers *kept(struct dump *dump)
{
	return dump->chain && dump->chain->stays_open ? &dump->chain->readers : NULL;
}

struct wake_reader *readers_wake(struct dump *dump)
{
	struct readers *readers = kept(dump);
	if (!readers)
		return wake_open(NULL);
	if (!readers->wake && !readers->no_wake)
		readers->no_wake = !(readers->wake = wake_open(NULL));
	if (readers->wake)
		wake_forget(readers->wake);
	return readers->wake;
}

struct sleep_reader *readers_sleep(struct dump *dump)
{
	struct readers *readers = kept(dump);
	if (!readers)
		return sleep_open(NULL);
	if (!readers->sleep && !readers->no_sleep)
		readers->no_sleep = !(readers->sleep = sleep_open(NULL));
	return readers->sleep;
}

void readers_leave_wake(struct dump *dump, struct wake_reader *reader)
{
	if (!kept(dump))
		wake_close(reader);
}

void readers_leave_sleep(struct dump *dump, struct sleep_reader *reader)
{
	if (!kept(dump))
		sleep_close(reader);
}

void readers_free(struct readers *readers)
{
	wake_close(readers->wake);
	sleep_close(readers->sleep);
	*readers = (struct readers){ 0 };
}
