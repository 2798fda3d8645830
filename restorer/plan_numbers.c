/*
 * plan_numbers.c - numbers of tasks that are known only when the tasks are born.
 *
 * Every task of control memory has its number there as soon as it, or whoever made it, goes on: operations
 * take it from there.
 */
#include "restorer/plan_private.h"

void plans_number_late(struct plans *plans, plan_find_fn find, const void *arg)
{
	plans->find = find;
	plans->find_arg = arg;
}

static uint32_t find(const struct plans *plans, int number)
{
	return plans && plans->find && number > 0 ? plans->find(plans->find_arg, number) : UINT32_MAX;
}

bool plans_is_late(const struct plans *plans, int number)
{
	return find(plans, number) != UINT32_MAX;
}

struct arg plan_number(struct plans *plans, uint32_t task, int number)
{
	uint32_t whose = find(plans, number);
	if (whose == UINT32_MAX)
		return IMM(number);
	uint32_t slot = plans_input(plans); /* zero until then: the upper half stays so */
	plan_copy(plans, task, (struct arg){ ARG_SLOT_PLACE, slot }, (struct arg){ ARG_TID_PLACE, whose },
		  sizeof(int32_t));
	return SLOT(slot);
}

void plan_number_into(struct plans *plans, uint32_t task, struct arg to, int number)
{
	uint32_t whose = find(plans, number);
	if (whose != UINT32_MAX)
		plan_copy(plans, task, to, (struct arg){ ARG_TID_PLACE, whose }, sizeof(int32_t));
}
