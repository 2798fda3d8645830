/* The priority of a watch: low while the tree runs, the usual one during a freeze and in the end; never low where there is
 * no way back. */
#include "engine/chain/chain.h" /* before cmocka makes a macro of fail */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static int nice_now(void)
{
	errno = 0;
	int nice = getpriority(PRIO_PROCESS, 0);
	assert_int_equal(errno, 0);
	return nice;
}

/* Of this thread, for good. */
static void give_up_raising(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	struct rlimit none = { 0, 0 };
	assert_int_equal(syscall(SYS_capget, &header, data), 0);
	data[0].effective &= ~(1u << CAP_SYS_NICE);
	data[0].permitted &= ~(1u << CAP_SYS_NICE);
	assert_int_equal(syscall(SYS_capset, &header, data), 0);
	assert_int_equal(setrlimit(RLIMIT_NICE, &none), 0);
}

static bool may_raise(int usual)
{
	return setpriority(PRIO_PROCESS, 0, usual - 1) == 0 && setpriority(PRIO_PROCESS, 0, usual) == 0;
}

static void test_goes_and_comes_back(void **state)
{
	(void)state;
	struct gentle gentle;
	int usual = nice_now();
	if (sched_getscheduler(0) != SCHED_OTHER || usual > 4 || !may_raise(usual))
		skip();
	gentle_begin(&gentle);
	assert_int_equal(nice_now(), usual + 15);
	gentle_go(&gentle, false);
	assert_int_equal(nice_now(), usual);
	gentle_go(&gentle, true);
	assert_int_equal(nice_now(), usual + 15);
	gentle_end(&gentle);
	assert_int_equal(nice_now(), usual);
	gentle_go(&gentle, true); /* it is over */
	assert_int_equal(nice_now(), usual);
}

static void test_stays_where_there_is_no_way_back(void **state)
{
	(void)state;
	struct gentle gentle;
	int usual = nice_now();
	give_up_raising();
	gentle_begin(&gentle);
	assert_int_equal(nice_now(), usual);
	gentle_go(&gentle, true);
	assert_int_equal(nice_now(), usual);
	gentle_end(&gentle);
}

static void test_leaves_another_policy_alone(void **state)
{
	(void)state;
	struct gentle gentle;
	int usual = nice_now();
	struct sched_param param = { 0 };
	assert_int_equal(sched_setscheduler(0, SCHED_BATCH, &param), 0);
	gentle_begin(&gentle);
	assert_int_equal(nice_now(), usual);
	gentle_end(&gentle);
	sched_setscheduler(0, SCHED_OTHER, &param);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_goes_and_comes_back),
		cmocka_unit_test(test_leaves_another_policy_alone),
		cmocka_unit_test(test_stays_where_there_is_no_way_back), /* the last one: for good */
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
