/*
 * example.c - tests that start from one fixture: a table that takes its time to fill, and a thread that serves it.
 *
 *	gcc -I. example.c -o example $(pkg-config --cflags --libs fsnap cmocka) -pthread && ./example
 */
#include <pthread.h>
#include <time.h>

#include "fsnap_cmocka.h"

#define ROWS 100000

static int setups; /* how often the fixture was set up */

struct table {
	unsigned *rows;
	unsigned n;
	pthread_mutex_t lock;
	pthread_cond_t change;
	unsigned asked, answered; /* the thread squares what it is asked */
};

static void *serve(void *arg)
{
	struct table *table = arg;

	pthread_mutex_lock(&table->lock);
	for (;;) {
		while (table->answered || !table->asked)
			pthread_cond_wait(&table->change, &table->lock);
		table->answered = table->asked * table->asked;
		pthread_cond_broadcast(&table->change);
	}
	return NULL;
}

static unsigned ask(struct table *table, unsigned number)
{
	pthread_mutex_lock(&table->lock);
	table->answered = 0;
	table->asked = number;
	pthread_cond_broadcast(&table->change);
	while (!table->answered)
		pthread_cond_wait(&table->change, &table->lock);
	pthread_mutex_unlock(&table->lock);
	return table->answered;
}

static int fill(void **state)
{
	static struct table table = { .lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER };
	pthread_t thread;

	table.rows = malloc(ROWS * sizeof(*table.rows));
	for (table.n = 0; table.n < ROWS; table.n++)
		table.rows[table.n] = table.n * 7;
	nanosleep(&(struct timespec){ .tv_nsec = 300000000 }, NULL); /* whatever else takes long */
	setups++;
	*state = &table;
	return pthread_create(&thread, NULL, serve, &table);
}

static void check(const struct table *table)
{
	assert_int_equal(setups, 1);
	assert_int_equal(table->n, ROWS);
	for (unsigned i = 0; i < ROWS; i++)
		assert_int_equal(table->rows[i], i * 7);
}

static void destroys(void **state)
{
	struct table *table = *state;

	check(table);
	memset(table->rows, 0, ROWS * sizeof(*table->rows));
	table->n = 0;
	setups = 99;
}

static void finds_it_whole(void **state)
{
	check(*state);
}

static void is_served(void **state)
{
	assert_int_equal(ask(*state, 12), 144);
	destroys(state);
}

static void is_served_again(void **state)
{
	assert_int_equal(ask(*state, 9), 81);
	check(*state);
}

static void fails(void **state)
{
	struct table *table = *state;

	assert_int_equal(table->n, 0);
}

FSNAP_FIXTURE(filled, fill);
FSNAP_TEST(filled, destroys)
FSNAP_TEST(filled, finds_it_whole)
FSNAP_TEST(filled, is_served)
FSNAP_TEST(filled, is_served_again)
FSNAP_TEST(filled, fails)

int main(int argc, char **argv)
{
	(void)argv;
	const struct CMUnitTest tests[] = { fsnap_unit_test(destroys), fsnap_unit_test(finds_it_whole),
					    fsnap_unit_test(is_served), fsnap_unit_test(is_served_again) };
	const struct CMUnitTest wrong[] = { fsnap_unit_test(fails) };

	if (argc > 1) /* shows what a failure looks like */
		return cmocka_run_group_tests(wrong, fsnap_setup(filled), fsnap_teardown(filled));
	return cmocka_run_group_tests(tests, fsnap_setup(filled), fsnap_teardown(filled));
}
